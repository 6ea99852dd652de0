"""A contraction as ops of the dialect: operands brought to the chip's layouts, one tensor-engine op, the result brought
back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_ergo.codegen.tir.builder import GraphBuilder
from tvm_ergo.codegen.tir.contraction import Contraction, Operand, Var, Window
from tvm_ergo.codegen.tir.expressions import Mismatch
from tvm_ergo.relay_passes.dialect import (
    Conv2d,
    Conv2dAccumulate,
    DepthwiseConv2d,
    DepthwiseConv2dAccumulate,
    MatMul,
    MatMulAccumulate,
)


@dataclass(frozen=True)
class Requantization:
    """``clip(out_zp + floor(acc * mult / 2**shift + 1/2), lo, hi)``."""

    mult: int
    shift: int
    out_zp: int
    lo: int
    hi: int


@dataclass(frozen=True)
class Padding:
    """An operand that is a padded tensor: per dimension the elements before and after, and their value."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    value: int


class ContractionEmitter:
    """Emits one contraction into a graph. ``x``, ``w``: tensor ids of the operands, ``padding`` of x's tensor, ``bias``
    int32 id by ``columns`` axis (or None), ``requantization`` None for int32 accumulators."""

    def __init__(
        self,
        graph: GraphBuilder,
        c: Contraction,
        x: int,
        w: int,
        padding: Padding | None,
        bias: int | None,
        requantization: Requantization | None,
    ):
        self.graph, self.c, self.x, self.w, self.bias, self.requantization = graph, c, x, w, bias, requantization
        self.padding = padding
        self.name = c.stage.name

    def emit(self) -> int:
        """The id of the result, shaped as the stage's buffer. Errors: Mismatch where the chip has no such op."""
        if not self.c.x.windows and self.bias is None:
            self._materialize_padding()
            return self._matmul()
        if self.c.batch and not self.c.inner and not self.c.columns:
            return self._depthwise()
        if self.c.batch:
            raise Mismatch("a grouped convolution, or a batched product with a bias")
        return self._convolution()

    def _materialize_padding(self) -> None:
        if self.padding is not None:
            widths = [n for pair in zip(self.padding.before, self.padding.after) for n in pair]
            self.x, self.padding = self.graph.pad(self.x, widths, self.padding.value, self.name), None

    def _arrange(self, value: int, operand: Operand, order: list[Var | Window], shape: list[int]) -> int:
        """The operand's dimensions in ``order`` (dimensions read at index 0 only are cut and dropped), reshaped to
        ``shape``."""
        extents = [
            n if isinstance(d, Window) else 1 if d is None else self.c.extents[d]
            for d, n in zip(operand.dims, self.graph.shape(value))
        ]
        value = self.graph.crop(value, extents, self.name)
        kept = [i for i, d in enumerate(operand.dims) if d is not None]
        value = self.graph.reshape(value, [self.graph.shape(value)[i] for i in kept], self.name)
        dims = [operand.dims[i] for i in kept]
        return self.graph.reshape(
            self.graph.transpose(value, [dims.index(d) for d in order], self.name), shape, self.name
        )

    def _result(self, value: int, order: list[Var]) -> int:
        """From the axes ``order`` (each its own extent) to the stage's buffer."""
        axes = [a.var for a in self.c.stage.axes if a.extent != 1]
        order = [v for v in order if v is not None and self.c.extents[v] != 1]
        value = self.graph.reshape(value, [self.c.extents[v] for v in order], self.name)
        value = self.graph.transpose(value, [order.index(v) for v in axes], self.name)
        return self.graph.reshape(value, [a.extent for a in self.c.stage.axes], self.name)

    def _matmul(self) -> int:
        c, size = self.c, self.c.size
        lead = [size(c.batch)] if c.batch else []
        a = self._arrange(self.x, c.x, [*c.batch, *c.rows, *c.inner], [*lead, size(c.rows), size(c.inner)])
        # b stays [..., N, K] where its inner axes come last already: the chip reads it transposed at no cost
        transpose_b = [v for v in c.w.axes if v not in c.batch][-len(c.inner) :] == list(c.inner) and bool(c.columns)
        order, shape = (
            ([*c.columns, *c.inner], [size(c.columns), size(c.inner)])
            if transpose_b
            else ([*c.inner, *c.columns], [size(c.inner), size(c.columns)])
        )
        b = self._arrange(self.w, c.w, [*c.batch, *order], [*lead, *shape])
        fields = dict(transpose_b=transpose_b, a_zp=c.x.zero_point, b_zp=c.w.zero_point, name=self.name)
        q = self.requantization
        op = (
            MatMulAccumulate(mult=0, shift=0, **fields)
            if q is None
            else MatMul(mult=q.mult, shift=q.shift, lo=q.lo, hi=q.hi, out_zp=q.out_zp, **fields)
        )
        return self._result(self.graph.emit(op, a, b, name=self.name), [*c.batch, *c.rows, *c.columns])

    def _vectors(self, channels: int) -> tuple[int, int, int]:
        """bias, mult, shift."""
        q = self.requantization
        mult, shift = (q.mult, q.shift) if q else (0, 0)
        bias = self.graph.constant(np.zeros(channels, np.int32)) if self.bias is None else self.bias
        return (
            bias,
            self.graph.constant(np.full(channels, mult, np.int32)),
            self.graph.constant(np.full(channels, shift, np.int8)),
        )

    def _windows(self) -> tuple[list[Window | Var | None], list[Var]]:
        """Two windowed dimensions of x in its own order (None: a dimension of 1 to be added), and the rows left
        over."""
        windows, rows = list(self.c.x.windows), list(self.c.rows)
        if not windows and rows:
            windows.append(rows.pop())  # a product with a bias: a convolution along its last row axis
        windows.sort(key=self.c.x.dims.index)
        return [None] * (2 - len(windows)) + windows, rows

    def _geometry(self, windows) -> dict:
        """strides, dilation, padding of the two dimensions; x is cropped where the result needs less of it."""
        strides, dilation, before, after = [], [], [], []
        ends = list(self.graph.shape(self.x))
        for d in windows:
            window = d if isinstance(d, Window) else Window(d, None)
            out, taps = (1 if v is None else self.c.extents[v] for v in (window.out, window.tap))
            strides.append(window.stride)
            dilation.append(window.dilation)
            dim = None if d is None else self.c.x.dims.index(d)
            pad = self.padding.before[dim] if self.padding and dim is not None else 0
            needed = (out - 1) * window.stride + (taps - 1) * window.dilation + 1 - pad
            before.append(pad)
            after.append(max(0, needed - (1 if dim is None else ends[dim])))
            if dim is not None:
                ends[dim] = min(ends[dim], needed)
        self.x = self.graph.crop(self.x, ends, self.name)
        return dict(strides=strides, dilation=dilation, padding=(before[0], before[1], after[0], after[1]))

    def _check_padding(self, windows) -> None:
        """Padding joins the op only where it is spatial and of the zero point's value; else it is made a tensor of its
        own."""
        if self.padding is None:
            return
        spatial = {self.c.x.dims.index(d) for d in windows if d is not None}
        outside = any(
            b or a for i, (b, a) in enumerate(zip(self.padding.before, self.padding.after)) if i not in spatial
        )
        used_up = any(self.padding.before[i] > 0 and self._needed(i) <= self.padding.before[i] for i in spatial)
        if outside or used_up or self.padding.value != self.c.x.zero_point:
            self._materialize_padding()

    def _needed(self, dim: int) -> int:
        d = self.c.x.dims[dim]
        window = d if isinstance(d, Window) else Window(d, None)
        out, taps = (1 if v is None else self.c.extents[v] for v in (window.out, window.tap))
        return (out - 1) * window.stride + (taps - 1) * window.dilation + 1

    def _spatial(self, windows, lead: list[Var], channels: list[Var]) -> tuple[int, dict]:
        """x as [N, H, W, C] and the geometry."""
        self._check_padding(windows)
        geometry = self._geometry(windows)
        shape = self.graph.shape(self.x)
        sizes = [1 if d is None else shape[self.c.x.dims.index(d)] for d in windows]
        order = [*lead, *(d for d in windows if d is not None), *channels]
        return self._arrange(self.x, self.c.x, order, [self.c.size(lead), *sizes, self.c.size(channels)]), geometry

    def _taps(self, windows) -> tuple[list[Var], list[int]]:
        taps = [w.tap if isinstance(w, Window) else None for w in windows]
        return [t for t in taps if t is not None], [1 if t is None else self.c.extents[t] for t in taps]

    def _convolution(self) -> int:
        c = self.c
        windows, lead = self._windows()
        x, geometry = self._spatial(windows, lead, list(c.inner))
        taps, kernel = self._taps(windows)
        w = self._arrange(self.w, c.w, [*c.columns, *taps, *c.inner], [c.size(c.columns), *kernel, c.size(c.inner)])
        cls = Conv2d if self.requantization else Conv2dAccumulate
        return self._linear(cls, x, w, geometry, c.size(c.columns), windows, lead, list(c.columns))

    def _depthwise(self) -> int:
        c = self.c
        windows, lead = self._windows()
        x, geometry = self._spatial(windows, lead, list(c.batch))
        taps, kernel = self._taps(windows)
        w = self._arrange(self.w, c.w, [*taps, *c.batch], [*kernel, c.size(c.batch)])
        cls = DepthwiseConv2d if self.requantization else DepthwiseConv2dAccumulate
        return self._linear(cls, x, w, geometry, c.size(c.batch), windows, lead, list(c.batch))

    def _linear(
        self, cls, x: int, w: int, geometry: dict, channels: int, windows, lead: list[Var], channel_axes: list[Var]
    ) -> int:
        q = self.requantization
        fields = dict(lo=q.lo, hi=q.hi, out_zp=q.out_zp) if q else {}
        op = cls(in_zp=self.c.x.zero_point, w_zp=self.c.w.zero_point, name=self.name, **geometry, **fields)
        out = self.graph.emit(op, x, w, *self._vectors(channels), name=self.name)
        outs = [d.out if isinstance(d, Window) else d for d in windows]
        return self._result(out, [*lead, *outs, *channel_axes])
