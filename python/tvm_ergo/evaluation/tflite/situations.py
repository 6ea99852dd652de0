"""One description of a small network, written as a float file and as an int8 file with scales taken from the float
one's values."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tvm_ergo.evaluation.tflite.builder import Graph, file_of
from tvm_ergo.evaluation.tflite.reference import LiteRT


@dataclass(frozen=True)
class X:
    """An input of the network. scale, zero: of its int8 form."""

    shape: tuple[int, ...]
    scale: float = 0.03
    zero: int = -5


@dataclass(frozen=True)
class Of:
    """What an operator before gave. name: of the tensor."""

    name: str


@dataclass(frozen=True)
class W:
    """Constant weights: int8 with a scale for each entry of ``axis`` (None: one for all)."""

    shape: tuple[int, ...]
    axis: int | None = 0


@dataclass(frozen=True)
class B:
    """A constant bias of so many channels, in steps of scale(x) * scale(w); x, w: which parts those are."""

    channels: int
    x: int = 0
    w: int = 1


@dataclass(frozen=True)
class C:
    """Constant real numbers, int8 over their own range (``like``: with the scale of that part)."""

    values: object
    like: int | None = None


@dataclass(frozen=True)
class I:  # noqa: E742
    """Constant integers, the same in both forms."""

    values: object
    dtype: str = "int32"


@dataclass(frozen=True)
class V:
    """A variable tensor, which keeps its value. dtype, scale, zero: of its int8 form."""

    shape: tuple[int, ...]
    dtype: str = "int8"
    scale: float = 1 / 128
    zero: int = 0


MOVES = (
    "RESHAPE",
    "TRANSPOSE",
    "SLICE",
    "STRIDED_SLICE",
    "CONCATENATION",
    "PAD",
    "MIRROR_PAD",
    "SPLIT",
    "SPACE_TO_DEPTH",
    "TILE",
    "REVERSE_V2",
    "UNPACK",
    "PACK",
    "GATHER",
    "EXPAND_DIMS",
    "MAX_POOL_2D",
    "REDUCE_MAX",
    "SPACE_TO_BATCH_ND",
)
"""Operators of which not one value may be off."""
SLOPES = {"LOGISTIC": 0.25, "TANH": 1.0, "SOFTMAX": 0.5, "GELU": 1.15, "HARD_SWISH": 1.5}
SAME = "the first input's scale"
RANGE = "over the values' range"


@dataclass(frozen=True)
class Op:
    """One operator. parts: its inputs (None: left out). out: SAME, RANGE, a pair (scale, zero point), or an element
    type that has no scale; a list of these for several outputs.

    outputs: how many.
    """

    code: str
    parts: tuple
    options: str | None = None
    values: dict = field(default_factory=dict)
    out: object = RANGE
    outputs: int = 1
    version: int = 2
    name: str = "y"

    @property
    def names(self) -> list[str]:
        return [self.name] if self.outputs == 1 else [f"{self.name}{k}" for k in range(self.outputs)]


class Network:
    """The operators in order; the outputs are what no operator reads. ``data(dtype)``: the file; ``feeds(dtype)``:
    inputs for it.

    ``allowed``: by how many steps each tensor of the int8 file may be off, a step of each operator as far as those
    behind it can show it."""

    def __init__(self, ops: list[Op], seed: int = 0):
        self.ops, self.seed, self._ranges = ops, seed, {}
        read = {p.name for op in ops for p in op.parts if isinstance(p, Of)}
        self.outputs = [n for op in ops for n in op.names if n not in read]
        self.inputs = [(f"{op.name}_{i}", p) for op in ops for i, p in enumerate(op.parts) if isinstance(p, X)]

    def feeds(self, dtype: str, seed: int = 0) -> dict[str, np.ndarray]:
        """Inputs over the whole range of int8; the float ones are their real values."""
        rng, feeds = np.random.default_rng([self.seed, seed]), {}
        for name, p in self.inputs:
            codes = rng.integers(-128, 128, p.shape).astype(np.int8)
            feeds[name] = (
                codes
                if dtype == "int8"
                else ((codes.astype(np.float32) - p.zero) * np.float32(p.scale)).astype(np.float32)
            )
        return feeds

    def data(self, dtype: str) -> bytes:
        """The file. int8 needs the float file to run in LiteRT first: it gives the ranges. Errors: RuntimeError,
        ValueError where it does not."""
        if dtype == "int8" and not self._ranges:
            self._ranges = self._measured()
        writer = _Writer(dtype, np.random.default_rng(self.seed), self._ranges)
        for op in self.ops:
            writer.write(op)
        self.allowed = writer.allowed
        return file_of(writer.graph.ends([n for n, _ in self.inputs], self.outputs))

    def _measured(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest value of every operator's output, by a float file that gives them all."""
        writer = _Writer("float32", np.random.default_rng(self.seed), {})
        for op in self.ops:
            writer.write(op)
        every = [n for op in self.ops for n in op.names]
        got = LiteRT(file_of(writer.graph.ends([n for n, _ in self.inputs], every))).run(self.feeds("float32"))
        return {n: (float(np.nanmin(v)), float(np.nanmax(v))) for n, v in got.items() if v.size}


