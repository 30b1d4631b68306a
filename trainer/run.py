"""The parts of a run, and how its problems become what the sampler is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.checkpoint import Progress
from trainer.config import JobSpec
from trainer.data import ProblemOrder
from trainer.drift import DriftWatch
from trainer.learner import Learner
from trainer.policy import Policy
from trainer.prompts import encode_prompts
from trainer.rewards.score import Scorer
from trainer.rollout.probe import WeightProbe
from trainer.rollout.queue import RolloutQueue
from trainer.rollout.sampler import Sampler, SampleRequest, SamplingSettings, sample_seed
from trainer.rollout.sampling_weights import SamplingWeights
from trainer.run_folder import RunFolder
from trainer.stopping import StopSignal
from trainer.types import Problem


@dataclass(slots=True)
class Run:
    """The parts of a run, and where it stands."""

    spec: JobSpec
    folder: RunFolder
    policy: Policy
    reference: Policy | None  # the base model, where a KL term needs it
    learner: Learner
    sampler: Sampler
    probe: WeightProbe
    scorer: Scorer
    order: ProblemOrder
    validation: Sequence[Problem]
    stop: StopSignal
    progress: Progress
    queue: RolloutQueue
    kept: SamplingWeights | None  # with staleness: the sampler's weights, which the learner's have left behind
    drift: DriftWatch
    synced: int = -1  # optimizer steps that the sampler's weights have seen; -1: nothing pushed yet
    probe_difference: float = 0.0  # of the last push


def requests(
    run: Run, problems: Sequence[Problem], step: int, group_size: int | None = None, first_sample: int = 0
) -> list[SampleRequest]:
    """The prompt of each problem, and of each sample a seed of its own: those of `first_sample` and the following."""
    size = run.spec.rollout.group_size if group_size is None else group_size
    return [
        SampleRequest(ids, tuple(sample_seed(run.spec.seed, step, problem.index, first_sample + i) for i in range(size)))
        for problem, ids in zip(problems, encode(run.policy, run.spec, problems), strict=True)
    ]


def sampling(spec: JobSpec) -> SamplingSettings:
    """How training and validation completions are drawn."""
    return SamplingSettings(spec.rollout.max_new_tokens, spec.rollout.temperature, spec.rollout.top_p, spec.rollout.stop)


def encode(policy: Policy, spec: JobSpec, problems: Sequence[Problem]) -> list[tuple[int, ...]]:
    """The problems' prompts as token ids."""
    return encode_prompts(
        policy.tokenizer,
        problems,
        chat_template=spec.dataset.chat_template,
        system_prompt=spec.dataset.system_prompt,
    )
