"""A run from its spec and its folder: data, model, sampler and the newest checkpoint, if there is one."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from trainer import checkpoint
from trainer.checkpoint import Progress
from trainer.config import JobSpec, Model, Resources
from trainer.data import ProblemOrder, load_problems, split_problems
from trainer.drift import DriftWatch
from trainer.learner import Learner
from trainer.memory import give_back
from trainer.objective import Objective
from trainer.policy import Policy, load_reference
from trainer.ranks import Ranks, Setup, open_ranks
from trainer.rewards.score import Scorer
from trainer.rollout.open import choose_device, open_sampler
from trainer.rollout.probe import PROBE_TOKENS, WeightProbe
from trainer.rollout.queue import RolloutQueue
from trainer.rollout.sampling_weights import SamplingWeights
from trainer.run import Run, encode
from trainer.run_folder import RunFolder
from trainer.stopping import StopSignal
from trainer.strict import SpecError
from trainer.types import Problem


@contextmanager
def opened(spec: JobSpec, folder: RunFolder, stop: StopSignal) -> Iterator[Run]:
    """The run where it stands; what it has started ends with the block. Raises SpecError, Stopped, EngineError, RankError."""
    folder.write_phase(0, "loading_model")
    device = choose_device(spec.resources)
    check_learners(spec.resources, device)
    check_engine(spec.resources, device)
    share_threads(spec.resources, device)
    torch.manual_seed(spec.seed)
    problems, validation = load_data(spec)
    saved = checkpoint.latest(folder.checkpoints)
    model = spec.model if saved is None else spec.model.model_copy(update={"path": str(saved), "revision": None})
    policy, reference = load_policy(spec, model, device), load_reference(spec, device)
    longest = max(map(len, encode(policy, spec, [*problems, *validation])))
    check_context(policy, longest, spec.rollout.max_new_tokens)
    with ExitStack() as stack:
        with stop.interruptible():
            ranks = open_ranks(Setup(spec, model, saved), device)
        stack.callback(ranks.close)
        learner = new_learner(spec, policy, reference, ranks)
        progress, batches = (Progress(), []) if saved is None else checkpoint.restore(saved, policy, learner)
        if folder.used:
            tell_of_resumption(folder, progress, saved)
        scorer = stack.enter_context(Scorer(spec.rewards))
        scorer.check_answers([*problems, *validation], "dataset.answer_column", spec.dataset.path)
        give_back(device)  # what loading has left over, before an engine asks how much is free
        with stop.interruptible():
            sampler = open_sampler(
                spec.rollout.engine,
                model,
                policy.tokenizer,
                max_model_len=max(longest + spec.rollout.max_new_tokens, PROBE_TOKENS + 1),
                concurrency=spec.rollout.prompts_per_step * spec.rollout.group_size,
                device=device,
                resources=spec.resources,
                ranks=ranks,
            )
        stack.callback(sampler.close)
        yield Run(
            spec,
            folder,
            policy,
            reference,
            learner,
            sampler,
            WeightProbe(policy, spec.model.dtype),
            scorer,
            ProblemOrder(problems, shuffle=spec.dataset.shuffle, seed=spec.seed),
            validation,
            stop,
            progress,
            queue=RolloutQueue(spec.rollout.staleness, spec.steps, batches),
            kept=SamplingWeights(policy) if spec.rollout.staleness else None,
            drift=DriftWatch(spec, folder.metrics_until(progress.step)),
        )


def load_data(spec: JobSpec) -> tuple[list[Problem], list[Problem]]:
    """Problems to train on and to validate with. Raises SpecError."""
    rows = load_problems(spec.dataset)
    if any(problem.images for problem in rows):
        raise SpecError("dataset.image_column", "rows with images can be scored and not yet trained on; leave the column out")
    return split_problems(rows, spec.dataset.validation_size, spec.seed)


def load_policy(spec: JobSpec, model: Model, device: torch.device) -> Policy:
    """The policy with the weights of `model`. Raises SpecError."""
    policy = Policy.load(model, device, spec.rollout.temperature)
    if spec.resources.activation_checkpointing:
        policy.checkpoint_activations()
    return policy


def new_learner(spec: JobSpec, policy: Policy, reference: Policy | None, ranks: Ranks) -> Learner:
    """The learner before its first update."""
    return Learner(
        policy,
        spec.optimizer,
        Objective.of(spec),
        total_updates=spec.steps * spec.updates_per_batch,
        micro_batch_tokens=spec.resources.micro_batch_tokens,
        reference=reference,
        ranks=ranks,
    )


def check_learners(resources: Resources, device: torch.device) -> None:
    """Raises SpecError where the run has fewer GPUs than learners."""
    found = min(resources.gpus, torch.cuda.device_count())
    if device.type == "cuda" and resources.learners > found:
        raise SpecError("resources.learners", f"{resources.learners} learners want a GPU each, and the run has {found}")


def check_engine(resources: Resources, device: torch.device) -> None:
    """Raises SpecError where the engine is to sleep and cannot."""
    if resources.engine_sleeps and device.type == "cpu":
        raise SpecError("resources.engine_sleeps", "vLLM gives memory back on a GPU alone, and the run is on a CPU")


def rank_device(resources: Resources, rank: int) -> torch.device:
    """Where a rank computes: the first GPU is the leader's and the engine's."""
    device = choose_device(resources)
    return torch.device("cuda", rank) if device.type == "cuda" else device


def share_threads(resources: Resources, device: torch.device) -> None:
    """Sets this process's CPU threads: those that the spec names, else an equal share of the cores that learners meet on."""
    if resources.threads is not None:
        torch.set_num_threads(resources.threads)
    elif device.type == "cpu" and resources.learners > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // resources.learners))


def tell_of_resumption(folder: RunFolder, progress: Progress, saved: Path | None) -> None:
    """An event that says from where an interrupted run goes on."""
    source = "the model: there is no checkpoint" if saved is None else f"the checkpoint of step {progress.step}"
    folder.write_event(progress.step, "resumed", f"resumed from {source}")


def check_context(policy: Policy, longest: int, max_new_tokens: int) -> None:
    """Raises SpecError where the longest prompt, in tokens, and a completion do not fit the model's context."""
    context = getattr(policy.model.config.get_text_config(), "max_position_embeddings", None)  # some models have no limit
    if context is not None and longest + max_new_tokens > context:
        raise SpecError(
            "rollout.max_new_tokens",
            f"the longest prompt has {longest} tokens, and {max_new_tokens} more do not fit the model's context of {context}; "
            f"at most {context - longest} would",
        )
