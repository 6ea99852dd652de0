"""Constants of a compressed network: weights as streams of a weight codec where that is smaller, everything else in as
few bytes as hold it exactly."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from tvm_ergo.compressed import blocks
from tvm_ergo.target.codecs.weights import Reader, WeightCodes, decode, varint
from tvm_ergo.target.codecs.weights_choice import best_codec
from tvm_ergo.target.errors import InputError, ProgramError
from tvm_ergo.target.limits import Declared

DTYPES = (
    "float32",
    "int8",
    "int32",
    "uint8",
    "int64",
    "float64",
    "int16",
    "float16",
    "bool",
    "uint16",
    "uint32",
    "uint64",
)
MAX_AXES = 8
MAX_DEPTH = 20  # of codebooks whose blocks are coded by codebooks: each is a third of the one before, at most
MAX_ELEMENTS = 1 << 28


class Form(IntEnum):
    PLAIN = 0
    HALF = 1  # float32 whose values are all halves
    NARROW_8 = 2  # integers that fit eight bits
    NARROW_16 = 3
    CODED = 4  # a stream of a weight codec, rows along the first axis
    CODED_TRANSPOSED = 5  # rows along the last axis
    DEFLATED = 6
    BLOCKS = 7  # a product codebook (`blocks`)


_STORED = {Form.HALF: "<f2", Form.NARROW_8: "<i1", Form.NARROW_16: "<i2"}


@dataclass(frozen=True)
class Stored:
    """data : everything that is needed to get the array back. form, codec (its name, or "") : for reports."""

    data: bytes
    form: Form
    codec: str = ""


def store(array: np.ndarray) -> Stored:
    """The smallest of what there is for an array. Errors: InputError for a dtype that no network has."""
    if array.dtype.name not in DTYPES:
        raise InputError("a constant's dtype cannot be stored", required=", ".join(DTYPES), available=array.dtype.name)
    head = bytes([DTYPES.index(array.dtype.name), array.ndim]) + b"".join(varint(n) for n in array.shape)
    found = [(Form.PLAIN, _little(array, array.dtype).tobytes(), "")]
    found += [
        (form, _little(array, np.dtype(dtype)).tobytes(), "")
        for form, dtype in _STORED.items()
        if _holds(array, np.dtype(dtype))
    ]
    found += _coded(array)
    if found_blocks := blocks.find(array):
        found.append((Form.BLOCKS, blocks.to_bytes(found_blocks, store), "product codebook"))
    deflated = zlib.compress(found[0][1], 9)
    found.append((Form.DEFLATED, varint(len(deflated)) + deflated, ""))
    form, body, codec = min(found, key=lambda f: len(f[1]))
    return Stored(head + bytes([form]) + body, form, codec)


def _little(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return array.astype(dtype.newbyteorder("<"), order="C")


def _holds(array: np.ndarray, dtype: np.dtype) -> bool:
    """Whether another dtype keeps every bit."""
    if dtype.kind != array.dtype.kind or dtype.itemsize >= array.dtype.itemsize:
        return False
    with np.errstate(over="ignore"):
        back = array.astype(dtype).astype(array.dtype)
    return back.tobytes() == array.tobytes()


def _coded(array: np.ndarray) -> list[tuple[Form, bytes, str]]:
    if (
        array.dtype.name not in ("float32", "int8", "int16")
        or array.size < 32
        or array.dtype == np.float32
        and not np.isfinite(array).all()
    ):
        return []
    if array.dtype == np.float32 and (len(np.unique(array)) > 256 or np.signbit(array[array == 0]).any()):
        return []
    matrix, found = array.reshape(array.shape[0] if array.ndim > 1 else 1, -1), []
    for form, rows in ((Form.CODED, matrix), (Form.CODED_TRANSPOSED, matrix.T)):
        if form is Form.CODED_TRANSPOSED and array.ndim != 2:
            continue
        try:
            codes = WeightCodes.of(np.ascontiguousarray(rows), inner=array.shape[-1] if array.ndim > 2 else 1)
        except InputError:  # more distinct values than codes
            return []
        coded = best_codec(codes)
        found.append((form, varint(len(coded.data)) + coded.data, coded.codec.name))
    return found


def note(reader: Reader, declared: Declared, where: str = "a constant", depth: int = 0) -> tuple[int, ...]:
    """Goes past the next array, notes what it takes, and gives its shape. depth : of codebooks in codebooks. Errors: as
    `restore`."""
    if depth > MAX_DEPTH:
        raise _broken("codebooks within codebooks without end")
    dtype, shape, form = _head(reader)
    declared.note_tensor(shape, dtype.itemsize, where)
    if form == Form.BLOCKS:
        blocks.skip(reader, lambda inner: note(inner, declared, "a codebook", depth + 1))
    elif form in (Form.CODED, Form.CODED_TRANSPOSED, Form.DEFLATED):
        reader.take(reader.varint())
    else:
        reader.take(math.prod(shape) * np.dtype(_STORED.get(form, dtype)).itemsize)
    return shape


def _head(reader: Reader) -> tuple[np.dtype, tuple[int, ...], Form]:
    """Type, shape and form of the next array."""
    number, axes = reader.byte(), reader.byte()
    if number >= len(DTYPES) or axes > MAX_AXES:
        raise _broken("its type is unknown")
    dtype, shape = np.dtype(DTYPES[number]), tuple(reader.varint() for _ in range(axes))
    form = reader.byte()
    if form not in Form._value2member_map_ or math.prod(shape) > MAX_ELEMENTS:
        raise _broken("its form is unknown or its size impossible")
    return dtype, shape, Form(form)


def restore(reader: Reader) -> np.ndarray:
    """The next array off a reader; whoever reads a file has let `note` look at all of them before. Errors: ProgramError
    for bytes that `store` did not write."""
    dtype, shape, form = _head(reader)
    if form in (Form.CODED, Form.CODED_TRANSPOSED):
        return _decoded(reader.take(reader.varint()), dtype, shape, form == Form.CODED_TRANSPOSED)
    if form == Form.BLOCKS:
        return blocks.from_bytes(reader, shape, restore)
    stored = np.dtype(_STORED.get(form, dtype)).newbyteorder("<")
    size = math.prod(shape) * stored.itemsize
    if form == Form.DEFLATED:
        data = zlib.decompressobj()
        try:
            plain = data.decompress(reader.take(reader.varint()), size + 1)
        except zlib.error as error:
            raise _broken(str(error)) from None
        if len(plain) != size:
            raise _broken("it has another size than its shape")
    else:
        plain = reader.take(size)
    return np.frombuffer(plain, stored).reshape(shape).astype(dtype)


def _decoded(stream: bytes, dtype: np.dtype, shape: tuple[int, ...], transposed: bool) -> np.ndarray:
    rows = shape[0] if len(shape) > 1 else 1
    columns = math.prod(shape) // max(rows, 1)
    codes, _ = decode(stream, (columns, rows) if transposed else (rows, columns))
    values = codes.values()
    if values.dtype.newbyteorder("=") != dtype:
        raise _broken("its values have another type")
    return (values.T if transposed else values).reshape(shape).astype(dtype, order="C")


def _broken(what: str) -> ProgramError:
    return ProgramError(f"a constant of a compressed network is damaged: {what}")
