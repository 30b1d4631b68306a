"""Every ratio control through the learner on a real tiny model: two updates of one batch, changed weights, finite metrics."""

import math
from pathlib import Path
from random import Random

import pytest
import torch

from trainer.algorithm_config import Algorithm
from trainer.batch import TrainSequence
from trainer.config import Model, Optimizer
from trainer.learner import Before, Learner, TokenRecord
from trainer.losses.ratio_control import ABOUT
from trainer.metrics import learner_metrics
from trainer.objective import Objective
from trainer.policy import Policy

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", list(ABOUT), ids=lambda kind: kind.__name__)
def test_two_updates(kind: type[Algorithm], tiny_model: Path) -> None:
    policy = Policy.load(Model(path=str(tiny_model)), CPU, temperature=1.0)
    before = [parameter.clone() for parameter in policy.model.parameters()]
    objective = Objective(kind())
    learner = Learner(policy, Optimizer(lr=1e-3), objective, total_updates=2, micro_batch_tokens=30)
    sequences, record = batch(8), TokenRecord()
    old = learner.logprobs(sequences)
    updates = [learner.update(sequences, Before(old, old), record) for _ in range(2)]
    assert updates[0].grad_norm > 0  # in the second, GSPO's bounds may have stopped every completion
    assert any(not torch.equal(a, b) for a, b in zip(before, policy.model.parameters(), strict=True))
    metrics = learner_metrics(updates, record, objective.algorithm)
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["multiplier/max"] > 0
    assert metrics["ratio/max"] != metrics["ratio/min"], "the second update is off-policy"


def batch(count: int) -> list[TrainSequence]:
    """Completions of 2 to 9 tokens, half of them good."""
    random = Random(5)
    rows = []
    for index in range(count):
        completion = tuple(random.randrange(3, 80) for _ in range(random.randint(2, 9)))
        rows.append(TrainSequence((5, 6), completion, (-4.4,) * len(completion), 1.0 if index % 2 else -1.0))
    return rows
