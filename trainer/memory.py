"""Peak memory of this process."""

import resource

import torch


def peak_memory_mb(device: torch.device) -> float:
    """MiB: allocated on the GPU where the learner is on one, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
