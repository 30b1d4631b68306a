"""Optimizer steps: a rollout batch in, changed weights and what was seen on the way out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from trainer.aggregation import StepCounts, token_weights
from trainer.batch import Batch, TrainSequence, collate, cut
from trainer.config import Optimizer
from trainer.losses.token_loss import weighted_sum
from trainer.objective import Objective, TokenTerms, token_terms
from trainer.policy import Policy, TokenDistribution
from trainer.ranks import Ranks


class NotFiniteError(RuntimeError):
    """Loss or gradient is NaN or infinite; the optimizer step was not taken."""


class DriftedError(RuntimeError):
    """The batch's own updates have moved the policy past the limit; the optimizer step was not taken."""

    def __init__(self, drift: float) -> None:
        super().__init__(f"mean |log ratio| {drift:.4g} since the batch's first update")
        self.drift = drift


@dataclass(slots=True)
class TokenRecord:
    """What was seen at each trained token of a step, flat, detached, on the CPU; lists grow by micro-batch."""

    pieces: list[list[int]] = field(default_factory=list)  # the sequences of each micro-batch, by their place in the update
    logprobs: list[Tensor] = field(default_factory=list)
    old_logprobs: list[Tensor] = field(default_factory=list)
    sampler_logprobs: list[Tensor] = field(default_factory=list)
    entropy: list[Tensor] = field(default_factory=list)
    correction_weights: list[Tensor] = field(default_factory=list)
    correction_bounded: list[Tensor] = field(default_factory=list)  # True where truncated or masked
    kl: list[Tensor] = field(default_factory=list)  # empty where no reference is needed
    telemetry: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, piece: list[int], batch: Batch, now: TokenDistribution, old_logprobs_BT: Tensor, terms: TokenTerms) -> None:
        """Appends the tokens of one micro-batch."""
        mask = batch.mask_BT
        self.pieces.append(piece)
        self.logprobs.append(now.logprobs_BT.detach()[mask].cpu())
        self.old_logprobs.append(old_logprobs_BT[mask].cpu())
        self.sampler_logprobs.append(batch.sampler_logprobs_BT[mask].cpu())
        self.entropy.append(now.entropy_BT.detach()[mask].cpu())
        self.correction_weights.append(terms.correction.used_BT[mask].cpu())
        self.correction_bounded.append(terms.correction.bounded_BT[mask].cpu())
        if terms.kl_BT is not None:
            self.kl.append(terms.kl_BT[mask].cpu())
        for name, values_BT in terms.telemetry_BT.items():
            self.telemetry.setdefault(name, []).append(values_BT[mask].cpu())

    def extend(self, later: "TokenRecord") -> None:
        """Appends the tokens of another record."""
        for name in {one.name for one in fields(self)} - {"telemetry"}:
            getattr(self, name).extend(getattr(later, name))
        for name, rows in later.telemetry.items():
            self.telemetry.setdefault(name, []).extend(rows)


@dataclass(frozen=True, slots=True)
class Update:
    """One optimizer step."""

    loss: float
    grad_norm: float  # before it was scaled down
    lr: float


@dataclass(frozen=True, slots=True)
class Before:
    """The learner's log-probabilities of an update's completions by earlier weights, a vector a sequence.

    None: the present weights are those, and no pass of their own is needed.
    """

    old: Sequence[Tensor] | None = None  # the weights that sampled
    started: Sequence[Tensor] | None = None  # the weights before the batch's first update; other ones with rollout.staleness


