"""Exit codes of `python -m trainer` and `python -m evaluator`: whose fault it was (sysexits.h)."""

from enum import IntEnum


class Exit(IntEnum):
    """The worker maps these to the job's `status_reason.fault`; DISK, any other code, or a signal, is `infra`."""

    DONE = 0
    SYSTEM = 70  # EX_SOFTWARE: our fault
    DISK = 74  # EX_IOERR: the disk is full, or a quota; the newest checkpoint is as it was
    STOPPED = 75  # EX_TEMPFAIL: told to stop; a checkpoint of the last finished step is on disk
    USER = 78  # EX_CONFIG: the spec, the data or the model
