"""How kernels are compiled, and the one function that the C library has not got for many numbers at a time."""

import hashlib
import math
from pathlib import Path

import numba
import numpy as np
import torch
from numba import njit, types
from numba.extending import overload

# Sums may be reordered, so that they are computed many at a time; that there were no NaN and infinity is not assumed.
FAST = {"reassoc", "contract", "arcp", "nsz"}
VECTOR = 32  # numbers that are computed together at most


def digest(folder: Path) -> str:
    """Of all that compiled kernels are made of: the sources in the folder, numba and torch."""
    text = hashlib.sha256(f"{numba.__version__} {torch.__version__}".encode())
    for path in sorted(folder.glob("*.py")):
        text.update(path.read_bytes())
    return text.hexdigest()[:16]


HERE = Path(__file__).parent
# A folder for each version: numba looks at the file of the function that is called, not at those of the functions within.
numba.config.CACHE_DIR = str(Path(numba.config.CACHE_DIR or HERE / "__pycache__") / f"kernels-{digest(HERE)}")


def kernel(function):
    """Compiles at the first call. Where there is no folder to keep the result in, each process does."""
    options = {"nogil": True, "error_model": "numpy", "fastmath": FAST}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:
        return njit(**options)(function)


def exp(x):
    """e to the power of a number, inside kernels."""
    raise NotImplementedError


@overload(exp, inline="always")
def _exp(x):
    """float32: Cephes' expf, relative error 3e-7, which unlike the C library's is computed many at a time."""
    if x != types.float32:
        return lambda x: math.exp(x)  # noqa: PLW0108  # numba compiles functions of Python

    def expf(x):
        x = np.float32(-87.0) if x < np.float32(-87.0) else x  # not max(), which would lose NaN
        x = np.float32(88.0) if x > np.float32(88.0) else x
        n = np.floor(x * np.float32(1.44269504088896341) + np.float32(0.5))
        r = x - n * np.float32(0.693359375) - n * np.float32(-2.12194440e-4)
        p = np.float32(1.9875691500e-4)
        p = p * r + np.float32(1.3981999507e-3)
        p = p * r + np.float32(8.3334519073e-3)
        p = p * r + np.float32(4.1665795894e-2)
        p = p * r + np.float32(1.6666665459e-1)
        p = p * r + np.float32(5.0000001201e-1)
        p = p * r * r + r + np.float32(1.0)
        whole = n if n == n else np.float32(0)  # of NaN there is no integer
        power = np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
        return p * power

    return expf


@kernel
def largest_of(row, count):
    """Where there is NaN, some number or NaN."""
    largest = row[0]
    for j in range(count):
        largest = row[j] if row[j] > largest else largest
    return largest


@kernel
def exponentials(flat):
    """In place; many at a time, which rows of a few numbers are too short for."""
    for k in range(len(flat)):
        flat[k] = exp(flat[k])
