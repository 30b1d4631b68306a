"""The learner on a real tiny model: gradients do not depend on how a batch is cut, and the schedule is as stated."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from tests.trainer.seen import flat_gradient, recorded_logprobs
from trainer.algorithm_config import Algorithm, Grpo, Mhpo
from trainer.batch import TrainSequence, collate, cut, updates
from trainer.config import Model, Optimizer
from trainer.learner import Before, DriftedError, Learner, NotFiniteError, TokenRecord, learning_rate
from trainer.losses.ratio_control import ABOUT
from trainer.objective import Objective
from trainer.objective_config import KlInLoss, Loss
from trainer.policy import Policy

CPU = torch.device("cpu")


@pytest.fixture(params=["kernels", "library"])
def policy(tiny_model: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Policy:
    """By our own layers, and by the library's, which is how larger models and GPUs compute."""
    if request.param == "library":
        monkeypatch.setattr("trainer.policy.fits", lambda _: False)
    return Policy.load(Model(path=str(tiny_model)), CPU, temperature=0.7)


def random_sequences(count: int) -> list[TrainSequence]:
    random = Random(3)
    rows = []
    for _ in range(count):
        completion = tuple(random.randrange(3, 80) for _ in range(random.randint(1, 12)))
        prompt = tuple(random.randrange(3, 80) for _ in range(random.randint(1, 6)))
        rows.append(TrainSequence(prompt, completion, (-1.0,) * len(completion), random.uniform(-2, 2)))
    return rows


def gradient(policy: Policy, sequences: list[TrainSequence], budget: int, old: list[Tensor] | None) -> Tensor:
    """The gradient that AdamW sees, at learning rate 0."""
    learner = Learner(
        policy, Optimizer(lr=1e-12, max_grad_norm=None), Objective(Mhpo()), total_updates=1, micro_batch_tokens=budget
    )
    learner.update(sequences, Before(old, old), TokenRecord())
    return flat_gradient(policy)


@pytest.mark.parametrize("budget", [1, 40, 97])
@pytest.mark.parametrize("off_policy", [False, True])
def test_gradient_does_not_depend_on_the_cut(policy: Policy, budget: int, off_policy: bool) -> None:
    sequences = random_sequences(13)
    old = None
    if off_policy:
        learner = Learner(policy, Optimizer(), Objective(Mhpo()), total_updates=1, micro_batch_tokens=10**6)
        old = [row + torch.linspace(-1, 1, len(row)) for row in learner.logprobs(sequences)]
    whole = gradient(policy, sequences, 10**6, old)
    assert whole.norm() > 1e-2
    assert (gradient(policy, sequences, budget, old) - whole).abs().max() < 1e-6


def test_logprobs_equal_a_plain_forward_pass(policy: Policy) -> None:
    """By the model's own logits, one sequence at a time, no padding: what padding and gathering must not change."""
    sequences = random_sequences(9)
    batch = collate(sequences, CPU)
    found = policy.distribution(batch)
    for row, sequence in enumerate(sequences):
        ids = torch.tensor([sequence.prompt_token_ids + sequence.completion_token_ids])
        logits = policy.model(input_ids=ids).logits[0].double() / 0.7
        expected = logits.log_softmax(-1)[:-1].gather(-1, ids[0, 1:, None]).squeeze(-1)[-len(sequence.completion_token_ids) :]
        assert torch.allclose(found.logprobs_BT[row][batch.mask_BT[row]].double(), expected, atol=2e-6)
    probabilities = torch.softmax(policy.model(input_ids=torch.tensor([[9]])).logits[0, 0].double() / 0.7, -1)
    one = collate([TrainSequence((9,), (5,), (0.0,), 1.0)], CPU)
    assert policy.distribution(one).entropy_BT.item() == pytest.approx(
        -(probabilities * probabilities.log()).sum().item(), rel=1e-5
    )


