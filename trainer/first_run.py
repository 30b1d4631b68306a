"""Makes what the first run needs: a small base model trained from scratch, training problems and held-out problems.

`python -m trainer.first_run --out FOLDER` writes FOLDER/base (Hugging Face format), FOLDER/train.jsonl and
FOLDER/heldout.jsonl, and does nothing when they are there. About 145 CPU-seconds. The base model can work a sum
out, but mostly blurts a guess.
"""

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from trainer.tasks import sums

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

BATCH = 64
SKILL_STEPS, HABIT_STEPS = 350, 100
TRAIN_PROBLEMS, HELDOUT_PROBLEMS = 20_000, 500

Example = tuple[str, str]  # prompt, answer


def prepare(out: Path, say: Callable[[str], None], seed: int = 0) -> None:
    """Writes base/, train.jsonl and heldout.jsonl into `out` where they are missing."""
    out.mkdir(parents=True, exist_ok=True)
    heldout = sums.write_problems(out / "heldout.jsonl", HELDOUT_PROBLEMS, seed=seed + 1)
    sums.write_problems(out / "train.jsonl", TRAIN_PROBLEMS, seed=seed + 2, without=heldout)
    if (out / "base" / "config.json").exists():
        say(f"base model: {out / 'base'} is there")
        return
    tokenizer = character_tokenizer()
    model = warm_start(small_qwen3(tokenizer, seed), tokenizer, say, seed)
    unfinished = out / "base.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    unfinished.rename(out / "base")
    say(f"base model: written to {out / 'base'}")


def character_tokenizer() -> "PreTrainedTokenizerFast":
    """One token a character of `sums.ALPHABET`, after <pad>, <eos> and <bos>."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", "<bos>", *sums.ALPHABET])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>")


def small_qwen3(tokenizer: "PreTrainedTokenizerFast", seed: int) -> "PreTrainedModel":
    """Qwen3, 3 layers of 128, 607,296 parameters, random weights."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=128,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        dtype=torch.float32,
    )
    return Qwen3ForCausalLM(config)


def warm_start(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerFast", say: Callable[[str], None], seed: int
) -> "PreTrainedModel":
    """Teaches the skill first (worked examples), then the bad habit (four guesses in five)."""
    random = Random(seed)

    def skill() -> Example:
        digits = sums.draw_digits(random)
        return sums.prompt(digits), sums.worked(digits, random, sums.WRONG_STEP)

    def habit() -> Example:
        digits = sums.draw_digits(random)
        return sums.prompt(digits), sums.worked(digits, random) if random.random() < 0.2 else sums.guess(digits, random)

    imitate(model, tokenizer, skill, SKILL_STEPS, lr=2e-3, final_lr=2e-4, warmup=30, say=say, what="skill")
    imitate(model, tokenizer, habit, HABIT_STEPS, lr=2e-4, final_lr=2e-4, warmup=0, say=say, what="habit")
    return model


def imitate(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerFast",
    example: Callable[[], Example],
    steps: int,
    *,
    lr: float,
    final_lr: float,
    warmup: int,
    say: Callable[[str], None],
    what: str,
) -> None:
    """Supervised training on fresh examples, BATCH a step; the loss is on the answer and its end token."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    for step in range(steps):
        rate = lr * (step + 1) / warmup if step < warmup else lr + (final_lr - lr) * (step - warmup) / (steps - warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows, labels = encode([example() for _ in range(BATCH)], tokenizer)
        loss = model(input_ids=torch.tensor(rows), labels=torch.tensor(labels)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 50 == 0:
            say(f"base model: {what} {step + 1}/{steps}, loss {loss.item():.3f}")


def encode(examples: list[Example], tokenizer: "PreTrainedTokenizerFast") -> tuple[list[list[int]], list[list[int]]]:
    """Right-padded token ids and labels; -100 marks what is not learnt: the prompt and the padding."""
    pairs = [(tokenizer.encode(p), [*tokenizer.encode(a), tokenizer.eos_token_id]) for p, a in examples]
    width = max(len(p) + len(a) for p, a in pairs)
    rows = [p + a + [tokenizer.pad_token_id] * (width - len(p) - len(a)) for p, a in pairs]
    labels = [[-100] * len(p) + a + [-100] * (width - len(p) - len(a)) for p, a in pairs]
    return rows, labels


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m trainer.first_run", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for base/, train.jsonl and heldout.jsonl")
    arguments = parser.parse_args()
    prepare(arguments.out, say=lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
