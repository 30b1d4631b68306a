"""A disk that is full, told from other faults: the libraries that write weights hide the number of the system's error."""

import errno
import os
import re
import tempfile
from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ROOM = 1 << 20  # bytes: where not even so many can be had, whatever failed there failed for want of room


class DiskFullError(Exception):
    """What was to be written did not fit; nothing that was there before is touched."""


def is_full(folder: Path, error: BaseException) -> bool:
    """Whether `error`, raised while something was written into `folder`, comes of a full disk or quota."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DiskFullError) or _number(cause) in _FULL:
            return True
        cause = cause.__cause__ or cause.__context__
    return not _has_room(folder)


def _number(error: BaseException) -> int | None:
    """The system's number of an error; safetensors has it in its text: `I/O error: File too large (os error 27)`."""
    if isinstance(error, OSError):
        return error.errno
    told = re.search(r"\(os error (\d+)\)", str(error))
    return int(told[1]) if told else None


def _has_room(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, _ROOM)
    except OSError as error:
        return error.errno not in _FULL
    return True
