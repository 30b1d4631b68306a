"""Memory of this process: its peak, and what it can do without."""

import resource

import torch


def peak_memory_mb(device: torch.device) -> float:
    """MiB: allocated on the GPU where the learner is on one, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def give_back(device: torch.device) -> None:
    """What PyTorch keeps of a GPU's memory for its next tensors goes back to the GPU, for another process to take."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
