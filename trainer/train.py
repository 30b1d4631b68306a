"""The run, readable top to bottom: sample, score, learn, save."""

from collections.abc import Sequence
from dataclasses import replace

from trainer.checkpoint import Progress
from trainer.clock import StepClock
from trainer.config import JobSpec, grader_names
from trainer.learner import NotFiniteError
from trainer.learning import lag_metrics, learn, left_out_metrics, trace_lines
from trainer.memory import peak_memory_mb
from trainer.metrics import learner_metrics, length_metrics, rollout_metrics, zero_variance_metrics
from trainer.opening import opened
from trainer.run import Run, requests, sampling
from trainer.run_folder import RunFolder
from trainer.sampling import ask, collect, replace_zero_variance, room_to_learn, score, sync
from trainer.saving import save
from trainer.shaping import shape
from trainer.stopping import Stopped, StopSignal
from trainer.types import RolloutGroup

VALIDATION_STEP = 0  # part of the seed of validation samples: each validation draws the same random numbers


def train(spec: JobSpec, folder: RunFolder, stop: StopSignal) -> int:
    """Trains to the last step, going on from the folder's newest checkpoint; returns the step.

    Raises SpecError (the user's fault), Stopped (told to, and saved), WeightSyncError, EngineError, RankError, NotFiniteError.
    """
    with opened(spec, folder, stop) as run:
        loop(run)
        return run.progress.step


def loop(run: Run) -> None:
    """Steps until the last; when told to stop, saves the last finished step and raises Stopped."""
    try:
        while run.progress.step < run.spec.steps:
            run.stop.check()
            named_step(run, run.progress.step + 1)
    except Stopped:  # raised only where weights and progress are those of the last finished step
        if run.progress.step > 0:
            save(run)
        raise


def named_step(run: Run, step: int) -> None:
    """`one_step`; raises NotFiniteError that names the step."""
    try:
        one_step(run, step)
    except NotFiniteError as error:
        message = f"step {step}: {error}"
        run.folder.write_event(step, "not_finite", message, level="error")
        raise NotFiniteError(message) from error


def one_step(run: Run, step: int) -> None:
    """One rollout batch: sampled, scored, learnt from, written down, saved where due."""
    spec, clock = run.spec, StepClock()
    with clock.part("sync"):
        sync(run, step)
    run.folder.write_phase(step, "rollout")
    with clock.part("rollout"), run.stop.interruptible():
        ask(run, step)
    batch = run.queue.of_step(step)
    run.folder.write_phase(step, "rewards")
    with clock.part("rewards"), run.stop.interruptible():
        groups = score(run, batch.order.problems, batch.completions)
    with clock.part("rollout"), run.stop.interruptible():
        groups = replace_zero_variance(run, groups, step)
    with clock.part("rewards"):
        shaped = shape(groups, spec, run.reference)
        groups = shaped.groups
    run.folder.write_phase(step, "learning")
    with clock.part("learner"), room_to_learn(run):
        learnt = learn(run, step, groups, batch.order.version)
    with clock.part("rollout"):
        if run.queue.pending:
            collect(run)

    run.queue.remove(step)
    tokens = sum(len(c.token_ids) for group in groups for c in group.completions)
    position, num_tokens = run.progress.position + len(groups), run.progress.num_tokens + tokens
    progress = Progress(step, position, num_tokens, run.progress.skipped + learnt.skipped)
    metrics = rollout_metrics(groups, grader_names(spec.rewards))
    metrics |= learner_metrics(learnt.updates, learnt.record, spec.algorithm) | lag_metrics(learnt.lags)
    metrics |= shaped.metrics | zero_variance_metrics(groups, spec.rollout.prompts_per_step)
    metrics |= {"sampling/probe_difference": run.probe_difference, "num_tokens": float(num_tokens)}
    metrics |= {"skipped_updates": float(progress.skipped)} | left_out_metrics(run, learnt)
    due = step == spec.steps or step % spec.checkpoints.every == 0
    if due and run.validation:
        metrics |= validate(run, step)
        progress = replace(progress, validation_reward=metrics["eval/reward"])
    report_grading(run, step, groups)
    run.folder.write_samples(step, groups, trace_lines(run, learnt.trace))
    report_drift(run, step, metrics)
    run.folder.write_metrics(step, metrics | {"perf/memory_peak_mb": peak_memory_mb(run.policy.device)} | clock.metrics(tokens))
    run.progress = progress
    if due:
        save(run)


def validate(run: Run, step: int) -> dict[str, float]:
    """One completion of each held-out problem, by the weights of this step."""
    run.folder.write_phase(step, "evaluating")
    sync(run, step)
    completions = run.sampler.generate(requests(run, run.validation, VALIDATION_STEP, group_size=1), sampling(run.spec))
    scores = run.scorer.score([(p, c) for p, (c,) in zip(run.validation, completions, strict=True)])
    rewards = [s.reward for s in scores if not s.errors]
    lengths = length_metrics([c for (c,) in completions])
    return {"eval/reward": sum(rewards) / max(1, len(rewards))} | {f"eval/{name}": value for name, value in lengths.items()}


def report_grading(run: Run, step: int, groups: Sequence[RolloutGroup]) -> None:
    """One event for each grader that failed in this step, with its first error."""
    failed: dict[str, list[str]] = {}
    for group in groups:
        for one in group.scores:
            for name, error in one.errors.items():
                failed.setdefault(name, []).append(error)
    for name, errors in failed.items():
        run.folder.write_event(
            step,
            "grader_error",
            f"grader {name!r} failed on {len(errors)} completions, which are left out of the loss; the first: {errors[0]}",
            level="warn",
            data={"grader": name, "count": len(errors)},
        )


def report_drift(run: Run, step: int, metrics: dict[str, float]) -> None:
    """An event when the learner's drift from the rollout policy enters the range from which runs were seen to collapse."""
    seen = run.drift.see(metrics)
    if seen is not None:
        run.folder.write_event(step, "warning", seen.message, level="warn", data=seen.data)
