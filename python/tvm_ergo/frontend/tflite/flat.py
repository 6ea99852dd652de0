"""A TFLite flatbuffer as plain values: subgraphs of tensors and operators, options by name. Nothing here knows
Relax."""

from __future__ import annotations

import functools
import re
import struct
from dataclasses import dataclass, field

import flatbuffers
import numpy as np
import tflite

from tvm_ergo.target.errors import ModelError

DAMAGE = (struct.error, IndexError, ValueError, TypeError, AttributeError, OverflowError, KeyError)
"""What the flatbuffer reader raises on offsets into nowhere."""
_MOST_DIMENSIONS = 8
MAX_TENSOR_BYTES = 2**31
"""A tensor of more is refused before anything is allocated for it."""


def names_of(enumeration) -> dict[int, str]:
    """value -> name of one of the schema's enumerations."""
    return {
        value: name for name, value in vars(enumeration).items() if isinstance(value, int) and not name.startswith("_")
    }


_CODES, _TYPES = names_of(tflite.BuiltinOperator), names_of(tflite.TensorType)
_OPTIONS, _OPTIONS2 = names_of(tflite.BuiltinOptions), names_of(getattr(tflite, "BuiltinOptions2", object))
NUMPY = {
    "FLOAT32": "float32",
    "FLOAT16": "float16",
    "INT32": "int32",
    "UINT8": "uint8",
    "INT64": "int64",
    "BOOL": "bool",
    "INT16": "int16",
    "INT8": "int8",
    "FLOAT64": "float64",
    "UINT64": "uint64",
    "UINT32": "uint32",
    "UINT16": "uint16",
    "INT4": "int8",
}
"""Element types that hold numbers, as NumPy reads them (INT4: two values a byte, widened)."""


@dataclass(frozen=True)
class Quantization:
    """``real = scale * (stored - zero_point)``; scale float32[n], zero_point int64[n], n = 1 or the size of
    ``axis``."""

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int

    @property
    def per_tensor(self) -> bool:
        return self.scale.size == 1


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of a subgraph. shape: -1 where unknown. type: the schema's name of the element type. data: bytes of a
    constant, else None.

    sparsity: the schema's table of a sparse constant, else None. variable: keeps its value from one run to the next.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    type: str
    quantization: Quantization | None
    data: np.ndarray | None
    variable: bool = False
    sparsity: object = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.type}{list(self.shape)}"


@dataclass(frozen=True, eq=False)
class Operator:
    """An operator. code: the schema's name ("CUSTOM" for others, whose name is ``custom``). inputs, outputs: indices of
    tensors, -1 where left out.

    options: values by name in snake case, the schema's defaults where the file gives none; empty where it has no table.
    """

    position: int
    code: str
    custom: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options_name: str
    options: dict
    intermediates: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Subgraph:
    name: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read(data: bytes, source: str) -> tuple[Subgraph, ...]:
    """The subgraphs of a file, main first. Errors: ModelError (not TFLite, truncated, damaged)."""
    if len(data) < 8 or data[4:8] != b"TFL3":
        raise ModelError(
            "this is not a TFLite file",
            where=source,
            required="the mark TFL3 at byte 4",
            available=repr(data[4:8]),
            remedy="give a file that the TFLite converter wrote",
        )
    try:
        model = tflite.Model.GetRootAs(data, 0)
        if model.SubgraphsLength() < 1:
            raise ModelError("the TFLite file has no subgraph", where=source, remedy="convert the model again")
        return tuple(_subgraph(model, model.Subgraphs(i), data) for i in range(model.SubgraphsLength()))
    except DAMAGE as error:
        raise ModelError(
            "the TFLite file is truncated or damaged",
            where=source,
            available=f"{len(data):,} bytes, with references to what is not among them",
            remedy="copy the file again, and compare its size with the original's",
        ) from error


def _subgraph(model, graph, data: bytes) -> Subgraph:
    tensors = tuple(_tensor(model, graph.Tensors(i), i, data) for i in range(graph.TensorsLength()))
    operators = tuple(_operator(model, graph.Operators(i), i) for i in range(graph.OperatorsLength()))
    made = Subgraph(_text(graph.Name()), tensors, operators, _ints(graph, "Inputs"), _ints(graph, "Outputs"))
    for indices in (made.inputs, made.outputs, *(op.inputs for op in operators), *(op.outputs for op in operators)):
        if any(not -1 <= i < len(tensors) for i in indices):
            raise IndexError("an operator names a tensor that is not there")
    return made


def _text(value) -> str:
    return value.decode("utf-8", "replace") if value is not None else ""


def _ints(table, name: str) -> tuple[int, ...]:
    return tuple(int(getattr(table, name)(i)) for i in range(getattr(table, f"{name}Length")()))


