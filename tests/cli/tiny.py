"""What the first run needs, made in a second: a base model of random weights and a few problems."""

from pathlib import Path

from trainer.tasks import sums


def write_tiny_run(folder: Path) -> None:
    """Write base/, train.jsonl and heldout.jsonl into `folder`."""
    from trainer.first_run import character_tokenizer, small_qwen3

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = character_tokenizer()
    small_qwen3(tokenizer, seed=0).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    sums.write_problems(folder / "train.jsonl", 64, seed=1)
    sums.write_problems(folder / "heldout.jsonl", 4, seed=2)
