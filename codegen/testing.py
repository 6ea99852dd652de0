"""Random chip functions for tests: every op of the dialect, branches, joins, views, in-place candidates."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.codecs.slots import HEADER_BYTES, SLOT_CODECS
from tvm_ergo.target.errors import ModelError

MAX_ELEMENTS = 3000


class RandomFunction:
    """Builds a Relax function op by op. ``random`` decides everything, so hypothesis' randoms shrink what it finds."""

    def __init__(self, random: Random, inputs: int = 1):
        self.random = random
        self.arrays = np.random.default_rng(random.getrandbits(32))
        self.params = [relax.Var(f"x{i}", relax.TensorType(self._shape(), "int8")) for i in range(inputs)]
        self.values: list[relax.Var] = list(self.params)
        self.bindings: list[relax.VarBinding] = []

    # ---- drawing ----
    def _shape(self) -> tuple[int, ...]:
        r = self.random
        return (r.choice([1, 1, 2]), r.randint(1, 7), r.randint(1, 7), r.randint(1, 6))

    def constant(self, shape, dtype: str = "int8", low: int = -128, high: int = 127) -> relax.Expr:
        return relax.const(self.arrays.integers(low, high + 1, shape).astype(dtype), dtype)

    def scale(self, magnitude: float) -> dict[str, int]:
        """A multiplier and shift that bring values of about ``magnitude`` to about 60."""
        multiplier = self.random.randint(2**23, 2**24 - 1)
        return {"mult": multiplier, "shift": max(0, min(62, round(23.5 + math.log2(max(magnitude, 1) / 60 + 1e-9))))}

    def clip(self) -> dict[str, int]:
        lo = self.random.choice([-128, -128, self.random.randint(-128, 0)])
        return {
            "lo": lo,
            "hi": self.random.choice([127, 127, self.random.randint(max(lo, 0), 127)]),
            "out_zp": self.zero_point(),
        }

    def zero_point(self) -> int:
        return self.random.choice([0, -128, 127, self.random.randint(-128, 127)])

    def pick(self, rank: int | None = None) -> relax.Var | None:
        """A value, recent ones more often."""
        fitting = [v for v in self.values if rank is None or len(shape_of(v)) == rank]
        return None if not fitting else fitting[-1] if self.random.random() < 0.5 else self.random.choice(fitting)

    def emit(self, op: dialect.ErgoOp, *args: relax.Expr) -> relax.Var | None:
        """Adds a binding unless the op does not fit or the result is too large."""
        call = op.call(*args)
        if math.prod(int(d) for d in call.ty.shape.values) > MAX_ELEMENTS:
            return None
        var = relax.DataflowVar(f"{op.op_name}_{len(self.bindings)}", call.ty)
        self.bindings.append(relax.VarBinding(var, call))
        self.values.append(var)
        return var

    # ---- ops ----
    def _axis(self, extent: int, kernel: int, dilation: int) -> tuple[int, int]:
        """Padding before and after so that the window fits and no window lies wholly in the padding."""
        reach, r = (kernel - 1) * dilation + 1, self.random
        before, after = r.randint(0, max(0, reach - 1)), r.randint(0, max(0, reach - 1))
        return (before, after) if extent + before + after >= reach else (reach - 1, reach - 1)

    def _window(self, shape, dilated: bool = True):
        r = self.random
        kernel, dilation = (r.randint(1, 3), r.randint(1, 3)), (r.randint(1, 2), r.randint(1, 2)) if dilated else (1, 1)
        (t, b), (le, ri) = (self._axis(shape[1 + i], kernel[i], dilation[i]) for i in range(2))
        return kernel, {"strides": (r.randint(1, 3), r.randint(1, 3)), "padding": (t, le, b, ri), "dilation": dilation}

    def _channel_vectors(self, channels: int, taps: int) -> tuple:
        scale = self.scale(4000 * math.sqrt(taps))
        shifts = self.arrays.integers(max(0, scale["shift"] - 1), min(62, scale["shift"] + 1) + 1, channels).astype(
            "int8"
        )
        return (
            self.constant((channels,), "int32", -5000, 5000),
            self.constant((channels,), "int32", 2**23, 2**24 - 1),
            relax.const(shifts, "int8"),
        )

    def conv2d(self) -> None:
        x = self.pick(4)
        kernel, fields = self._window(shape_of(x))
        channels = shape_of(x)[3]
        groups = self.random.choice([g for g in range(1, channels + 1) if channels % g == 0])
        out = groups * self.random.randint(1, 4)
        weights = self.constant((out, *kernel, channels // groups))
        self.emit(
            dialect.Conv2d(
                **fields, groups=groups, in_zp=self.zero_point(), w_zp=self.random.choice([0, 0, 3]), **self.clip()
            ),
            x,
            weights,
            *self._channel_vectors(out, math.prod(kernel) * channels // groups),
        )

    def overpadded(self) -> None:
        """A convolution with more padding than kernel: outputs at its edges see no input."""
        x = self.pick(4)
        kernel, channels, out = self.random.choice([1, 3]), shape_of(x)[3], self.random.randint(1, 4)
        padding = tuple(self.random.randint(kernel, kernel + 2) for _ in range(4))
        strides = (self.random.randint(1, 2), self.random.randint(1, 2))
        self.emit(
            dialect.Conv2d(strides=strides, padding=padding, in_zp=self.zero_point(), **self.clip()),
            x,
            self.constant((out, kernel, kernel, channels)),
            *self._channel_vectors(out, kernel * kernel * channels),
        )

    def depthwise(self) -> None:
        x = self.pick(4)
        kernel, fields = self._window(shape_of(x))
        channels = shape_of(x)[3]
        self.emit(
            dialect.DepthwiseConv2d(**fields, in_zp=self.zero_point(), **self.clip()),
            x,
            self.constant((*kernel, channels)),
            *self._channel_vectors(channels, math.prod(kernel)),
        )

    def conv2d_transpose(self) -> None:
        x, r = self.pick(4), self.random
        kernel, strides, dilation = ((r.randint(1, most), r.randint(1, most)) for most in (3, 3, 2))
        more = tuple(r.randint(0, s - 1) for s in strides)
        natural = [
            (d - 1) * s + (k - 1) * e + 1
            for d, s, k, e in zip(shape_of(x)[1:3], strides, kernel, dilation, strict=True)
        ]
        pads = [(p := r.randint(0, min(2, n - 1)), r.randint(0, min(2, n - 1 - p))) for n in natural]
        out = r.randint(1, 4)
        op = dialect.Conv2dTranspose(
            strides=strides,
            padding=(pads[0][0], pads[1][0], pads[0][1], pads[1][1]),
            output_padding=more,
            dilation=dilation,
            in_zp=self.zero_point(),
            **self.clip(),
        )
        self.emit(op, x, self.constant((out, *kernel, shape_of(x)[3])), *self._channel_vectors(out, 4 * shape_of(x)[3]))

    def matmul(self) -> None:
        a = self.pick()
        if len(shape_of(a)) < 2:
            return
        transposed, depth, columns = self.random.random() < 0.5, shape_of(a)[-1], self.random.randint(1, 6)
        fitting = [
            v
            for v in self.values
            if len(shape_of(v)) == len(shape_of(a))
            and shape_of(v)[-1 if transposed else -2] == depth
            and all(p == q or 1 in (p, q) for p, q in zip(shape_of(v)[:-2], shape_of(a)[:-2], strict=True))
        ]
        b = (
            self.random.choice(fitting)
            if fitting
            else self.constant((columns, depth) if transposed else (depth, columns))
        )
        self.emit(
            dialect.MatMul(
                transpose_b=transposed,
                a_zp=self.zero_point(),
                b_zp=self.zero_point(),
                **self.scale(4000 * math.sqrt(depth)),
                **self.clip(),
            ),
            a,
            b,
        )

    def _other(self, a: relax.Var) -> relax.Expr:
        """A second operand: a value of the same shape, or one that broadcasts, or a constant; sometimes ``a`` again."""
        fitting = [
            v
            for v in self.values
            if len(shape_of(v)) == len(shape_of(a))
            and all(p == q or 1 in (p, q) for p, q in zip(shape_of(v), shape_of(a), strict=True))
        ]
        shape = tuple(self.random.choice([1, d]) for d in shape_of(a))[self.random.randint(0, len(shape_of(a)) - 1) :]
        return self.random.choice(fitting) if self.random.random() < 0.8 else self.constant(shape)

    def add(self) -> None:
        a, r = self.pick(), self.random
        b = self._other(a)
        a, b = (a, b) if r.random() < 0.7 else (b, a)
        mults = {"a_mult": r.randint(-(2**20), 2**21 - 1), "b_mult": r.randint(-(2**20), 2**21 - 1)}
        self.emit(
            dialect.Add(
                a_zp=self.zero_point(), b_zp=self.zero_point(), **mults, shift=r.randint(20, 22), **self.clip()
            ),
            a,
            b,
        )

    def mul(self) -> None:
        a = self.pick()
        self.emit(
            dialect.Mul(a_zp=self.zero_point(), b_zp=self.zero_point(), **self.scale(8000), **self.clip()),
            a,
            self._other(a),
        )

    def extremum(self) -> None:
        a = self.pick()
        self.emit(self.random.choice([dialect.Maximum, dialect.Minimum])(), a, self._other(a))

    def table(self) -> None:
        x = self.pick()
        per_channel = self.random.random() < 0.3
        self.emit(dialect.Table(), x, self.constant((shape_of(x)[-1], 256) if per_channel else (256,)))

    def pool(self) -> None:
        x, average = self.pick(4), self.random.random() < 0.5
        kernel, fields = self._window(shape_of(x), dilated=not average)
        try:
            if average:
                del fields["dilation"]
                self.emit(
                    dialect.AvgPool2d(
                        pool=kernel,
                        **fields,
                        count_include_pad=self.random.random() < 0.5,
                        in_zp=self.zero_point(),
                        mult=self.random.randint(2**22, 2**24 - 1),
                        shift=23,
                        **self.clip(),
                    ),
                    x,
                )
            else:
                self.emit(dialect.MaxPool2d(pool=kernel, **fields), x)
        except ModelError:  # a window wholly in the padding
            return

    def reduce(self) -> None:
        x = self.pick()
        axes = tuple(
            sorted(self.random.sample(range(len(shape_of(x))), self.random.randint(1, max(1, len(shape_of(x)) - 1))))
        )
        if len(axes) == len(shape_of(x)):
            return
        fields = {"axes": axes, "keepdims": self.random.random() < 0.5}
        kind = self.random.randrange(3)
        if kind == 0:
            count = math.prod(shape_of(x)[a] for a in axes)
            self.emit(dialect.ReduceSum(**fields, in_zp=self.zero_point(), **self.scale(70 * count), **self.clip()), x)
        else:
            self.emit((dialect.ReduceMax if kind == 1 else dialect.ReduceMin)(**fields), x)

    def softmax(self) -> None:
        lut = relax.const((2**22 * np.exp(-np.arange(256) * self.random.uniform(0.01, 0.1))).astype("int32"), "int32")
        self.emit(dialect.Softmax(mult=self.random.randint(2**20, 2**23), shift=16, out_zp=-128), self.pick(), lut)

    def resize(self) -> None:
        x = self.pick(4)
        tables = []
        for extent in shape_of(x)[1:3]:
            size = self.random.randint(1, 8)
            low = self.arrays.integers(0, extent, size)
            tables.append(
                np.stack([low, np.minimum(low + 1, extent - 1), self.arrays.integers(0, 2049, size)], 1).astype("int32")
            )
        scaling = {"scaled": True, "in_zp": 3, "mult": self.random.randint(2**22, 2**24 - 1), "shift": 23, "out_zp": -9}
        op = dialect.Resize2d(**(scaling if self.random.random() < 0.5 else {}))
        self.emit(op, x, relax.const(tables[0], "int32"), relax.const(tables[1], "int32"))

    def pad(self) -> None:
        x = self.pick()
        self.emit(
            dialect.Pad(
                pad_width=tuple(self.random.choice([0, 0, 1, 2]) for _ in range(2 * len(shape_of(x)))),
                value=self.zero_point(),
            ),
            x,
        )

    def concat(self) -> None:
        x = self.pick()
        axis = self.random.randrange(len(shape_of(x)))
        frame = (shape_of(x)[:axis], shape_of(x)[axis + 1 :])
        fitting = [
            v
            for v in self.values
            if len(shape_of(v)) == len(shape_of(x)) and (shape_of(v)[:axis], shape_of(v)[axis + 1 :]) == frame
        ]
        members = [x, *(self.random.choice(fitting) for _ in range(self.random.randint(0, 2)))]
        if self.random.random() < 0.15:
            members.append(self.constant(shape_of(x)))
        self.random.shuffle(members)
        self.emit(dialect.Concat(axis=axis), *members)

    def split(self) -> None:
        """Two slices that together are the value, in most cases."""
        x = self.pick()
        axis = self.random.randrange(len(shape_of(x)))
        extent = shape_of(x)[axis]
        cut = self.random.randint(1, extent)
        for begin, end in ((0, cut), (cut, extent)):
            if begin < end:
                self._slice(x, axis, begin, end, self.random.choice([1, 1, 1, 2]))

    def _slice(self, x: relax.Var, axis: int, begin: int, end: int, step: int) -> None:
        rank, shape = len(shape_of(x)), shape_of(x)
        self.emit(
            dialect.Slice(
                begin=tuple(begin if i == axis else 0 for i in range(rank)),
                end=tuple(end if i == axis else shape[i] for i in range(rank)),
                strides=tuple(step if i == axis else 1 for i in range(rank)),
            ),
            x,
        )

    def transpose(self) -> None:
        x = self.pick()
        perm = list(range(len(shape_of(x))))
        self.random.shuffle(perm)
        self.emit(dialect.Transpose(perm=tuple(perm)), x)

    def reshape(self) -> None:
        x = self.pick()
        shape, r = list(shape_of(x)), self.random
        if len(shape) > 1 and r.random() < 0.5:  # merge two neighbours
            at = r.randrange(len(shape) - 1)
            shape[at : at + 2] = [shape[at] * shape[at + 1]]
        elif len(shape) < 5:  # split one
            at = r.randrange(len(shape))
            factor = r.choice([f for f in range(1, shape[at] + 1) if shape[at] % f == 0])
            shape[at : at + 1] = [factor, shape[at] // factor]
        self.emit(dialect.Reshape(shape=tuple(shape)), x)

    def compress(self) -> None:
        """A value kept in slots that are ample, tight or hopeless, and what comes out of them."""
        x, r = self.pick(4), self.random
        if shape_of(x)[0] != 1:
            return
        rows = r.randint(1, shape_of(x)[1] + 1)
        tile = min(rows, shape_of(x)[1]) * math.prod(shape_of(x)[2:])
        fields = {
            "codec": r.choice([c.name for c in SLOT_CODECS]),
            "tile_rows": rows,
            "bound": 255,
            "out_zp": self.zero_point(),
            "slot_bytes": r.choice([HEADER_BYTES + tile, r.randint(HEADER_BYTES, HEADER_BYTES + tile), HEADER_BYTES]),
        }
        slots = self.emit(dialect.Compress(**fields), x)
        if slots is not None:
            self.values.pop()
            for _ in range(r.choice([1, 1, 2])):
                self.emit(dialect.Decompress(**fields, shape=shape_of(x)), slots)

    COMPUTE = ("conv2d", "depthwise", "conv2d_transpose", "matmul", "pool", "reduce", "softmax", "resize")
    ELEMENTWISE = ("add", "add", "mul", "extremum", "table", "table")
    MOVEMENT = ("pad", "concat", "concat", "split", "transpose", "reshape")

    COMPRESSION = ("compress",)

    def grow(self, ops: int, kinds: tuple[str, ...] = COMPUTE + ELEMENTWISE + MOVEMENT + COMPRESSION) -> RandomFunction:
        """Adds about ``ops`` ops."""
        for _ in range(4 * ops):
            if len(self.bindings) >= ops:
                break
            kind = self.random.choice(kinds)
            if (
                kind not in ("conv2d", "depthwise", "conv2d_transpose", "pool", "resize", "compress")
                or self.pick(4) is not None
            ):
                getattr(self, kind)()
        return self

    def finish(self, outputs: int = 1) -> tvm.IRModule:
        """A module with the function as ``main``; outputs are the last value and random others, inputs and repeats
        included."""
        chosen = [self.values[-1], *(self.random.choice(self.values) for _ in range(outputs - 1))]
        value = chosen[0] if outputs == 1 else relax.Tuple(chosen)
        result = relax.Var("result", chosen[0].ty if outputs == 1 else relax.TupleType([v.ty for v in chosen]))
        block = relax.DataflowBlock([*self.bindings, relax.VarBinding(result, value)])
        func = relax.Function(self.params, relax.SeqExpr([block], result), result.ty)
        return tvm.IRModule({"main": func.with_attr("global_symbol", "main")})

    def arrays_for_inputs(self) -> dict[str, np.ndarray]:
        """Random int8 arrays by parameter name."""
        return {p.name: self.arrays.integers(-128, 128, shape_of(p)).astype("int8") for p in self.params}


def shape_of(expr: relax.Expr) -> tuple[int, ...]:
    """Static shape of an expression."""
    return tuple(int(d) for d in expr.ty.shape.values)
