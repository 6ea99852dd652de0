"""Writes TFLite files: tensors, operators with their options, subgraphs."""

from __future__ import annotations

from dataclasses import dataclass, field

import flatbuffers
import numpy as np
import tflite

_TYPES = {
    "float32": "FLOAT32",
    "float16": "FLOAT16",
    "int32": "INT32",
    "uint8": "UINT8",
    "int64": "INT64",
    "bool": "BOOL",
    "int16": "INT16",
    "int8": "INT8",
    "int4": "INT4",
    "resource": "RESOURCE",
}


def camel(name: str) -> str:
    """``stride_w`` -> ``StrideW``, as the schema's functions spell it."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


@dataclass
class _Tensor:
    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: np.ndarray | None
    zero: np.ndarray
    axis: int
    data: np.ndarray | None
    variable: bool


@dataclass
class _Operator:
    code: str
    inputs: list[int]
    outputs: list[int]
    options: str | None
    values: dict
    custom: str | None
    version: int
    intermediates: list[int]


@dataclass
class Graph:
    """One subgraph. Tensors are named; operators take and give names (None: an input left out)."""

    name: str = "main"
    tensors: list[_Tensor] = field(default_factory=list)
    operators: list[_Operator] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)

    def tensor(
        self, name: str, shape, dtype: str, scale=None, zero=0, axis: int = 0, data=None, variable: bool = False
    ) -> str:
        """A tensor; ``data`` makes it a constant (of int4: the values, packed when written)."""
        scale = None if scale is None else np.atleast_1d(np.asarray(scale, np.float32))
        zero = np.broadcast_to(np.asarray(zero, np.int64), scale.shape) if scale is not None else np.zeros(0, np.int64)
        if data is not None:
            data = np.asarray(data).astype("int8" if dtype == "int4" else dtype)
        self.tensors.append(_Tensor(name, tuple(shape), dtype, scale, zero, axis, data, variable))
        return name

    def constant(self, name: str, data, dtype: str, scale=None, zero=0, axis: int = 0) -> str:
        return self.tensor(name, np.shape(data), dtype, scale, zero, axis, data)

    def op(
        self,
        code: str,
        inputs,
        outputs,
        options: str | None = None,
        *,
        custom: str | None = None,
        version: int = 1,
        intermediates=(),
        **values,
    ) -> None:
        """An operator; ``values``: its options in snake case."""
        self.operators.append(
            _Operator(
                code,
                [self._index(i) for i in inputs],
                [self._index(o) for o in outputs],
                options,
                values,
                custom,
                version,
                [self._index(i) for i in intermediates],
            )
        )

    def _index(self, name: str | None) -> int:
        return -1 if name is None else next(i for i, t in enumerate(self.tensors) if t.name == name)

    def ends(self, inputs, outputs) -> Graph:
        self.inputs, self.outputs = [self._index(i) for i in inputs], [self._index(o) for o in outputs]
        return self


def file_of(*graphs: Graph) -> bytes:
    """The bytes of a TFLite file of these subgraphs, the first of them main."""
    return _Writer().file(graphs)


class _Writer:
    def __init__(self):
        self.b, self.codes, self.buffers = flatbuffers.Builder(1024), [], [None]

    def file(self, graphs) -> bytes:
        b = self.b
        subgraphs = self._offsets([self._subgraph(g) for g in graphs])
        codes = self._offsets([self._code(*c) for c in self.codes])
        buffers = self._offsets([self._buffer(data) for data in self.buffers])
        tflite.ModelStart(b)
        tflite.ModelAddVersion(b, 3)
        tflite.ModelAddOperatorCodes(b, codes)
        tflite.ModelAddSubgraphs(b, subgraphs)
        tflite.ModelAddBuffers(b, buffers)
        b.Finish(tflite.ModelEnd(b), b"TFL3")
        return bytes(b.Output())

    def _offsets(self, offsets: list[int]) -> int:
        self.b.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.b.PrependUOffsetTRelative(offset)
        return self.b.EndVector()

    def _vector(self, values, dtype) -> int:
        return self.b.CreateNumpyVector(np.asarray(values, dtype).reshape(-1))

    def _code(self, code: str, custom: str | None, version: int) -> int:
        number = getattr(tflite.BuiltinOperator, code)
        text = self.b.CreateString(custom) if custom else None
        tflite.OperatorCodeStart(self.b)
        tflite.OperatorCodeAddBuiltinCode(self.b, number)
        tflite.OperatorCodeAddDeprecatedBuiltinCode(self.b, min(number, 127))
        tflite.OperatorCodeAddVersion(self.b, version)
        if text is not None:
            tflite.OperatorCodeAddCustomCode(self.b, text)
        return tflite.OperatorCodeEnd(self.b)

    def _buffer(self, data: bytes | None) -> int:
        vector = self.b.CreateNumpyVector(np.frombuffer(data, np.uint8)) if data else None
        tflite.BufferStart(self.b)
        if vector is not None:
            tflite.BufferAddData(self.b, vector)
        return tflite.BufferEnd(self.b)

    def _subgraph(self, graph: Graph) -> int:
        tensors = self._offsets([self._tensor(t) for t in graph.tensors])
        operators = self._offsets([self._operator(op) for op in graph.operators])
        inputs, outputs, name = (
            self._vector(graph.inputs, np.int32),
            self._vector(graph.outputs, np.int32),
            self.b.CreateString(graph.name),
        )
        tflite.SubGraphStart(self.b)
        tflite.SubGraphAddTensors(self.b, tensors)
        tflite.SubGraphAddInputs(self.b, inputs)
        tflite.SubGraphAddOutputs(self.b, outputs)
        tflite.SubGraphAddOperators(self.b, operators)
        tflite.SubGraphAddName(self.b, name)
        return tflite.SubGraphEnd(self.b)

    def _tensor(self, t: _Tensor) -> int:
        b, quantization, buffer = self.b, None, 0
        if t.data is not None:
            self.buffers.append(_packed(t.data) if t.dtype == "int4" else np.ascontiguousarray(t.data).tobytes())
            buffer = len(self.buffers) - 1
        if t.scale is not None:
            scale, zero = self._vector(t.scale, np.float32), self._vector(t.zero, np.int64)
            tflite.QuantizationParametersStart(b)
            tflite.QuantizationParametersAddScale(b, scale)
            tflite.QuantizationParametersAddZeroPoint(b, zero)
            tflite.QuantizationParametersAddQuantizedDimension(b, t.axis)
            quantization = tflite.QuantizationParametersEnd(b)
        name, shape = b.CreateString(t.name), self._vector(t.shape, np.int32)
        tflite.TensorStart(b)
        tflite.TensorAddShape(b, shape)
        tflite.TensorAddType(b, getattr(tflite.TensorType, _TYPES[t.dtype]))
        tflite.TensorAddBuffer(b, buffer)
        tflite.TensorAddName(b, name)
        if quantization is not None:
            tflite.TensorAddQuantization(b, quantization)
        tflite.TensorAddIsVariable(b, t.variable)
        return tflite.TensorEnd(b)

    def _operator(self, op: _Operator) -> int:
        key = (op.code, op.custom, op.version)
        if key not in self.codes:
            self.codes.append(key)
        inputs, outputs, inner = (self._vector(v, np.int32) for v in (op.inputs, op.outputs, op.intermediates))
        options = self._options(op.options, op.values) if op.options else None
        tflite.OperatorStart(self.b)
        tflite.OperatorAddOpcodeIndex(self.b, self.codes.index(key))
        tflite.OperatorAddInputs(self.b, inputs)
        tflite.OperatorAddOutputs(self.b, outputs)
        tflite.OperatorAddIntermediates(self.b, inner)
        if options is not None:
            tflite.OperatorAddBuiltinOptionsType(self.b, getattr(tflite.BuiltinOptions, op.options))
            tflite.OperatorAddBuiltinOptions(self.b, options)
        return tflite.OperatorEnd(self.b)

    def _options(self, kind: str, values: dict) -> int:
        made = {}
        for name, value in values.items():
            made[name] = (
                self.b.CreateString(value)
                if isinstance(value, str)
                else self._vector(value, np.int32)
                if isinstance(value, (list, tuple))
                else value
            )
        getattr(tflite, f"{kind}Start")(self.b)
        for name, value in made.items():
            getattr(tflite, f"{kind}Add{camel(name)}")(self.b, value)
        return getattr(tflite, f"{kind}End")(self.b)


def _packed(values: np.ndarray) -> bytes:
    """Two 4-bit values a byte, the first in the low half."""
    flat = values.reshape(-1)
    flat = np.append(flat, np.zeros(flat.size % 2, np.int8))
    return ((flat[0::2] & 15) | ((flat[1::2] & 15) << 4)).astype(np.uint8).tobytes()