class Learner:
    """AdamW over the policy's weights, the learning rate a pure function of the planned optimizer step."""

    def __init__(
        self,
        policy: Policy,
        optimizer: Optimizer,
        objective: Objective,
        *,
        total_updates: int,
        micro_batch_tokens: int,
        reference: Policy | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        """`reference`: the frozen model of a KL term in the loss; needed where the objective has one.

        `ranks`: the processes that share each step; None: this one alone.
        """
        if objective.needs_reference and reference is None:
            raise ValueError("a KL term in the loss needs a reference policy")
        self._policy = policy
        self._settings = optimizer
        self._objective = objective
        self._reference = reference
        self._total_updates = total_updates
        self._micro_batch_tokens = micro_batch_tokens
        self._ranks = Ranks() if ranks is None else ranks
        self._adamw = torch.optim.AdamW(
            policy.model.parameters(),
            lr=optimizer.lr,
            betas=optimizer.betas,
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay,
        )
        self.updates = 0  # optimizer steps taken

    def update(
        self,
        sequences: Sequence[TrainSequence],
        before: Before,
        record: TokenRecord,
        *,
        planned: int | None = None,
        max_drift: float | None = None,
    ) -> Update:
        """One optimizer step on `sequences`, in micro-batches whose gradients add up to that of the whole.

        `planned`: this step's place in the learning rate's schedule, which counts steps that were not taken too; None:
        all were taken. Raises DriftedError where the mean |log ratio| since `before.started` is above `max_drift`, and
        NotFiniteError, both before the weights are touched.
        """
        self._ranks.order("update", sequences, before, TokenRecord(), planned=planned, max_drift=max_drift)
        self._adamw.zero_grad(set_to_none=True)
        loss, drift, broken = 0.0, 0.0, None
        try:
            loss, drift = self._backward(sequences, before, record)
        except NotFiniteError as error:
            broken = str(error)
        losses, drifts, faults = zip(*self._ranks.all_of((loss, drift, broken)), strict=True)
        if any(faults):
            raise NotFiniteError(next(fault for fault in faults if fault))
        loss, drift = sum(losses), sum(drifts)
        for others in self._ranks.to_leader(record)[1:]:
            record.extend(others)
        parameters = list(self._policy.model.parameters())
        self._ranks.add_up(parameters)
        grad_norm = float(torch.nn.utils.clip_grad_norm_(parameters, self._max_norm()))
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise NotFiniteError(
                f"loss {loss}, gradient norm {grad_norm} at optimizer step {self.updates + 1}; the step was not taken"
            )
        if max_drift is not None and drift > max_drift:
            raise DriftedError(drift)
        lr = learning_rate(self._settings, self.updates if planned is None else planned, self._total_updates)
        for group in self._adamw.param_groups:
            group["lr"] = lr
        self._adamw.step()
        self.updates += 1
        self._ranks.check_same(parameters)
        return Update(loss, grad_norm, lr)

    def logprobs(self, sequences: Sequence[TrainSequence]) -> list[Tensor]:
        """The present log-probabilities of each sequence's completion tokens; of a rank's own part where it does not lead."""
        self._ranks.order("logprobs", sequences)
        pieces = self._mine(cut(sequences, self._micro_batch_tokens, self._ranks.count))
        rows: dict[int, Tensor] = {}
        mine = {i: row.cpu() for i, row in piece_logprobs(self._policy, sequences, pieces).items()}
        for part in self._ranks.to_leader(mine):
            rows |= part
        return [rows[i] for i in sorted(rows)]

    def state(self) -> dict[str, object]:
        """Everything that the next update depends on besides the weights."""
        return {"adamw": self._adamw.state_dict(), "updates": self.updates}

    def restore(self, state: dict[str, object]) -> None:
        """The state that `state` gave."""
        self._adamw.load_state_dict(state["adamw"])  # type: ignore[arg-type]
        self.updates = int(state["updates"])  # type: ignore[call-overload]

    def _pieces(self, sequences: Sequence[TrainSequence]) -> list[tuple[list[int], bool]]:
        """This rank's micro-batches of the update, and whether a gradient comes from each.

        A completion of no advantage moves nothing where no other term of the loss does, and needs no backward pass. Where
        that is so of all, one is made: momentum and weight decay want gradients of zero.
        """
        if self._objective.has_other_gradients:
            moving, still = list(range(len(sequences))), []
        else:
            moving = [i for i, sequence in enumerate(sequences) if sequence.advantage != 0]
            still = [i for i, sequence in enumerate(sequences) if sequence.advantage == 0]
            if not moving:
                moving, still = still, moving
        return [
            ([some[i] for i in piece], moves)
            for some, moves in ((moving, True), (still, False))
            if some
            for piece in self._mine(cut([sequences[i] for i in some], self._micro_batch_tokens, self._ranks.count))
        ]

    def _mine(self, pieces: list[list[int]]) -> list[list[int]]:
        return pieces[self._ranks.rank :: self._ranks.count]

    def _backward(self, sequences: Sequence[TrainSequence], before: Before, record: TokenRecord) -> tuple[float, float]:
        """Adds this rank's part of the gradient; returns its parts of the loss and of the drift since the batch's beginning."""
        counts, loss, drift = StepCounts.of(sequences), 0.0, 0.0
        for piece, moves in self._pieces(sequences):
            batch = collate([sequences[i] for i in piece], self._policy.device)
            old, started = (
                None if rows is None else pad([rows[i] for i in piece], batch) for rows in (before.old, before.started)
            )
            loss += self._backward_piece(piece, batch, old, started, counts, record, moves=moves)
            if started is not None:
                drift += float((record.logprobs[-1] - started[batch.mask_BT].cpu()).abs().sum()) / counts.tokens
        return loss, drift

    def _backward_piece(
        self,
        piece: list[int],
        batch: Batch,
        old_logprobs_BT: Tensor | None,
        start_logprobs_BT: Tensor | None,
        counts: StepCounts,
        record: TokenRecord,
        *,
        moves: bool,
    ) -> float:
        """Of one micro-batch, whose activations go when this returns; without a gradient where it does not move the weights."""
        with torch.set_grad_enabled(moves):
            now = self._policy.distribution(batch)
            now_BT = now.logprobs_BT.detach()
            old_BT = now_BT if old_logprobs_BT is None else old_logprobs_BT
            start_BT = now_BT if start_logprobs_BT is None else start_logprobs_BT
            if not all(logprobs.isfinite().all() for logprobs in (now_BT, old_BT, start_BT, batch.sampler_logprobs_BT)):
                at = f"optimizer step {self.updates + 1}"
                raise NotFiniteError(f"log-probabilities are not finite at {at}; the step was not taken")
            terms = token_terms(self._objective, batch, now, old_BT, start_BT, self._ref_logprobs(batch))
            constant, dtype = self._objective.sum_constant, terms.loss_BT.dtype
            weights_BT = token_weights(batch.mask_BT, self._objective.loss, counts, sum_constant=constant, dtype=dtype)
            loss = weighted_sum(terms.loss_BT, weights_BT)
        if moves:
            loss.backward()  # type: ignore[no-untyped-call]
        record.add(piece, batch, now, old_BT, terms)
        return float(loss.detach())

    @torch.no_grad()
    def _ref_logprobs(self, batch: Batch) -> Tensor | None:
        """The reference's log-probabilities [B, T] where the loss needs them."""
        if self._reference is None or not self._objective.needs_reference:
            return None
        return self._reference.distribution(batch).logprobs_BT

    def _max_norm(self) -> float:
        return math.inf if self._settings.max_grad_norm is None else self._settings.max_grad_norm


def completion_logprobs(policy: Policy, sequences: Sequence[TrainSequence], micro_batch_tokens: int) -> list[Tensor]:
    """A policy's log-probabilities, nats, of each sequence's completion tokens."""
    rows = piece_logprobs(policy, sequences, cut(sequences, micro_batch_tokens))
    return [rows[i] for i in range(len(sequences))]


@torch.no_grad()
def piece_logprobs(policy: Policy, sequences: Sequence[TrainSequence], pieces: Sequence[list[int]]) -> dict[int, Tensor]:
    """Those of the sequences of some micro-batches, by their place."""
    result: dict[int, Tensor] = {}
    for piece in pieces:
        batch = collate([sequences[i] for i in piece], policy.device)
        logprobs_BT = policy.distribution(batch).logprobs_BT
        result |= {i: row[mask] for i, row, mask in zip(piece, logprobs_BT, batch.mask_BT, strict=True)}
    return result


def pad(rows: Sequence[Tensor], batch: Batch) -> Tensor:
    """One vector a sequence as [B, T], 0 where masked."""
    values = torch.cat([row.to(batch.mask_BT.device) for row in rows])
    padded = torch.zeros(batch.mask_BT.shape, dtype=values.dtype, device=values.device)
    padded[batch.mask_BT] = values
    return padded


def learning_rate(settings: Optimizer, update: int, total: int) -> float:
    """The rate of optimizer step `update`, counted from 0, of `total`: warm-up from lr / warmup_steps, then the schedule."""
    if update < settings.warmup_steps:
        return settings.lr * (update + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.lr
    progress = (update - settings.warmup_steps) / max(1, total - settings.warmup_steps)
    remaining = 1 - progress if settings.schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return settings.lr * (settings.final_lr_fraction + (1 - settings.final_lr_fraction) * remaining)