class _Writer:
    def __init__(self, dtype: str, rng: np.random.Generator, ranges: dict):
        self.graph, self.dtype, self.rng, self.ranges, self.scales = Graph(), dtype, rng, ranges, {}
        self.allowed, self.largest = {}, {}

    def write(self, op: Op) -> None:
        names = []
        for i, part in enumerate(op.parts):
            names.append(
                None
                if part is None
                else part.name
                if isinstance(part, Of)
                else self._part(op, names, f"{op.name}_{i}", part)
            )
        for k, name in enumerate(op.names):
            self._output(op.out[k] if isinstance(op.out, list) else op.out, name, names)
        self.graph.op(op.code, names, op.names, op.options, version=op.version, **op.values)
        if op.names[0] in self.scales:
            self._allow(op, names)

    def _allow(self, op: Op, names: list) -> None:
        out, reach = np.float64(self.scales[op.names[0]][0]), 0.0
        for i, (part, name) in enumerate(zip(op.parts, names)):
            if name in self.allowed and self.allowed[name]:
                scale, other = (
                    np.float64(self.scales[name][0]),
                    next((self.largest[n] for k, n in enumerate(names) if k != i and n in self.largest), 1.0),
                )
                slope = (
                    other
                    if any(isinstance(p, W) for p in op.parts) or op.code == "MUL"
                    else SLOPES.get(op.code, 1.0) * op.values.get("beta", 1.0)
                )
                reach += self.allowed[name] * (1.0 if op.out == SAME else slope * scale / out)
        for name in op.names:
            self.allowed[name] = reach + (0 if op.code in MOVES else 1)
            self.largest[name] = 255 * out

    def _part(self, op: Op, names: list, name: str, part) -> str:
        g, quantized = self.graph, self.dtype == "int8"
        if isinstance(part, X):
            self.scales[name], self.largest[name], self.allowed[name] = (part.scale, part.zero), 255 * part.scale, 0
            return g.tensor(name, part.shape, self.dtype, *(self.scales[name] if quantized else ()))
        if isinstance(part, V):
            self.scales[name] = (part.scale, part.zero)
            return g.tensor(
                name,
                part.shape,
                part.dtype if quantized else "float32",
                *(self.scales[name] if quantized else ()),
                variable=True,
            )
        if isinstance(part, I):
            return g.constant(name, np.asarray(part.values), part.dtype)
        if isinstance(part, W):
            codes = self.rng.integers(-127, 128, part.shape)
            scale = self.rng.uniform(0.004, 0.012, 1 if part.axis is None else part.shape[part.axis]).astype(np.float32)
            self.scales[name] = (scale, 0)
            out = 3 if part.axis == 3 else 0  # where the output channels stand
            self.largest[name] = float(
                (np.abs(codes) * scale.max()).sum(axis=tuple(i for i in range(len(part.shape)) if i != out)).max()
            )
            spread = (
                scale.reshape([-1 if i == part.axis else 1 for i in range(len(part.shape))])
                if part.axis is not None
                else scale
            )
            return (
                g.constant(name, codes, "int8", scale, 0, part.axis or 0)
                if quantized
                else g.constant(name, codes * spread, "float32")
            )
        if isinstance(part, B):
            x, w = (self.scales[names[k]][0] for k in (part.x, part.w))
            codes, scale = self.rng.integers(-2000, 2000, part.channels), np.float64(x) * np.asarray(w, np.float64)
            return g.constant(name, codes, "int32", scale) if quantized else g.constant(name, codes * scale, "float32")
        values = np.asarray(part.values, np.float32)
        scale, zero = (
            self.scales[names[part.like]]
            if part.like is not None
            else _spanning(values.min(initial=0), values.max(initial=0))
        )
        self.scales[name], self.largest[name] = (scale, zero), float(np.abs(values).max(initial=0))
        codes = np.clip(np.rint(values / scale) + zero, -128, 127)
        return (
            g.constant(name, codes, "int8", scale, zero)
            if quantized
            else g.constant(name, (codes - zero) * np.float32(scale), "float32")
        )

    def _output(self, out, name: str, names: list) -> None:
        if isinstance(out, str) and out not in (SAME, RANGE):
            self.graph.tensor(name, (), out)
            return
        first = next((self.scales[n] for n in names if n in self.scales), None)
        self.scales[name] = scale = (
            first if out == SAME else _spanning(*self.ranges.get(name, (-1, 1))) if out == RANGE else out
        )
        self.graph.tensor(name, (), self.dtype, *(scale if self.dtype == "int8" else ()))


def _spanning(low: float, high: float) -> tuple[float, int]:
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    scale = float(np.float32((high - low) / 255)) or 1.0
    return scale, int(np.clip(np.rint(-128 - low / scale), -128, 127))
