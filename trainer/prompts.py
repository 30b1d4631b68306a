"""Prompts as token ids."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from trainer.strict import SpecError
from trainer.types import Problem


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    *,
    chat_template: bool,
    system_prompt: str | None,
    param: str = "dataset",
) -> list[tuple[int, ...]]:
    """Token ids of each problem's prompt; with `chat_template` as one user message that the model is to answer.

    Images come before the text, as one token each, which the engine replaces by what they hold.
    Raises SpecError where the tokenizer has no chat template, images would need one, or a prompt has no token.
    """
    if chat_template and tokenizer.chat_template is None:
        raise SpecError(f"{param}.chat_template", "the model's tokenizer has no chat template")
    for problem in problems:
        if problem.images and not chat_template:
            message = f"row {problem.index + 1} has images; only a chat template says where they go: set it to true"
            raise SpecError(f"{param}.chat_template", message)
    rows = [_encode(tokenizer, problem, chat_template, system_prompt) for problem in problems]
    for problem, row in zip(problems, rows, strict=True):
        if not row:
            raise SpecError(f"{param}.path", f"the prompt of row {problem.index + 1} has no token: {problem.prompt!r:.80}")
    return rows


def _encode(
    tokenizer: PreTrainedTokenizerBase, problem: Problem, chat_template: bool, system_prompt: str | None
) -> tuple[int, ...]:
    if not chat_template:
        return tuple(tokenizer.encode(problem.prompt))
    content: str | list[dict[str, str]] = problem.prompt
    if problem.images:
        content = [*({"type": "image"} for _ in problem.images), {"type": "text", "text": problem.prompt}]
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if system_prompt is not None:
        messages.insert(0, {"role": "system", "content": system_prompt})
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tuple(tokenizer.encode(text, add_special_tokens=False))
