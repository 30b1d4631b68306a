"""A step's completions: asked of the sampler with proven weights, scored, and replaced where they teach nothing."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from trainer.advantages import has_signal
from trainer.batch import TrainSequence
from trainer.learner import completion_logprobs
from trainer.memory import give_back
from trainer.objective_config import ResampleZeroVariance
from trainer.resampling import resample
from trainer.rollout.queue import Order
from trainer.run import Run, encode, requests, sampling
from trainer.types import Completion, Problem, RolloutGroup


def sync(run: Run, step: int) -> None:
    """Gives the sampler the learner's weights, where they have changed, and proves that it has them."""
    if run.synced != run.learner.updates:
        run.folder.write_phase(step, "weight_push")
        run.sampler.push_weights(run.policy.weights(), run.learner.updates)
        run.probe_difference = run.probe.check(run.sampler)
        run.synced = run.learner.updates
        if run.kept is not None:
            run.kept.keep()


@contextmanager
def room_to_learn(run: Run) -> Iterator[None]:
    """Where the spec says so the sampler gives its memory back meanwhile, and the learner what it has kept of it afterwards."""
    if run.spec.resources.engine_sleeps:
        run.sampler.rest()
    yield
    if run.spec.resources.engine_sleeps:
        give_back(run.policy.device)


def ask(run: Run, step: int) -> None:
    """Has the present weights sample every batch that is theirs; the last goes on while the learner trains on an older one."""
    for due in run.queue.due(step):
        position = run.progress.position + run.queue.problems_waiting()
        problems = tuple(run.order.take(position, run.spec.rollout.prompts_per_step))
        run.queue.ask(Order(due, run.progress.step, run.learner.updates, problems))
        run.sampler.start(requests(run, problems, due), sampling(run.spec))
        if due < step + run.spec.rollout.staleness or due == step:
            collect(run)


def collect(run: Run) -> None:
    """Waits for what the sampler was asked for, and takes it in."""
    order, completions = run.queue.pending, run.sampler.finish()
    assert order is not None
    if run.kept is not None:
        with run.kept.in_place():
            completions = with_old_logprobs(run, order, completions)
    run.queue.fill(completions)


def with_old_logprobs(run: Run, order: Order, completions: Sequence[tuple[Completion, ...]]) -> list[tuple[Completion, ...]]:
    """The completions with the log-probabilities of the weights that the policy has just now: those that sampled them."""
    prompts = encode(run.policy, run.spec, order.problems)
    sequences = [
        TrainSequence(prompt, completion.token_ids, completion.sampler_logprobs, advantage=0.0)
        for prompt, group in zip(prompts, completions, strict=True)
        for completion in group
    ]
    rows = iter(completion_logprobs(run.policy, sequences, run.spec.resources.micro_batch_tokens))
    return [tuple(replace(c, old_logprobs=tuple(next(rows).tolist())) for c in group) for group in completions]


def score(run: Run, problems: Sequence[Problem], completions: Sequence[tuple[Completion, ...]]) -> list[RolloutGroup]:
    """The groups with their rewards; advantages come when the step's groups are complete."""
    scores = iter(run.scorer.score([(p, c) for p, group in zip(problems, completions, strict=True) for c in group]))
    prompts = encode(run.policy, run.spec, problems)
    groups = []
    for problem, ids, group in zip(problems, prompts, completions, strict=True):
        own = tuple(next(scores) for _ in group)
        groups.append(RolloutGroup(problem, ids, group, own, advantages=()))
    return groups


def replace_zero_variance(run: Run, groups: list[RolloutGroup], step: int) -> list[RolloutGroup]:
    """The groups and, where the spec asks for it, those of further problems in place of the ones without a signal."""
    settings, wanted = run.spec.advantages.zero_variance, len(groups)
    if not isinstance(settings, ResampleZeroVariance):
        return groups

    def draw(drawn: int, count: int) -> list[RolloutGroup]:
        problems = run.order.take(run.progress.position + drawn, count)
        # Other seeds than any before: in a small dataset one step may draw a problem again.
        asked = requests(run, problems, step, first_sample=drawn * run.spec.rollout.group_size)
        return score(run, problems, run.sampler.generate(asked, sampling(run.spec)))

    every = resample(groups, settings, draw)
    if (found := sum(map(has_signal, every))) < wanted:
        message = f"{len(every)} problems drawn, and only {found} of {wanted} groups have rewards that differ"
        data = {"drawn": len(every), "groups": found, "wanted": wanted}
        run.folder.write_event(step, "warning", message, level="warn", data=data)
    return every
