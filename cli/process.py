"""Child processes that end with their parent, however the parent ends."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from trainer.process import end_with_parent


def spawn(
    argv: Sequence[str],
    *,
    log: Path,
    death_signal: signal.Signals = signal.SIGKILL,
    env: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start `argv` in a session of its own (a Ctrl-C at the terminal does not reach it), its output appended to `log`.

    On Linux the kernel sends it `death_signal` when the thread that called this ends, so call it from a thread that
    lives as long as the child should.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
            preexec_fn=end_with_parent(death_signal),
        )


def ask(process: subprocess.Popen[bytes] | None, stop_signal: signal.Signals) -> None:
    """Send `stop_signal` to a process that runs."""
    if process is not None and process.poll() is None:
        process.send_signal(stop_signal)


def finish(process: subprocess.Popen[bytes] | None, grace: float) -> None:
    """Wait up to `grace` seconds for the end of a process, then kill what is left of its group."""
    if process is None:
        return
    with suppress(subprocess.TimeoutExpired):
        process.wait(grace)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
