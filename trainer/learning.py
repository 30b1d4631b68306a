"""A step's optimizer steps, and what becomes of those that are not finite."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from trainer.advantages import trained
from trainer.batch import TrainSequence, trainable, updates
from trainer.failure import write_failure
from trainer.learner import NotFiniteError, TokenRecord, Update
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
    skipped: int  # optimizer steps not taken
    trace: TokenTrace


def learn(run: Run, step: int, groups: Sequence[RolloutGroup], version: int) -> Learnt:
    """The batch's optimizer steps. A part of it in which no completion could be graded is passed over.

    `version`: optimizer steps that the weights had seen which sampled the batch. Raises NotFiniteError where a part is not
    finite and the spec does not let it be passed over.
    """
    groups = trained(groups, run.spec.advantages, run.spec.overlong)
    learnt = Learnt([], TokenRecord(), [], 0, TokenTrace(groups, run.spec.samples.tokens))
    parts_count = run.spec.updates_per_batch // run.spec.epochs_per_batch
    parts = [sequences for part in updates(groups, parts_count) if (sequences := trainable(part))]
    one_epoch = list(zip(parts, old_logprobs(run, parts), strict=True))
    for number, (sequences, old) in enumerate(one_epoch * run.spec.epochs_per_batch, start=1):
        lag, seen = run.learner.updates - version, TokenRecord()
        try:
            learnt.updates.append(run.learner.update(sequences, old, seen))
        except NotFiniteError as error:
            learnt = replace(learnt, skipped=learnt.skipped + 1)
            path = dump(run, step, number, sequences, old)
            total = run.progress.skipped + learnt.skipped
            if total > run.spec.optimizer.max_skipped_updates:
                raise NotFiniteError(f"{error}; its batch is in {path}") from error
            data = {"update": number, "path": path, "skipped_updates": total}
            run.folder.write_event(step, "not_finite", f"{error}; its batch is in {path}", level="warn", data=data)
        else:
            learnt.record.extend(seen)
            learnt.trace.add(sequences, seen, run.spec.resources.micro_batch_tokens)
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


def old_logprobs(run: Run, parts: Sequence[Sequence[TrainSequence]]) -> list[list[Tensor] | None]:
    """The old policy's log-probabilities of each part: the weights that sampled it. None: the first update's own will do."""
    if run.kept is not None:
        return [[torch.tensor(sequence.old_logprobs) for sequence in sequences] for sequences in parts]
    # Before the first update changes anything.
    again = run.spec.epochs_per_batch > 1
    return [run.learner.logprobs(sequences) if number > 0 or again else None for number, sequences in enumerate(parts)]


def dump(run: Run, step: int, number: int, sequences: Sequence[TrainSequence], old: Sequence[Tensor] | None) -> str:
    """Writes the sequences of an update that was not taken, with the policy's log-probabilities; returns the file's path."""
    logprobs = [row.tolist() for row in run.learner.logprobs(sequences)]
    before = logprobs if old is None else [row.tolist() for row in old]
    return write_failure(run.folder.path, step, number, sequences, logprobs, before)


def lag_metrics(lags: Sequence[int]) -> dict[str, float]:
    """How far the weights had moved on when a sequence was trained on; empty where nothing was."""
    return {"off_policy/lag/mean": fmean(lags), "off_policy/lag/max": float(max(lags))} if lags else {}
