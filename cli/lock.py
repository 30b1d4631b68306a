"""One owner a data folder: two services in one folder would take each other's servers down."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.errors import CliError


@contextmanager
def owned(data_dir: Path) -> Iterator[None]:
    """Hold `data_dir` (made where absent) for the length of a block.

    Raises CliError where it cannot be made or written to, and where another process holds it.

    The kernel lets go of the lock when its holder ends, however it ends.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / "lock").open("a+")
    except OSError as error:
        raise CliError(f"cannot keep data in {data_dir}: {error.strerror}; choose another folder with --data-dir") from error
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise CliError(
                f"{data_dir} is in use by another mhpo (process {file.read().strip() or 'unknown'}); "
                "stop it, or choose another folder with MHPO_DATA_DIR"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
