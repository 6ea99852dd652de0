"""The coders of weights compiled (weights.cc): the same bytes as their definitions in Python, much sooner."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import numpy as np

from tvm_ergo.target.environment import NUMPY_CODECS

LIBRARY = Path(__file__).parent / "libweights.so"
VERSION = 1  # of the interface: a library left over from older sources is not called
_P, _I, _L = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64


@cache
def library() -> ctypes.CDLL | None:
    """The compiled coders; None where they were not built, are out of date or are switched off (then Python does their
    work)."""
    if NUMPY_CODECS.value:
        return None
    try:
        loaded = ctypes.CDLL(str(LIBRARY))
        if loaded.tvm_ergo_weights_version() != VERSION:
            return None
    except (OSError, AttributeError):
        return None
    matrix = [_P, _L, _L, _L, _I, _P]
    for name, arguments in (
        ("cabac_encode", [*matrix, _P, _L, _P]),
        ("cabac_decode", [*matrix, _P, _L]),
        ("huffman_decode", [_P, _L, _P, _I, _P, _L]),
        ("huffman_runs_decode", [_P, _L, _P, _I, _P, _I, _I, _P, _L]),
    ):
        function = getattr(loaded, f"tvm_ergo_{name}")
        function.argtypes, function.restype = arguments, _L
    loaded.tvm_ergo_pack.argtypes, loaded.tvm_ergo_pack.restype = [_P, _P, _L, _P], None
    return loaded


def cabac_encode(folded: np.ndarray, inner: int, values: int, tables: list[np.ndarray]) -> tuple[bytes, int]:
    """Payload of folded uint8[rows, columns] and the decisions in it. tables: `cabac.tables`."""
    folded = np.ascontiguousarray(folded).copy()  # the coder writes back what it coded
    decisions = ctypes.c_int64()
    out = np.empty(16 + 16 * folded.size, np.uint8)  # 9 decisions of at most 11.6 bits
    size = library().tvm_ergo_cabac_encode(
        folded.ctypes.data,
        *folded.shape,
        inner,
        values,
        _addresses(tables),
        out.ctypes.data,
        out.size,
        ctypes.addressof(decisions),
    )
    return out[:size].tobytes(), decisions.value


def cabac_decode(
    data: bytes, shape: tuple[int, int], inner: int, values: int, tables: list[np.ndarray]
) -> tuple[np.ndarray, int]:
    """Folded uint8 of that shape and the decisions."""
    folded, source = np.empty(shape, np.uint8), np.frombuffer(data, np.uint8)
    decisions = library().tvm_ergo_cabac_decode(
        folded.ctypes.data, *shape, inner, values, _addresses(tables), source.ctypes.data, source.size
    )
    return folded, decisions


def pack(values: np.ndarray, widths: np.ndarray) -> bytes:
    """As `bits.pack`."""
    values, widths = np.ascontiguousarray(values, np.int32), np.ascontiguousarray(widths, np.int32)
    out = np.zeros(-(-int(widths.sum(dtype=np.int64)) // 8), np.uint8)
    library().tvm_ergo_pack(values.ctypes.data, widths.ctypes.data, values.size, out.ctypes.data)
    return out.tobytes()


def huffman_decode(data: bytes, lookup: np.ndarray, longest: int, count: int) -> tuple[np.ndarray, int]:
    """uint8[count] symbols and the bits read, -1 where these end too early."""
    out, source = np.empty(count, np.uint8), np.frombuffer(data, np.uint8)
    read = library().tvm_ergo_huffman_decode(
        source.ctypes.data, source.size, lookup.ctypes.data, longest, out.ctypes.data, count
    )
    return out, read


def huffman_runs_decode(
    data: bytes, runs: tuple[np.ndarray, int], values: tuple[np.ndarray, int], longest_run: int, count: int
) -> tuple[np.ndarray, int]:
    """uint8[count] folded codes and the bits read, -1 where these end too early, -2 where a run passes the end."""
    out, source = np.zeros(count, np.uint8), np.frombuffer(data, np.uint8)
    read = library().tvm_ergo_huffman_runs_decode(
        source.ctypes.data,
        source.size,
        runs[0].ctypes.data,
        runs[1],
        values[0].ctypes.data,
        values[1],
        longest_run,
        out.ctypes.data,
        count,
    )
    return out, read


def _addresses(arrays: list[np.ndarray]):
    return (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
