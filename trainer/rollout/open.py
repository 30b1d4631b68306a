"""Starts the sampler that a spec names; never another one."""

from typing import Literal

import torch
from transformers import PreTrainedTokenizerBase

from trainer.config import Model, Resources
from trainer.policy import load_model
from trainer.ranks import Ranks
from trainer.rollout.sampler import Sampler
from trainer.rollout.shared_sampler import SharedSampler
from trainer.rollout.transformers_sampler import TransformersSampler
from trainer.rollout.vllm_sampler import VllmSampler
from trainer.strict import SpecError


def open_sampler(
    engine: Literal["vllm", "transformers"],
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_model_len: int,
    concurrency: int,
    device: torch.device,
    resources: Resources,
    images: int = 0,
    ranks: Ranks | None = None,
) -> Sampler:
    """A running sampler with the model's own weights.

    `max_model_len`: tokens of the longest prompt and completion together; `concurrency`: completions in flight at most;
    `images`: in one prompt, at most; `ranks`: processes that may share the work. Raises EngineError where vLLM is not
    installed or does not start, and SpecError for images that are to be seen by `transformers`.
    """
    if engine == "transformers":
        if images:
            raise SpecError("engine", "rows with images need engine = 'vllm'; 'transformers' samples from text alone")
        own = load_model(model, device)
        if ranks is not None and shares_rollouts(engine, resources, device):
            return SharedSampler(own, tokenizer, ranks)
        return TransformersSampler(own, tokenizer)
    return VllmSampler(
        model,
        tokenizer,
        max_model_len=max_model_len,
        concurrency=concurrency,
        device=device,
        resources=resources,
        images=images,
    )


def shares_rollouts(engine: str, resources: Resources, device: torch.device) -> bool:
    """Whether every learner samples too."""
    return resources.learners > 1 and engine == "transformers" and device.type == "cpu"


def choose_device(resources: Resources) -> torch.device:
    """The device that the spec asks for; `auto` is cuda where there is one."""
    wanted = resources.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)
