"""One process that runs users' Python and can do nothing but compute. Started by trainer/rewards/pool.py, by its path.

It imports the standard library alone. Before it takes its first call it gives up, for good: memory beyond a limit, files,
and by a seccomp filter every system call but those that computing needs: no file or socket is opened, nothing is executed.
"""

import ctypes
import json
import math
import os
import platform
import resource
import signal
import struct
import sys
from importlib import import_module

MEMORY_BYTES = 1 << 30
REASON_CHARACTERS = 300
MODULES = (  # what a source can import: nothing can be loaded later
    *("array", "ast", "base64", "bisect", "collections", "copy", "cmath", "dataclasses", "datetime", "decimal", "difflib"),
    *("enum", "fractions", "functools", "hashlib", "heapq", "itertools", "json", "math", "numbers", "operator", "random"),
    *("re", "statistics", "string", "textwrap", "time", "typing", "unicodedata"),
)

# Numbers of the system calls that are let through, by machine: read, write, close, fstat, lseek, mmap, mprotect, munmap, brk,
# mremap, madvise, rt_sigaction, rt_sigprocmask, rt_sigreturn, sigaltstack, futex, sched_yield, getpid, gettid, clock_gettime,
# clock_nanosleep, gettimeofday, nanosleep, getrandom, restart_syscall, exit, exit_group.
_CALLS = {
    "x86_64": (
        0xC000003E,
        (0, 1, 3, 5, 8, 9, 10, 11, 12, 25, 28, 13, 14, 15, 131, 202, 24, 39, 186, 228, 230, 96, 35, 318, 219, 60, 231),
    ),
    "aarch64": (
        0xC00000B7,
        (
            *(63, 64, 57, 80, 62, 222, 226, 215, 214, 216, 233, 134, 135, 139, 132, 98, 124, 172, 178, 113, 115, 169, 101),
            *(278, 128, 93, 94),
        ),
    ),
}
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06  # classic BPF
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050001, 0x80000000  # the second: errno EPERM
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2


def main() -> None:
    for asking in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; the trainer decides what it means
        signal.signal(asking, signal.SIG_IGN)
    replies = os.dup(1)
    os.dup2(2, 1)  # what a source prints is no reply
    for module in MODULES:
        import_module(module)
    try:
        give_up_everything()
    except OSError as error:
        say(replies, {"error": f"python graders cannot be confined on this machine: {error}"})
        return
    say(replies, {"ready": True})
    for line in sys.stdin:
        say(replies, answer(*json.loads(line)[1]))


def say(replies: int, reply: dict[str, object]) -> None:
    line = json.dumps(reply).encode() + b"\n"
    while line:
        line = line[os.write(replies, line) :]


def answer(source: str, sample: str, item: str) -> dict[str, object]:
    """What the source's `grade` returns, as {"value": number}, or {"error": reason}; each call has a namespace of its own."""
    namespace: dict[str, object] = {"__name__": "grader"}
    try:
        exec(compile(source, "grader.py", "exec"), namespace)
        value = namespace["grade"](json.loads(sample), json.loads(item))  # type: ignore[operator]
        if isinstance(value, int | float) and math.isfinite(value):
            return {"value": float(value)}
        return {"error": f"returned {value!r}, not a finite number"[:REASON_CHARACTERS]}
    except BaseException as error:  # noqa: BLE001  # whatever a source does costs its sample
        return {"error": f"{type(error).__name__}: {error}"[:REASON_CHARACTERS]}


def give_up_everything() -> None:
    """Raises OSError where the kernel or the machine cannot do it; then nothing is run."""
    if sys.platform != "linux" or platform.machine() not in _CALLS:
        raise OSError(f"there is no filter for {sys.platform} on {platform.machine()}")
    limits = {
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 8,
    }
    for kind, limit in limits.items():
        resource.setrlimit(kind, (limit, limit))
    code = bpf(*_CALLS[platform.machine()])
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((_NO_NEW_PRIVILEGES, 1, 0, 0, 0), (_SECCOMP, _FILTER, program)):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


def bpf(architecture: int, allowed: tuple[int, ...]) -> bytes:
    """A filter: another architecture's calls kill the process, those allowed pass, all others fail with EPERM."""
    code = [(_LOAD, 0, 0, 4), (_JUMP_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    code += [(_JUMP_EQUAL, len(allowed) - place, 0, number) for place, number in enumerate(allowed)]
    code += [(_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("HBBI", operation, yes, no, value) for operation, yes, no, value in code)


if __name__ == "__main__":
    main()
