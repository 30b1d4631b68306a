"""What a ratio control did in a step, as metrics. TRL's names where TRL has the name; docs/metrics.md explains each.

`values` is what the loss functions say of each trained token, flat, all updates of the step. Axis: N token.
"""

import torch
from torch import Tensor

from trainer.algorithm_config import Algorithm, Cispo, Dppo, Gmpo, Gspo, GspoToken, Luspo, Mhpo, Sapo, Vespo
from trainer.losses.mhpo import on_policy_survival

SATURATED = 0.9  # |psi| / c above this counts as saturated, and so does SAPO's |tanh(tau (r - 1) / 2)|


def telemetry_metrics(values: dict[str, Tensor], log_ratio_N: Tensor, algorithm: Algorithm) -> dict[str, float]:
    """The metrics of the algorithm; a metric without a value in this step is left out."""
    metrics = {"multiplier/max": float(values["multiplier"].max())} | clip_metrics(values, algorithm)
    match algorithm:
        case Mhpo():
            metrics |= mhpo_metrics(values, log_ratio_N, algorithm)
        case Gspo() | GspoToken() | Luspo() | Gmpo():
            ratio_N = values["sequence_ratio"]
            metrics["sequence_ratio/mean"] = _weighted_mean(ratio_N, values["sequence_share"])
            metrics["sequence_ratio/min"] = float(ratio_N.min())
            metrics["sequence_ratio/max"] = float(ratio_N.max())
        case Sapo():
            metrics["sapo/gate_mean"] = float(values["gate"].mean())
            metrics["sapo/saturation"] = float((values["gate"] < 1 - SATURATED**2).float().mean())
        case Cispo():
            metrics["cispo_clip_ratio"] = float(values["capped"].mean())
            metrics["cispo/capped_low_mean"] = float(values["capped_low"].mean())
            metrics["cispo/capped_high_mean"] = float(values["capped_high"].mean())
        case Dppo():
            metrics["dppo/divergence_mean"] = float(values["divergence"].mean())
            metrics["dppo/divergence_max"] = float(values["divergence"].max())
            metrics["dppo/capped_high_mean"] = float(values["capped_high"].mean())
        case Vespo():
            metrics["vespo/phi_seq_mean"] = _weighted_mean(values["phi"], values["sequence_share"])
            metrics["vespo/phi_seq_min"] = float(values["phi"].min())
            metrics["vespo/phi_seq_max"] = float(values["phi"].max())
        case _:
            pass  # the clip fractions say it all
    return metrics


def clip_metrics(values: dict[str, Tensor], algorithm: Algorithm) -> dict[str, float]:
    """Shares without gradient: of tokens, or of sequences where the ratio is a sequence's. Empty where nothing is clipped."""
    if "clipped_low" not in values:
        return {}
    low_N, high_N = values["clipped_low"], values["clipped_high"]
    by_sequence = isinstance(algorithm, Gspo | GspoToken | Luspo)
    share_N = values["sequence_share"] if by_sequence else torch.ones_like(low_N)
    metrics = {
        "clip_ratio/low_mean": _weighted_mean(low_N, share_N),
        "clip_ratio/high_mean": _weighted_mean(high_N, share_N),
        "clip_ratio/region_mean": _weighted_mean(low_N + high_N, share_N),
    }
    if "clipped_dual" in values:
        metrics["clip_ratio/dual_mean"] = float(values["clipped_dual"].mean())
    return metrics


def mhpo_metrics(values: dict[str, Tensor], log_ratio_N: Tensor, algorithm: Mhpo) -> dict[str, float]:
    """Saturation, hazards and survival. By side of the shift only where tokens have moved to that side."""
    psi, zeta = values["psi"], values["zeta_pos"] + values["zeta_neg"]
    metrics = {
        "mhpo/psi_mean": float(psi.mean()),
        "mhpo/psi_abs_max": float(psi.abs().max()),
        "mhpo/psi_saturation": float((psi.abs() > SATURATED * algorithm.c).float().mean()),
        "mhpo/zeta_pos_mean": float(values["zeta_pos"].mean()),
        "mhpo/zeta_neg_mean": float(values["zeta_neg"].mean()),
        "mhpo/survival_mean": float(values["survival"].mean()),
        "mhpo/survival_min": float(values["survival"].min()),
        "mhpo/weight_mean": float(values["weight"].mean()),
        "mhpo/weight_min": float(values["weight"].min()),
        "mhpo/weight_max": float(values["weight"].max()),
        "mhpo/survival_on_policy": on_policy_survival(algorithm),
    }
    for side, moved in (("positive", log_ratio_N > 0), ("negative", log_ratio_N < 0)):
        if moved.any():
            metrics[f"mhpo/zeta_mean/{side}_shift"] = float(zeta[moved].mean())
            metrics[f"mhpo/zeta_p99/{side}_shift"] = float(_percentile(zeta[moved], 0.99))
            metrics[f"mhpo/survival_mean/{side}_shift"] = float(values["survival"][moved].mean())
    return metrics


def _weighted_mean(values_N: Tensor, weights_N: Tensor) -> float:
    return float((values_N * weights_N).sum() / weights_N.sum())


def _percentile(values: Tensor, q: float) -> Tensor:
    """The smallest value with at least the share q at or below it (torch.quantile refuses more than 16 million)."""
    return values.kthvalue(max(1, min(len(values), round(q * len(values))))).values
