"""Graders that fail, for the pool's processes to run."""

import ctypes
import os
import sys
import time


def hang() -> float:
    while True:
        pass


def sleep(seconds: str) -> float:
    time.sleep(float(seconds))
    return 1.0


def raise_error() -> float:
    raise KeyError("no such key")


def nan() -> float:
    return float("nan")


def text() -> str:
    return "1.0"


def crash() -> float:
    ctypes.string_at(0)
    return 1.0


def eat_memory() -> float:
    return float(len(bytearray(8 * 2**30)))


def chatter() -> float:
    sys.stdout.write("a library prints\n")
    os.write(1, b"and again\n")
    return 1.0


def process_id() -> float:
    return float(os.getpid())
