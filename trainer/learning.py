"""A step's optimizer steps, and what becomes of those that are not finite."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from trainer.advantages import trained
from trainer.algorithm_config import Mhpo
from trainer.batch import TrainSequence, trainable, updates
from trainer.config import JobSpec
from trainer.failure import write_failure
from trainer.learner import Before, DriftedError, NotFiniteError, TokenRecord, Update
from trainer.run import Run
from trainer.run_folder import TraceOf
from trainer.token_trace import TokenTrace, pieces
from trainer.types import Completion, RolloutGroup


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a step's optimizer steps have done."""

    updates: list[Update]
    record: TokenRecord
    lags: list[int]  # of each sequence: optimizer steps between the weights that sampled it and those that it changed
    skipped: int  # optimizer steps not taken, what they are made of not being finite
    trace: TokenTrace
    left_out: int = 0  # optimizer steps not taken, the batch's drift being past spec.max_drift
    unused: int = 0  # completions that no update looked at for that reason


def learn(run: Run, step: int, groups: Sequence[RolloutGroup], version: int) -> Learnt:
    """The batch's optimizer steps. A part of it in which no completion could be graded is passed over.

    `version`: optimizer steps that the weights had seen which sampled the batch. Raises NotFiniteError where a part is not
    finite and the spec does not let it be passed over.
    """
    groups = trained(groups, run.spec.advantages, run.spec.overlong)
    learnt = Learnt([], TokenRecord(), [], 0, TokenTrace(groups, run.spec.samples.tokens))
    parts_count = run.spec.updates_per_batch // run.spec.epochs_per_batch
    parts = [sequences for part in updates(groups, parts_count) if (sequences := trainable(part))]
    passes = list(zip(parts, before_parts(run, parts), strict=True)) * run.spec.epochs_per_batch
    for number, (sequences, before) in enumerate(passes, start=1):
        lag, seen = run.learner.updates - version, TokenRecord()
        planned = (step - 1) * run.spec.updates_per_batch + number - 1
        limit = run.spec.max_drift if learnt.updates else None  # a batch's first update is always taken
        try:
            update = run.learner.update(sequences, before, seen, planned=planned, max_drift=limit)
        except DriftedError:
            unused = sum(len(part) for part in parts[number - 1 :])  # of the first pass
            return replace(learnt, left_out=len(passes) - number + 1, unused=unused)
        except NotFiniteError as error:
            learnt = replace(learnt, skipped=learnt.skipped + 1)
            path = dump(run, step, number, sequences, before.old)
            total = run.progress.skipped + learnt.skipped
            if total > run.spec.optimizer.max_skipped_updates:
                raise NotFiniteError(f"{error}; its batch is in {path}") from error
            data = {"update": number, "path": path, "skipped_updates": total}
            run.folder.write_event(step, "not_finite", f"{error}; its batch is in {path}", level="warn", data=data)
        else:
            learnt.updates.append(update)
            learnt.record.extend(seen)
            learnt.trace.add(sequences, seen)
            learnt.lags.extend([lag] * len(sequences))
    return learnt


def trace_lines(run: Run, trace: TokenTrace) -> TraceOf:
    """What the samples file holds of a completion's tokens."""

    def line(group: RolloutGroup, completion: Completion) -> dict[str, Any] | None:
        traced = trace.of(group, completion)
        if traced is None:
            return None
        return {"text": pieces(traced.token_ids, run.policy.tokenizer.decode), **traced.values}

    return line


def before_parts(run: Run, parts: Sequence[Sequence[TrainSequence]]) -> list[Before]:
    """What the weights that sampled, and those of this moment, before the first update, say of each part."""
    if run.kept is None:
        return [Before(rows, rows) for rows in present_logprobs(run, parts)]
    old = [[torch.tensor(sequence.old_logprobs) for sequence in sequences] for sequences in parts]
    started = present_logprobs(run, parts) if looks_back(run.spec) else [None] * len(parts)
    return [Before(*rows) for rows in zip(old, started, strict=True)]


def present_logprobs(run: Run, parts: Sequence[Sequence[TrainSequence]]) -> list[list[Tensor] | None]:
    """The learner's log-probabilities of each part before any update. None: those of the one update on it will do."""
    again = run.spec.epochs_per_batch > 1
    return [run.learner.logprobs(sequences) if number > 0 or again else None for number, sequences in enumerate(parts)]


def looks_back(spec: JobSpec) -> bool:
    """True where an update needs to know what the weights before the batch's first one said."""
    return spec.max_drift is not None or (isinstance(spec.algorithm, Mhpo) and spec.algorithm.zero_region_since == "batch")


def dump(run: Run, step: int, number: int, sequences: Sequence[TrainSequence], old: Sequence[Tensor] | None) -> str:
    """Writes the sequences of an update that was not taken, with the policy's log-probabilities; returns the file's path."""
    logprobs = [row.tolist() for row in run.learner.logprobs(sequences)]
    before = logprobs if old is None else [row.tolist() for row in old]
    return write_failure(run.folder.path, step, number, sequences, logprobs, before)


def left_out_metrics(run: Run, learnt: Learnt) -> dict[str, float]:
    """What the batch's drift left out; empty where the spec sets no limit."""
    if run.spec.max_drift is None:
        return {}
    return {"off_policy/updates_left_out": float(learnt.left_out), "off_policy/completions_unused": float(learnt.unused)}


def lag_metrics(lags: Sequence[int]) -> dict[str, float]:
    """How far the weights had moved on when a sequence was trained on; empty where nothing was."""
    return {"off_policy/lag/mean": fmean(lags), "off_policy/lag/max": float(max(lags))} if lags else {}
