"""One process of the pool: reads a call a line, answers with a line. Started by trainer/rewards/pool.py."""

import json
import math
import os
import resource
import signal
import sys
from importlib import import_module
from typing import Any, TextIO

MEMORY_BYTES = 4 * 2**30  # of address space; beyond it Python raises MemoryError, which costs the one sample
REASON_CHARACTERS = 300


def main() -> None:
    for asking in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; the trainer decides what it means
        signal.signal(asking, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what a library prints is no reply
    if say(replies, preload(sys.argv[1:])):
        for line in sys.stdin:
            say(replies, answer(*json.loads(line)))


def say(replies: TextIO, reply: dict[str, Any]) -> bool:
    """Sends it; True unless it is an error."""
    print(json.dumps(reply), file=replies, flush=True)
    return "error" not in reply


def preload(modules: list[str]) -> dict[str, Any]:
    try:
        for module in modules:
            import_module(module)
    except Exception as error:  # noqa: BLE001  # the parent raises it
        return {"error": f"{type(error).__name__}: {error}"}
    return {"ready": True}


def answer(function: str, arguments: list[str]) -> dict[str, Any]:
    """The verdict as {"value": number}, or {"error": reason}: whatever a grader does on a sample costs that sample only."""
    module, _, name = function.partition(":")
    try:
        value = getattr(import_module(module), name)(*arguments)
    except Exception as error:  # noqa: BLE001  # graders meet untrusted model output
        return {"error": f"{type(error).__name__}: {error}"[:REASON_CHARACTERS]}
    return verdict(value)


def verdict(value: object) -> dict[str, Any]:
    """A finite number, or an error that says what came instead."""
    if isinstance(value, int | float) and math.isfinite(value):
        return {"value": float(value)}
    return {"error": f"returned {value!r}, not a finite number"[:REASON_CHARACTERS]}


if __name__ == "__main__":
    main()