def _tensor(model, table, index: int, data: bytes) -> Tensor:
    shape, signature = _ints(table, "Shape"), _ints(table, "ShapeSignature")
    if len(shape) > _MOST_DIMENSIONS or any(d < -1 for d in shape):
        raise ValueError("the shape of a tensor")
    if len(signature) == len(shape):
        shape = tuple(-1 if s < 0 and d in (0, -1) else d for d, s in zip(shape, signature))
    kind = _TYPES.get(table.Type(), f"element type {table.Type()}")
    return Tensor(
        index,
        _text(table.Name()) or f"tensor_{index}",
        shape,
        kind,
        _quantization(table.Quantization()),
        _bytes(model, table.Buffer(), data),
        bool(table.IsVariable()),
        table.Sparsity() if hasattr(table, "Sparsity") else None,
    )


def _quantization(table) -> Quantization | None:
    if table is None or not table.ScaleLength():
        return None
    scale = np.array(
        [table.Scale(i) for i in range(table.ScaleLength())] if table.ScaleLength() < 4 else table.ScaleAsNumpy(),
        np.float32,
    )
    points = np.array(_ints(table, "ZeroPoint") if table.ZeroPointLength() < 4 else table.ZeroPointAsNumpy(), np.int64)
    points = points if points.size else np.zeros(1, np.int64)
    if points.size not in (1, scale.size):
        raise ValueError("scales and zero points differ in number")
    return Quantization(scale, np.broadcast_to(points, scale.shape).copy(), int(table.QuantizedDimension()))


def _bytes(model, number: int, data: bytes) -> np.ndarray | None:
    """The bytes of a buffer; files beyond 2 GiB keep them behind the flatbuffer."""
    if number == 0 or number >= model.BuffersLength():
        if number:
            raise IndexError("a buffer that is not there")
        return None
    buffer = model.Buffers(number)
    offset = buffer.Offset() if hasattr(buffer, "Offset") else 0
    if offset > 1:
        end = offset + buffer.Size()
        if end > len(data):
            raise IndexError("a buffer beyond the end of the file")
        return np.frombuffer(data, np.uint8, buffer.Size(), offset)
    return np.asarray(buffer.DataAsNumpy(), np.uint8) if buffer.DataLength() else None


def _operator(model, table, position: int) -> Operator:
    code = model.OperatorCodes(table.OpcodeIndex())
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    name = _CODES.get(number, f"operator {number}")
    kind = _OPTIONS.get(table.BuiltinOptionsType(), "NONE")
    body = table.BuiltinOptions() if kind != "NONE" else None
    if body is None and hasattr(table, "BuiltinOptions2") and table.BuiltinOptions2Type():
        kind, body = _OPTIONS2.get(table.BuiltinOptions2Type(), "NONE"), table.BuiltinOptions2()
    options = {}
    if body is not None and hasattr(tflite, kind):
        typed = getattr(tflite, kind)()
        typed.Init(body.Bytes, body.Pos)
        options = _fields(typed)
    else:
        kind = "NONE"
    return Operator(
        position,
        name,
        _text(code.CustomCode()),
        _ints(table, "Inputs"),
        _ints(table, "Outputs"),
        kind,
        options,
        _ints(table, "Intermediates"),
    )


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


@functools.cache
def _getters(kind: type) -> tuple[tuple[str, str, bool], ...]:
    """(snake name, accessor, whether a vector) of the fields of an options table."""
    methods = [
        n
        for n in vars(kind)
        if not n.startswith(("_", "GetRootAs")) and n != "Init" and not n.endswith("BufferHasIdentifier")
    ]
    vectors = {
        n.removesuffix("Length")
        for n in methods
        if n.endswith("Length") and f"{n.removesuffix('Length')}AsNumpy" in methods
    }
    helpers = {f"{v}{end}" for v in vectors for end in ("Length", "AsNumpy", "IsNone")}
    return tuple((_snake(n), n, n in vectors) for n in methods if n not in helpers)


def _fields(table) -> dict:
    values = {}
    for name, accessor, vector in _getters(type(table)):
        value = _ints(table, accessor) if vector else getattr(table, accessor)()
        values[name] = _text(value) if isinstance(value, bytes) else value
    return values


@functools.cache
def default_options(kind: str) -> dict:
    """What a table of options says where the file leaves all of it out."""
    builder = flatbuffers.Builder(16)
    getattr(tflite, f"{kind}Start")(builder)
    builder.Finish(getattr(tflite, f"{kind}End")(builder))
    return _fields(getattr(tflite, kind).GetRootAs(bytes(builder.Output()), 0))
