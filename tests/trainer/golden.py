"""The input of the golden vectors: two completions of 3 and 4 trained tokens and one masked token, float64."""

import torch
from torch import Tensor

from trainer.aggregation import StepCounts, token_weights
from trainer.algorithm_config import Algorithm
from trainer.losses.ratio_control import token_loss
from trainer.losses.token_loss import weighted_sum
from trainer.objective_config import Loss

OLD = torch.tensor([[-1.0, -0.5, -2.0, -1.0], [-0.7, -1.2, -0.3, -2.5]], dtype=torch.float64)
RATIO = torch.tensor([[1.5, 0.6, 1.05, 9.0], [0.7, 1.4, 1.0, 0.9]], dtype=torch.float64)
MASK = torch.tensor([[True, True, True, False], [True, True, True, True]])
ADVANTAGES = torch.tensor([1.0, -0.5], dtype=torch.float64)

SEQUENCE_MEAN = Loss(aggregation="sequence_mean_token_mean")
TOKEN_MEAN = Loss(aggregation="token_mean")


def sequence_sum(constant: int) -> Loss:
    """Sum over tokens, mean over sequences, over a constant."""
    return Loss(aggregation="sequence_sum", constant=constant)


def weights_of(loss: Loss) -> Tensor:
    """The golden input's weights [B, T] under an aggregation."""
    return token_weights(MASK, loss, StepCounts(2, 7), sum_constant=loss.constant or 1, dtype=torch.float64)


def golden(algorithm: Algorithm, loss: Loss) -> tuple[float, list[float]]:
    """The loss of the golden input and its gradient at the 7 trained tokens; the masked one must get none."""
    value, gradient_BT = weighted(algorithm, weights_of(loss))
    assert gradient_BT[0, 3] == 0.0, "a masked token must get no gradient"
    return value, gradient_BT[MASK].tolist()


def weighted(algorithm: Algorithm, weights_BT: Tensor) -> tuple[float, Tensor]:
    """The weighted sum of the golden input's losses and its gradient [B, T]."""
    return loss_and_gradient(algorithm, OLD + RATIO.log(), OLD, ADVANTAGES, MASK, weights_BT)


def loss_and_gradient(
    algorithm: Algorithm, logprobs_BT: Tensor, old_BT: Tensor, advantages_B: Tensor, mask_BT: Tensor, weights_BT: Tensor
) -> tuple[float, Tensor]:
    """The weighted sum of the losses, and its gradient [B, T] in the log-probabilities."""
    leaf_BT = logprobs_BT.clone().requires_grad_()
    loss = weighted_sum(token_loss(algorithm, leaf_BT, old_BT, advantages_B, mask_BT).loss_BT, weights_BT)
    loss.backward()  # type: ignore[no-untyped-call]
    assert leaf_BT.grad is not None
    return loss.item(), leaf_BT.grad


def one_token(algorithm: Algorithm, ratio: float, advantage: float, *, old: float = -2.0) -> tuple[float, float]:
    """Loss and gradient of a sequence of one token."""
    old_BT = torch.tensor([[old]], dtype=torch.float64)
    logprobs_BT = old_BT + torch.tensor([[ratio]], dtype=torch.float64).log()
    advantages_B = torch.tensor([advantage], dtype=torch.float64)
    mask_BT = torch.tensor([[True]])
    value, gradient_BT = loss_and_gradient(algorithm, logprobs_BT, old_BT, advantages_B, mask_BT, mask_BT.double())
    return value, gradient_BT.item()
