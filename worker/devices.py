"""The GPUs of this machine: how many there are to be leased, and how a run gets to see those that it was leased."""

import subprocess
from collections.abc import Sequence
from functools import cache

from api.settings import settings
from api.slots import Place

VISIBLE = "CUDA_VISIBLE_DEVICES"
# Beside the job's mark: which GPUs a process was given. Whoever is leased them later ends it (worker/process.py).
SLOTS = "MHPO_SLOTS"


@cache
def place(visible: str | None) -> Place:
    """This worker's machine; where its own `CUDA_VISIBLE_DEVICES` is set, slot i is the i-th of those."""
    chosen = settings()
    return Place(chosen.host_name, _count(visible) if chosen.gpu_slots is None else chosen.gpu_slots)


def environment(devices: Sequence[int], service: str, visible: str | None) -> dict[str, str]:
    """What lets a process see its GPUs and no other (none without `devices`), and marks it as theirs in this `service`.

    >>> environment([1], "/data", "4,7")
    {'CUDA_VISIBLE_DEVICES': '7', 'MHPO_SLOTS': '/data 1'}
    """
    names = _listed(visible)
    seen = [names[index] if names else str(index) for index in devices]
    return {VISIBLE: ",".join(seen), SLOTS: "\n".join(f"{service} {index}" for index in devices)}


def _count(visible: str | None) -> int:
    """As nvidia-smi lists, 0 where there is none."""
    if visible is not None:
        return len(_listed(visible))
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        return len(subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.split())
    except (OSError, subprocess.SubprocessError):
        return 0


def _listed(visible: str | None) -> list[str]:
    return [name.strip() for name in (visible or "").split(",") if name.strip() not in ("", "-1")]
