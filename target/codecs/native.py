"""The coders compiled (context.cc, rans.cc): the same bytes as `context` and `rans` in NumPy, which stay the
definition, much sooner."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import numpy as np

from tvm_ergo.target.codecs.arithmetic import LONGEST_STREAM
from tvm_ergo.target.codecs.context_tables import native_tables, signed
from tvm_ergo.target.environment import NUMPY_CODECS

LIBRARY = Path(__file__).parent / "libcontext.so"
VERSION = 3  # of the interface: a library left over from older sources is not called
VALUE_BYTES = 22  # 15 decisions of at most 11.6 bits


@cache
def library() -> ctypes.CDLL | None:
    """The compiled coder; None where it was not built, is out of date or is switched off (then NumPy does its work)."""
    if NUMPY_CODECS.value:
        return None
    try:
        loaded = ctypes.CDLL(str(LIBRARY))
        if loaded.tvm_ergo_context_version() != VERSION:
            return None
    except (OSError, AttributeError):
        return None
    common = [ctypes.c_void_p, *[ctypes.c_int] * 5, ctypes.c_void_p]
    loaded.tvm_ergo_context_encode.argtypes = [*common, ctypes.c_void_p, ctypes.c_int64]
    loaded.tvm_ergo_context_encode.restype = ctypes.c_int64
    loaded.tvm_ergo_context_decode.argtypes = [*common, ctypes.c_void_p, ctypes.c_void_p]
    loaded.tvm_ergo_context_decode.restype = None
    loaded.tvm_ergo_rans_encode.argtypes = [ctypes.c_void_p, *[ctypes.c_int] * 4, ctypes.c_void_p, ctypes.c_void_p]
    loaded.tvm_ergo_rans_encode.restype = ctypes.c_int64
    loaded.tvm_ergo_rans_decode.argtypes = [
        ctypes.c_void_p,
        *[ctypes.c_int] * 4,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int64,
    ]
    loaded.tvm_ergo_rans_decode.restype = ctypes.c_int
    return loaded


@cache
def _pointers(zero_point: int):
    """The addresses of the tables, which `native_tables` keeps alive."""
    return _addresses(native_tables(zero_point))


def encode(tile: np.ndarray, lanes: int, zero_point: int) -> bytes | None:
    """Payload of one tile uint8[rows, W, C] of distance codes; None where a lane's stream is too long."""
    tile = np.ascontiguousarray(tile).copy()  # the coder writes back what it coded
    out = np.empty(2 * lanes + min(VALUE_BYTES * tile.size + 5 * lanes, LONGEST_STREAM * lanes), np.uint8)
    size = library().tvm_ergo_context_encode(
        tile.ctypes.data, *tile.shape, lanes, signed(zero_point), _pointers(zero_point), out.ctypes.data, out.size
    )
    return None if size < 0 else out[:size].tobytes()


def decode(streams: list[bytes], shape, zero_point: int) -> np.ndarray:
    """uint8[rows, W, C] of one tile, from the stream of each lane."""
    data = np.frombuffer(b"".join(streams), np.uint8)
    ends, values = np.cumsum([len(s) for s in streams]).astype(np.int64), np.empty(shape, np.uint8)
    library().tvm_ergo_context_decode(
        values.ctypes.data,
        *shape,
        len(streams),
        signed(zero_point),
        _pointers(zero_point),
        data.ctypes.data,
        ends.ctypes.data,
    )
    return values


def rans_encode(tile: np.ndarray, lanes: int, tables: list[np.ndarray]) -> bytes:
    """Payload of one tile uint8[rows, W, C] of distance codes. tables: `rans.Tables.native`."""
    tile, out = np.ascontiguousarray(tile), np.empty(4 * lanes + 4 * tile.size, np.uint8)
    size = library().tvm_ergo_rans_encode(tile.ctypes.data, *tile.shape, lanes, _addresses(tables), out.ctypes.data)
    return out[:size].tobytes()


def rans_decode(payload: bytes, lanes: int, shape, tables: list[np.ndarray]) -> np.ndarray | None:
    """uint8[rows, W, C] of one tile; None where the payload, of ``4 * lanes`` bytes at least, does not end with its
    last code."""
    values, data = np.empty(shape, np.uint8), np.frombuffer(payload, np.uint8)
    failed = library().tvm_ergo_rans_decode(
        values.ctypes.data, *shape, lanes, _addresses(tables), data.ctypes.data, data.size
    )
    return None if failed else values


def _addresses(arrays: list[np.ndarray]):
    return (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
