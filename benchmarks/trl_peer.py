"""TRL's GRPOTrainer on the sequences of benchmarks/learner.py; run by the Python of an environment where TRL is installed.

Standard input: JSON {"config": Qwen3Config's, "sequences": [[prompt token ids, completion token ids], ...], "steps": n,
"micro_batch": sequences}. Standard output's last line: JSON {"seconds": [a step], "peak_memory_gb", "trl": version}.
The rollouts are given (`rollout_func`), so a step is TRL's own: log-probabilities, loss, gradient,
AdamW. Imports nothing of ours.
"""

import json
import os
import resource
import sys
import tempfile
import time
from typing import Any

os.environ |= {"TRL_EXPERIMENTAL_SILENCE": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}

import torch
import trl  # type: ignore[import-not-found, unused-ignore]
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, TrainerCallback

GROUP = 8


class StepTimer(TrainerCallback):  # type: ignore[misc]
    """Seconds of each optimizer step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._started = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._started = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.perf_counter() - self._started)


def plain_tokenizer() -> PreTrainedTokenizerFast:
    """The trainer wants one; no text is ever tokenized or shown."""
    vocabulary = {"<pad>": 0, "<eos>": 1}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


def timed_steps(task: dict[str, Any], folder: str) -> list[float]:
    """Trains; the seconds of each step, warm-up included."""
    sequences, micro_batch = task["sequences"], task["micro_batch"]

    def given(_prompts: list[Any], _trainer: Any) -> dict[str, Any]:
        return {
            "prompt_ids": [prompt for prompt, _ in sequences],
            "completion_ids": [completion for _, completion in sequences],
            "logprobs": [[-1.0] * len(completion) for _, completion in sequences],
        }

    def reward(completions: list[Any], **_: Any) -> list[float]:
        return [float(i % 3) for i in range(len(completions))]

    torch.manual_seed(0)
    timer = StepTimer()
    arguments = trl.GRPOConfig(
        output_dir=folder,
        use_cpu=True,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=len(sequences) // micro_batch,
        num_generations=GROUP,
        max_completion_length=max(len(completion) for _, completion in sequences),
        max_steps=task["steps"],
        learning_rate=1e-6,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        gradient_checkpointing=False,
        bf16=False,
    )
    trainer = trl.GRPOTrainer(
        model=Qwen3ForCausalLM(Qwen3Config(**task["config"])).float(),
        reward_funcs=reward,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": ["<eos>"] * (len(sequences) * (task["steps"] + 1))}),
        processing_class=plain_tokenizer(),
        callbacks=[timer],
        rollout_func=given,
    )
    trainer.train()
    return timer.seconds


def main() -> None:
    task = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as folder:
        seconds = timed_steps(task, folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(json.dumps({"seconds": seconds, "peak_memory_gb": peak, "trl": trl.__version__}))


if __name__ == "__main__":
    main()
