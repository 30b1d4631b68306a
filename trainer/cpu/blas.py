"""Matrix products inside kernels, by the library that torch itself computes them with: as fast, and with torch's threads."""

import ctypes

import llvmlite.binding
import numpy as np
import torch
from numba import types
from numba.extending import overload


def _external(routine: str) -> types.ExternalFunction | None:
    """A BLAS routine of the libraries that torch has loaded; None where there is none of that name."""
    try:
        address = ctypes.cast(getattr(ctypes.CDLL(torch._C.__file__), routine), ctypes.c_void_p).value
    except AttributeError:
        return None
    llvmlite.binding.add_symbol(f"mhpo_{routine}", address)
    return types.ExternalFunction(f"mhpo_{routine}", types.void(*[types.uintp] * 13))  # every argument by its address


SGEMM, DGEMM = _external("sgemm_"), _external("dgemm_")


def product(left, right, turned_left, turned_right, keep, out):
    """`out` = keep * out + left times right, each transposed before where `turned`; inside kernels, contiguous rows."""
    raise NotImplementedError


@overload(product)
def _product(left, right, turned_left, turned_right, keep, out):  # noqa: ARG001
    gemm = {types.float32: SGEMM, types.float64: DGEMM}[left.dtype]

    def call(left, right, turned_left, turned_right, keep, out):
        rows, columns = out.shape
        between = left.shape[0] if turned_left else left.shape[1]
        # To BLAS rows are columns: it is given the transposes, out^T = right^T left^T.
        # 64 bits, which a BLAS of 32-bit integers can read as well: the lower half comes first.
        sizes = np.array([columns, rows, between, right.shape[1], left.shape[1]], np.int64)
        factors = np.array([1, keep], left.dtype)
        how = np.array([ord("T") if turned_right else ord("N"), ord("T") if turned_left else ord("N")], np.uint8)
        size, factor, letter = sizes.ctypes.data, factors.ctypes.data, how.ctypes.data
        gemm(
            letter, letter + 1, size, size + 8, size + 16, factor, right.ctypes.data, size + 24, left.ctypes.data, size + 32,
            factor + factors.itemsize, out.ctypes.data, size,
        )  # fmt: skip
        return sizes[0] + factors[0] + how[0]  # used until here: only their addresses are known to the compiler above

    return call
