"""What a job would need of the machine, told before it runs: an estimate from the model's own files and the spec."""

import json
import subprocess
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import psutil

from api.models import Json
from trainer.config import JobSpec
from trainer.objective_config import KlInReward, NoKl
from trainer.strict import SpecError

_BYTES = {"float32": 4, "bfloat16": 2}
_HEADER_LIMIT = 1 << 27


@dataclass(frozen=True, slots=True)
class Device:
    """Where the run would be: its memory in bytes, None where this process cannot see it."""

    kind: str  # cpu or cuda
    name: str | None
    memory: int | None


def fit(spec: JobSpec) -> Json:
    """Memory by part, bytes, beside the device's; `fits` is None where one of the two is not known.

    Weights, gradients and AdamW's two moments are exact, on a CPU those of all learners. Activations are estimated from the
    model's shape for one micro-batch. The engine has its own copy of the weights: vLLM's with its cache, on a GPU the
    share that the spec gives it; transformers' with a cache that is not counted. An engine that sleeps while the learner works
    has given that memory back while there are activations: of the two the larger counts.
    Raises SpecError for a model whose files do not read as such.
    """
    device = find_device(spec)
    try:
        parameters = count_parameters(Path(spec.model.path))
        parts = None if parameters is None else _parts(spec, parameters, device)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # files that are no model's
        raise SpecError("model.path", f"cannot tell the model's size: {type(error).__name__}: {error}") from error
    need = None if parts is None or None in parts.values() else sum(parts.values())
    if need is not None and parts is not None and spec.resources.engine_sleeps and device.kind == "cuda":
        need -= min(parts["activations"], parts["engine"])
    fits = None if need is None or device.memory is None else need <= device.memory
    return {
        "parameters": parameters,
        "bytes": parts,
        "bytes_total": need,
        "device": device.kind,
        "device_name": device.name,
        "device_bytes": device.memory,
        "fits": fits,
    }


def _parts(spec: JobSpec, parameters: int, device: Device) -> dict[str, Any]:
    width = _BYTES[spec.model.dtype]
    weights = parameters * width
    here = 1 if device.kind == "cuda" else spec.resources.learners  # learners in one memory
    engine: int | None
    if spec.rollout.engine == "transformers":
        engine = here * weights
    elif device.kind == "cuda":
        engine = None if device.memory is None else int(spec.resources.engine_memory_fraction * device.memory)
    else:
        engine = weights + (spec.resources.kv_cache_mb << 20)
    references = {NoKl: 0, KlInReward: 1}.get(type(spec.kl), here)
    return {
        "weights": here * weights,
        "gradients": here * weights,
        "optimizer": 2 * here * weights,
        "reference_model": references * weights,
        "activations": here * _activations(spec, width),
        "engine": engine,
    }


def _activations(spec: JobSpec, width: int) -> int:
    """Of one micro-batch: what a layer keeps for its backward pass is about 10 hidden and 3 intermediate vectors a token."""
    shape = json.loads((Path(spec.model.path) / "config.json").read_text(encoding="utf-8"))
    hidden = int(shape.get("hidden_size", 0))
    layers = int(shape.get("num_hidden_layers", 0))
    whole = 10 * hidden + 3 * int(shape.get("intermediate_size", 4 * hidden))
    kept = hidden * layers + whole if spec.resources.activation_checkpointing else whole * layers
    return spec.resources.micro_batch_tokens * kept * width


def count_parameters(folder: Path) -> int | None:
    """From the headers of the model's safetensors files; None for a hub id, or a folder without such files."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return None
    shapes = [tensor["shape"] for file in files for name, tensor in _header(file).items() if name != "__metadata__"]
    return sum(int(prod(shape)) for shape in shapes)


def _header(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header: dict[str, Any] = json.loads(stream.read(min(size, _HEADER_LIMIT)))
    return header


def find_device(spec: JobSpec) -> Device:
    """The device that the spec asks for, as far as this process can see it."""
    gpu = None if spec.resources.device == "cpu" else _gpu()
    if gpu is not None:
        return gpu
    if spec.resources.device == "cuda":
        return Device("cuda", None, None)
    return Device("cpu", None, psutil.virtual_memory().total)


def _gpu() -> Device | None:
    """The first NVIDIA GPU; None where there is none to be seen."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits", "--id=0"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    name, mib = told.strip().rsplit(", ", 1)
    return Device("cuda", name, int(mib) << 20)
