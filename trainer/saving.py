"""When a checkpoint is written, and which of the older ones stay."""

import json

from trainer import checkpoint
from trainer.config import JobSpec
from trainer.run import Run
from trainer.run_folder import write_atomically


def save(run: Run) -> None:
    """A checkpoint of the present step, unless it is there; then the old ones go, but not those that are to be evaluated.

    What the sampler is working on is not in it: the weights that are saved sample it again. Raises NotFiniteError rather
    than save weights that give no log-probabilities.
    """
    spec, step = run.spec, run.progress.step
    latest = checkpoint.latest(run.folder.checkpoints)
    if latest is not None and checkpoint.step_of(latest) == step:
        return
    run.probe.own_logprobs()
    run.folder.write_phase(step, "checkpointing")
    run.folder.sync()
    path = checkpoint.save(run.folder.checkpoints, run.policy, run.learner, run.progress, run.queue.batches)
    data = {"step": step, "path": str(path.relative_to(run.folder.path)), "final": step == spec.steps}
    data |= {"validation_reward": run.progress.validation_reward}
    run.folder.write_event(step, "checkpoint", f"checkpoint of step {step} saved", data=data)
    best = mark_best(run, step)
    removed = checkpoint.prune(run.folder.checkpoints, spec.checkpoints.keep, spare=[*evaluated_steps(spec), *best])
    if removed:
        run.folder.write_event(step, "checkpoints_removed", f"removed steps {removed}", data={"steps": removed})


def mark_best(run: Run, step: int) -> list[int]:
    """The step of the checkpoint with the highest validation reward, which best_checkpoint.json names; none without any."""
    found = checkpoint.best(run.folder.checkpoints)
    if found is None:
        return []
    best, reward = found
    write_atomically(run.folder.path / "best_checkpoint.json", json.dumps({"step": best, "validation_reward": reward}))
    if best == step:
        run.folder.write_event(step, "best_checkpoint", f"the best yet: validation reward {reward:.4g}", data={"step": step})
    return [best]


def evaluated_steps(spec: JobSpec) -> range:
    """The steps whose checkpoints are to be evaluated."""
    if not spec.evaluation.benchmarks or spec.evaluation.every is None:
        return range(0)
    every = spec.checkpoints.every * spec.evaluation.every
    return range(every, spec.steps + 1, every)
