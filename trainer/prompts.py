"""Prompts as token ids."""

from collections.abc import Sequence

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

    Raises SpecError where the tokenizer has no chat template, or a prompt has no token.
    """
    if chat_template and tokenizer.chat_template is None:
        raise SpecError(f"{param}.chat_template", "the model's tokenizer has no chat template")
    rows = [_encode(tokenizer, problem.prompt, chat_template, system_prompt) for problem in problems]
    for problem, row in zip(problems, rows, strict=True):
        if not row:
            raise SpecError(f"{param}.path", f"the prompt of row {problem.index + 1} has no token: {problem.prompt!r:.80}")
    return rows


def _encode(tokenizer: PreTrainedTokenizerBase, prompt: str, chat_template: bool, system_prompt: str | None) -> tuple[int, ...]:
    if not chat_template:
        return tuple(tokenizer.encode(prompt))
    messages = [{"role": "user", "content": prompt}]
    if system_prompt is not None:
        messages.insert(0, {"role": "system", "content": system_prompt})
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tuple(tokenizer.encode(text, add_special_tokens=False))