def test_large_vocabularies_go_in_chunks_with_the_same_gradient(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = random_sequences(6)
    whole = gradient(policy, sequences, 10**6, None)
    monkeypatch.setattr("trainer.head.LOGITS_AT_ONCE", 128 * 5)  # five positions at once
    monkeypatch.setattr("trainer.head.LOGITS_KEPT", 128 * 5)  # and made again in the backward pass
    assert (gradient(policy, sequences, 10**6, None) - whole).abs().max() < 1e-6


def test_activations_made_again_give_the_same_gradient(policy: Policy) -> None:
    sequences = random_sequences(6)
    whole = gradient(policy, sequences, 10**6, None)
    policy.checkpoint_activations()
    calls = []
    layer = policy.model.base_model.layers[0]
    hook = layer.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    assert (gradient(policy, sequences, 10**6, None) - whole).abs().max() < 1e-7
    hook.remove()
    assert len(calls) == 2, "once forwards, once again in the backward pass"


def test_first_update_equals_one_with_its_own_old_logprobs(policy: Policy) -> None:
    sequences = random_sequences(5)
    learner = Learner(policy, Optimizer(), Objective(Mhpo()), total_updates=1, micro_batch_tokens=10**6)
    old = learner.logprobs(sequences)
    assert (gradient(policy, sequences, 10**6, None) - gradient(policy, sequences, 10**6, old)).abs().max() < 1e-6


@pytest.mark.parametrize("kind", list(ABOUT), ids=lambda kind: kind.__name__)
def test_what_has_no_advantage_needs_no_backward_pass(
    policy: Policy, kind: type[Algorithm], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the ratio control, off-policy too: loss, gradient and what is recorded are those of a pass over all."""
    sequences = [replace(row, advantage=row.advantage * (i % 3)) for i, row in enumerate(random_sequences(9))]
    learner = Learner(
        policy, Optimizer(lr=1e-12, max_grad_norm=None), Objective(kind()), total_updates=1, micro_batch_tokens=30
    )
    old = [row + torch.linspace(-0.5, 0.5, len(row)) for row in learner.logprobs(sequences)]
    record = TokenRecord()
    with forward_tokens(policy) as seen:
        update = learner.update(sequences, Before(old, old), record)
    assert seen[True] == sum(row.length for row in sequences if row.advantage)
    assert seen[False] == sum(row.length for row in sequences if not row.advantage)
    gradient_found = flat_gradient(policy)
    monkeypatch.setattr(Objective, "has_other_gradients", True)
    whole = learner.update(sequences, Before(old, old), all_of := TokenRecord())
    assert update.loss == pytest.approx(whole.loss, abs=1e-6)
    assert (gradient_found - flat_gradient(policy)).abs().max() < 1e-6 * max(1, whole.grad_norm)
    for one, other in zip(recorded_logprobs(record, sequences), recorded_logprobs(all_of, sequences), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("terms", [{"kl": KlInLoss(coefficient=0.1)}, {"loss": Loss(entropy_coefficient=0.1)}])
def test_kl_and_entropy_move_what_has_no_advantage(policy: Policy, tiny_model: Path, terms: dict[str, Any]) -> None:
    reference = Policy.load(Model(path=str(tiny_model)), CPU, temperature=0.7)
    with torch.no_grad():
        reference.model.lm_head.weight.mul_(1.1)
    sequences = [replace(row, advantage=0.0) for row in random_sequences(4)]
    objective = Objective(Mhpo(), **terms)
    learner = Learner(policy, Optimizer(), objective, total_updates=1, micro_batch_tokens=1000, reference=reference)
    assert learner.update(sequences, Before(), TokenRecord()).grad_norm > 1e-4


def test_momentum_goes_on_where_nothing_has_an_advantage(policy: Policy) -> None:
    learner = Learner(policy, Optimizer(lr=1e-3), Objective(Mhpo()), total_updates=2, micro_batch_tokens=1000)
    learner.update(random_sequences(4), Before(), TokenRecord())
    before = [parameter.clone() for parameter in policy.model.parameters()]
    update = learner.update([replace(row, advantage=0.0) for row in random_sequences(4)], Before(), TokenRecord())
    assert update.grad_norm == 0
    assert not any(torch.equal(a, b) for a, b in zip(before, policy.model.parameters(), strict=True))


@contextmanager
def forward_tokens(policy: Policy) -> Iterator[Counter[bool]]:
    """Tokens that went through the model, by whether a gradient could come from them."""
    seen: Counter[bool] = Counter()

    def count(_module: nn.Module, inputs: tuple[Tensor]) -> None:
        seen[torch.is_grad_enabled()] += inputs[0].numel()

    hook = policy.model.get_input_embeddings().register_forward_pre_hook(count)
    try:
        yield seen
    finally:
        hook.remove()


def test_a_step_with_nan_is_not_taken(policy: Policy) -> None:
    before = [p.clone() for p in policy.model.parameters()]
    learner = Learner(policy, Optimizer(lr=0.1), Objective(Grpo()), total_updates=1, micro_batch_tokens=100)
    poisoned = [TrainSequence((3, 4), (5, 6), (-1.0, -1.0), float("nan"))]
    with pytest.raises(NotFiniteError, match="optimizer step 1"):
        learner.update(poisoned, Before(), TokenRecord())
    assert all(torch.equal(a, b) for a, b in zip(before, policy.model.parameters(), strict=True))
    assert learner.updates == 0


@pytest.mark.parametrize(("since", "moves"), [("batch", True), ("rollout", False)])
def test_the_batch_region_goes_by_the_weights_before_the_first_update(
    policy: Policy, since: Literal["batch", "rollout"], moves: bool
) -> None:
    """All tokens are past the clip since the rollout, in the advantage's direction; none has moved since the batch began."""
    sequences = [replace(sequence, advantage=1.0) for sequence in random_sequences(4)]
    objective = Objective(Mhpo(zero_region=True, zero_region_since=since))
    learner = Learner(policy, Optimizer(lr=1e-12), objective, total_updates=1, micro_batch_tokens=30)
    now = learner.logprobs(sequences)
    update = learner.update(sequences, Before([row - 0.5 for row in now], now), TokenRecord())
    assert (update.grad_norm > 1e-2) == moves
    assert moves or update.grad_norm == 0.0


@pytest.mark.parametrize("budget", [30, 10**6])
def test_a_step_past_the_drift_limit_is_not_taken(policy: Policy, budget: int) -> None:
    """Half the completions' tokens have moved by 0.3 nats to one side, the others by 0.1 to the other."""
    sequences = random_sequences(8)
    learner = Learner(policy, Optimizer(lr=0.1), Objective(Mhpo()), total_updates=1, micro_batch_tokens=budget)
    now = learner.logprobs(sequences)
    started = [row - (0.3 if number % 2 else -0.1) for number, row in enumerate(now)]
    tokens = [len(row) for row in now]
    drift = (0.3 * sum(tokens[1::2]) + 0.1 * sum(tokens[::2])) / sum(tokens)
    before = [p.clone() for p in policy.model.parameters()]
    with pytest.raises(DriftedError) as raised:
        learner.update(sequences, Before(now, started), TokenRecord(), max_drift=drift * 0.999)
    assert raised.value.drift == pytest.approx(drift, rel=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(before, policy.model.parameters(), strict=True))
    assert learner.updates == 0
    learner.update(sequences, Before(now, started), TokenRecord(), max_drift=drift * 1.001)
    assert learner.updates == 1
    assert not torch.equal(before[0], next(iter(policy.model.parameters())))


def test_the_schedule_counts_planned_steps(policy: Policy) -> None:
    settings = Optimizer(lr=1.0, schedule="linear", final_lr_fraction=0.0)
    learner = Learner(policy, settings, Objective(Mhpo()), total_updates=10, micro_batch_tokens=1000)
    assert learner.update(random_sequences(2), Before(), TokenRecord(), planned=4).lr == pytest.approx(0.6)
    assert learner.updates == 1


def test_max_grad_norm_scales_the_gradient_down(policy: Policy) -> None:
    learner = Learner(
        policy, Optimizer(lr=1e-12, max_grad_norm=1e-3), Objective(Mhpo()), total_updates=1, micro_batch_tokens=1000
    )
    update = learner.update(random_sequences(5), Before(), TokenRecord())
    left = torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None]).norm()
    assert update.grad_norm > 1e-2
    assert left.item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        (Optimizer(lr=1.0), [1.0, 1.0, 1.0, 1.0]),
        (Optimizer(lr=1.0, warmup_steps=2, schedule="linear"), [0.5, 1.0, 1.0, 0.5]),
        (Optimizer(lr=1.0, schedule="linear", final_lr_fraction=0.2), [1.0, 0.8, 0.6, 0.4]),
        (Optimizer(lr=1.0, schedule="cosine"), [1.0, 0.8535533905932737, 0.5, 0.14644660940672627]),
    ],
)
def test_learning_rates_by_hand(settings: Optimizer, rates: list[float]) -> None:
    assert [learning_rate(settings, update, total=4) for update in range(4)] == pytest.approx(rates)


def test_micro_batches_hold_every_sequence_once_within_the_budget() -> None:
    sequences = random_sequences(20)
    pieces = list(cut(sequences, budget=50))
    assert sorted(i for piece in pieces for i in piece) == list(range(20))
    tokens = [sum(sequences[i].length for i in piece) for piece in pieces]
    assert max(tokens) <= 50
    assert max(tokens) - min(tokens) <= max(s.length for s in sequences), "as even as can be"
    assert [len(piece) for piece in cut(sequences, budget=1)] == [1] * 20


def test_updates_cut_by_whole_groups() -> None:
    groups: list[Any] = list("abcdefg")
    assert [len(part) for part in updates(groups, 3)] == [2, 3, 2]
    assert [group for part in updates(groups, 3) for group in part] == groups
