"""`python -m tests.worker.program FOLDER/config.json`: a program on the worker's side of the run-folder contract.

It does what the spec's `acts` say, in order; `on_term` says what SIGTERM means to it. The real trainer is in tests/service.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any


def main(config: Path) -> None:
    folder = config.parent
    spec = json.loads(config.read_text())
    if spec["on_term"] == "ignore":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif spec["on_term"]:

        def stop(number: int, frame: FrameType | None) -> None:
            perform(folder, spec["on_term"])

        signal.signal(signal.SIGTERM, stop)
    perform(folder, spec["acts"])


def perform(folder: Path, acts: list[dict[str, Any]]) -> None:
    for act in acts:
        for verb, argument in act.items():
            VERBS[verb](folder, argument)


def append(folder: Path, lines: dict[str, str]) -> None:
    for name, text in lines.items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        with file.open("a") as stream:
            stream.write(text)


def write_result(folder: Path, result: Any) -> None:
    (folder / "result.json").write_text(json.dumps(result))


def wait_for(folder: Path, name: str) -> None:
    while not (folder / name).exists():
        time.sleep(0.01)


VERBS: dict[str, Callable[[Path, Any], object]] = {
    "append": append,
    "result": write_result,
    "say": lambda _, text: print(text),  # noqa: T201 - standard output is what is tested
    "wait_for": wait_for,
    "exit": lambda _, code: os._exit(code),
    "signal": lambda _, name: os.kill(os.getpid(), signal.Signals[name]),
    "sleep": lambda _, seconds: time.sleep(seconds),
}

if __name__ == "__main__":
    main(Path(sys.argv[1]))
