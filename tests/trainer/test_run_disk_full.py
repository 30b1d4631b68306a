"""A checkpoint that does not fit ends the run as a fault of the machine; the one before it is as it was, and goes on."""

import errno
import resource
import subprocess
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import wait_until
from tests.trainer.running import DEADLINE, assert_same_run, events, fork, fork_server, result
from trainer import checkpoint
from trainer.disk import DiskFullError, is_full
from trainer.exits import Exit

ONE_CHECKPOINT = 12 << 20  # bytes: the tiny model's has seven million


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    return fork_server()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for one checkpoint."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={ONE_CHECKPOINT}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def run(server: ForkServerContext, spec: dict[str, Any], folder: Path) -> int | None:
    process = fork(server, spec, folder)
    process.join(DEADLINE)
    return process.exitcode


def assert_ended_for_want_of_room(folder: Path) -> None:
    ended = result(folder)
    assert (ended["fault"], ended["code"]) == ("infra", "disk_full")
    assert "no room" in ended["message"]
    assert not list(folder.glob("checkpoints/*.unfinished")), "what did not fit takes no room"


@pytest.mark.slow
def test_a_disk_too_small_for_two_checkpoints_keeps_the_first(
    tiny_spec: dict[str, Any], small_disk: Path, tmp_path: Path, server: ForkServerContext
) -> None:
    folder, whole = small_disk / "run", tmp_path / "whole"
    assert run(server, tiny_spec, folder) == Exit.DISK
    assert_ended_for_want_of_room(folder)
    assert [path.name for path in checkpoint.complete(folder / "checkpoints")] == ["step_2"]
    subprocess.run(["mount", "-o", "remount,size=1g", str(small_disk)], check=True)
    assert run(server, tiny_spec, folder) == run(server, tiny_spec, whole) == Exit.DONE
    assert [event["step"] for event in events(folder, "resumed")] == [2]
    assert_same_run(folder, whole)


@pytest.mark.slow
def test_a_file_that_may_not_grow_ends_the_run_likewise(
    tiny_spec: dict[str, Any], tmp_path: Path, server: ForkServerContext
) -> None:
    """As with a quota."""
    process = fork(server, {**tiny_spec, "steps": 1000}, tmp_path)
    wait_until(lambda: checkpoint.complete(tmp_path / "checkpoints"), DEADLINE)
    psutil.Process(process.pid).rlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    process.join(DEADLINE)
    assert process.exitcode == Exit.DISK
    assert_ended_for_want_of_room(tmp_path)
    assert checkpoint.latest(tmp_path / "checkpoints") is not None


def test_a_full_disk_is_told_from_other_faults(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as hidden:
        raise RuntimeError("write failed") from OSError(errno.ENOSPC, "No space left on device")
    assert is_full(tmp_path, hidden.value)
    assert is_full(tmp_path, RuntimeError("Error while serializing: I/O error: File too large (os error 27)"))
    assert is_full(tmp_path, DiskFullError())
    assert not is_full(tmp_path, RuntimeError("shapes differ"))
    assert not is_full(tmp_path, OSError(errno.EACCES, "Permission denied"))
