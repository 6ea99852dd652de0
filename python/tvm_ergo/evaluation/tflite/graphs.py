"""Random small TFLite networks, as float and as int8 files, against LiteRT.

``python -m tvm_ergo.evaluation.tflite.graphs --count 1000 --first 0`` prints every network that is not as it should be,
and a summary."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import dataclass

import numpy as np

import tvm_ergo
from tvm_ergo.evaluation.tflite.reference import litert, steps_apart
from tvm_ergo.evaluation.tflite.situations import RANGE, SAME, B, C, I, Network, Of, Op, W, X
from tvm_ergo.frontend import load
from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.target.errors import ErgoError

FUSED = "fused_activation_function"
ROUNDINGS = 4  # units in the last place of the largest value on the way
FLOAT_APART = 2e-5
"""Relative difference of float results of a few operators in a row."""


class Grown:
    """A network being grown: operators, and the shapes of the tensors they gave."""

    def __init__(self, seed: int):
        self.rng, self.ops, self.shapes = np.random.default_rng(seed), [], {}

    def pick(self, *values):
        return values[int(self.rng.integers(len(values)))]

    def add(
        self,
        code: str,
        parts: tuple,
        shape: tuple,
        options=None,
        values=None,
        out=RANGE,
        outputs: int = 1,
        version: int = 2,
    ) -> None:
        """An operator whose results have ``shape``."""
        self.ops.append(Op(code, parts, options, values or {}, out, outputs, version, f"t{len(self.ops)}"))
        self.shapes.update(dict.fromkeys(self.ops[-1].names, shape))

    def source(self) -> tuple[object, tuple[int, ...]]:
        """A tensor there is already, the last one most often; or a new input."""
        names = list(self.shapes)
        if not names:
            shape = self.pick((1, 8, 8, 4), (1, 6, 9, 3), (1, 5, 5, 8), (1, 12), (2, 6, 10))
            return X(shape, float(self.rng.uniform(0.01, 0.06)), int(self.rng.integers(-40, 40))), shape
        name = names[-1] if self.rng.random() < 0.7 else self.pick(*names)
        return Of(name), self.shapes[name]

    def grow(self) -> None:
        x, shape = self.source()
        choices = [grow_table, grow_binary, grow_move, grow_move] + (
            [grow_picture] * 5 if len(shape) == 4 and min(shape[1:3]) > 1 else [grow_dense] * 3
        )
        self.pick(*choices)(self, x, shape)


def _size(size: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> int:
    return -(-size // stride) if padding == 0 else (size - (kernel - 1) * dilation - 1) // stride + 1


def grow_picture(g: Grown, x, shape) -> None:
    n, h, w, c = shape
    kind = g.pick(
        "CONV_2D",
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "MAX_POOL_2D",
        "AVERAGE_POOL_2D",
        "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR",
        "TRANSPOSE_CONV",
        "MEAN",
    )
    k, s, padding, act = int(g.rng.integers(1, min(3, h, w) + 1)), g.pick(1, 1, 2), g.pick(0, 1), g.pick(0, 0, 1, 2, 3)
    oh, ow = (_size(d, k, s, padding) for d in (h, w))
    if kind == "CONV_2D":
        out = int(g.rng.integers(1, 9))
        g.add(
            kind,
            (x, W((out, k, k, c)), B(out)),
            (n, oh, ow, out),
            "Conv2DOptions",
            {"padding": padding, "stride_w": s, "stride_h": s, FUSED: act},
            version=3,
        )
    elif kind == "DEPTHWISE_CONV_2D":
        m = g.pick(1, 1, 2)
        g.add(
            kind,
            (x, W((1, k, k, c * m), 3), B(c * m)),
            (n, oh, ow, c * m),
            "DepthwiseConv2DOptions",
            {"padding": padding, "stride_w": s, "stride_h": s, "depth_multiplier": m, FUSED: act},
            version=3,
        )
    elif kind in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
        g.add(
            kind,
            (x,),
            (n, oh, ow, c),
            "Pool2DOptions",
            {"padding": padding, "stride_w": s, "stride_h": s, "filter_width": k, "filter_height": k, FUSED: act},
            SAME,
        )
    elif kind == "TRANSPOSE_CONV":
        size = [n, h * s if padding == 0 else (h - 1) * s + k, w * s if padding == 0 else (w - 1) * s + k, 3]
        g.add(
            kind,
            (I(size), W((3, k, k, c)), x, B(3, 2, 1)),
            tuple(size),
            "TransposeConvOptions",
            {"padding": padding, "stride_w": s, "stride_h": s, FUSED: act},
            version=4,
        )
    elif kind == "MEAN":
        g.add(
            kind,
            (x, I([1, 2])),
            (n, 1, 1, c) if (keep := g.pick(True, False)) else (n, c),
            "ReducerOptions",
            {"keep_dims": keep},
        )
    else:
        size = [int(v) for v in g.rng.integers(1, 14, 2)]
        mode = g.pick({}, {"align_corners": True}, {"half_pixel_centers": True})
        g.add(kind, (x, I(size)), (n, *size, c), kind.title().replace("_", "") + "Options", mode, SAME, version=4)


def grow_dense(g: Grown, x, shape) -> None:
    depth, units = shape[-1], int(g.rng.integers(1, 12))
    g.add(
        "FULLY_CONNECTED",
        (x, W((units, depth), None), B(units)),
        (*shape[:-1], units),
        "FullyConnectedOptions",
        {"keep_num_dims": True, FUSED: g.pick(0, 1, 3)},
        version=5,
    )


def grow_table(g: Grown, x, shape) -> None:
    kind = g.pick(
        "LOGISTIC",
        "TANH",
        "RELU",
        "RELU6",
        "LEAKY_RELU",
        "HARD_SWISH",
        "GELU",
        "ELU",
        "PRELU",
        "SOFTMAX",
        "ABS",
        "QUANTIZE",
    )
    options = {
        "LEAKY_RELU": ("LeakyReluOptions", {"alpha": 0.3}),
        "GELU": ("GeluOptions", {"approximate": g.pick(True, False)}),
        "SOFTMAX": ("SoftmaxOptions", {"beta": g.pick(1.0, 0.5, 2.0)}),
    }
    out = {"LOGISTIC": (1 / 256, -128), "TANH": (1 / 128, 0), "SOFTMAX": (1 / 256, -128)}.get(kind, RANGE)
    parts = (x, C(g.rng.uniform(-0.5, 1, shape[-1]))) if kind == "PRELU" else (x,)
    if kind == "QUANTIZE":  # of int8 files only: a float file has none between real numbers
        kind, parts = "MUL", (x, C(np.float32([1.0])))
        options["MUL"] = ("MulOptions", {})
    version = {"HARD_SWISH": 1, "ELU": 1, "PRELU": 1}.get(kind, 2)
    g.add(kind, parts, shape, *options.get(kind, (None, {})), out, version=version)


def grow_binary(g: Grown, x, shape) -> None:
    kind = g.pick("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "CONCATENATION")
    others = [n for n, s in g.shapes.items() if s == shape and Of(n) != x]
    if kind in ("MAXIMUM", "MINIMUM"):
        g.add(
            kind,
            (x, C(g.rng.uniform(-1, 1, g.pick((), shape[-1:], shape)), like=0)),
            shape,
            "MaximumMinimumOptions",
            out=SAME,
        )
        return
    other = (
        Of(g.pick(*others))
        if others and g.rng.random() < 0.7
        else C(g.rng.uniform(-1, 1, shape if kind == "CONCATENATION" else g.pick((1,), shape[-1:], shape)))
    )
    if kind == "CONCATENATION":
        axis = int(g.rng.integers(len(shape)))
        other = x if isinstance(other, Of) else C(other.values, like=0)
        g.add(
            kind,
            (x, other),
            tuple(2 * d if i == axis else d for i, d in enumerate(shape)),
            "ConcatenationOptions",
            {"axis": axis},
            SAME,
        )
        return
    g.add(kind, (x, other), shape, f"{kind.title()}Options", {FUSED: g.pick(0, 0, 1, 3)})


def grow_move(g: Grown, x, shape) -> None:
    axis = int(g.rng.integers(len(shape)))
    size = shape[axis]
    kind = g.pick(
        "RESHAPE",
        "TRANSPOSE",
        "SLICE",
        "STRIDED_SLICE",
        "PAD",
        "MIRROR_PAD",
        "SPLIT",
        "TILE",
        "REVERSE_V2",
        "EXPAND_DIMS",
        "REDUCE_MAX",
        "GATHER",
    )
    if kind == "RESHAPE":
        new = (
            (shape[0], int(np.prod(shape[1:])))
            if g.rng.random() < 0.5
            else (*shape[:-1], 1, shape[-1])[-4:]
            if len(shape) < 4
            else shape
        )
        g.add(kind, (x, I(new)), new, "ReshapeOptions", out=SAME, version=1)
    elif kind == "TRANSPOSE":
        perm = [int(p) for p in g.rng.permutation(len(shape))]
        g.add(kind, (x, I(perm)), tuple(shape[p] for p in perm), out=SAME)
    elif kind == "SLICE":
        first = int(g.rng.integers(size))
        new = tuple(size - first if i == axis else d for i, d in enumerate(shape))
        g.add(kind, (x, I([first if i == axis else 0 for i in range(len(shape))]), I([-1] * len(shape))), new, out=SAME)
    elif kind == "STRIDED_SLICE":
        step = g.pick(1, 2, -1)
        strides = [step if i == axis else 1 for i in range(len(shape))]
        new = tuple(-(-size // abs(step)) if i == axis else d for i, d in enumerate(shape))
        everything = 2 ** len(shape) - 1
        g.add(
            kind,
            (x, I([0] * len(shape)), I([0] * len(shape)), I(strides)),
            new,
            "StridedSliceOptions",
            {"begin_mask": everything, "end_mask": everything},
            SAME,
        )
    elif kind in ("PAD", "MIRROR_PAD"):
        most = 3 if kind == "PAD" else size - 1
        widths = [
            [int(v) for v in g.rng.integers(0, min(most, 3) + 1, 2)] if i == axis else [0, 0] for i in range(len(shape))
        ]
        new = tuple(d + sum(w) for d, w in zip(shape, widths))
        g.add(
            kind,
            (x, I(widths)),
            new,
            "PadOptions" if kind == "PAD" else "MirrorPadOptions",
            {} if kind == "PAD" else {"mode": 0},
            SAME,
        )
    elif kind == "SPLIT":
        parts = next(p for p in (3, 2, 1) if size % p == 0)
        g.add(
            kind,
            (I(axis), x),
            tuple(size // parts if i == axis else d for i, d in enumerate(shape)),
            "SplitOptions",
            {"num_splits": parts},
            SAME,
            outputs=parts,
        )
    elif kind == "TILE" and np.prod(shape) < 2000:
        g.add(
            kind,
            (x, I([2 if i == axis else 1 for i in range(len(shape))])),
            tuple(2 * d if i == axis else d for i, d in enumerate(shape)),
            out=SAME,
        )
    elif kind == "EXPAND_DIMS" and len(shape) < 4:
        g.add(kind, (x, I(axis)), (*shape[:axis], 1, *shape[axis:]), out=SAME, version=1)
    elif kind == "REDUCE_MAX" and len(shape) > 2:
        g.add(
            kind,
            (x, I([axis])),
            tuple(1 if i == axis else d for i, d in enumerate(shape)),
            "ReducerOptions",
            {"keep_dims": True},
            SAME,
        )
    elif kind == "GATHER":
        index = [int(v) for v in g.rng.integers(0, size, 3)]
        g.add(
            kind,
            (x, I(index)),
            tuple(3 if i == axis else d for i, d in enumerate(shape)),
            "GatherOptions",
            {"axis": axis},
            SAME,
        )
    else:
        g.add("REVERSE_V2", (x, I([axis])), shape, out=SAME, version=3)


@dataclass(frozen=True)
class Verdict:
    """seed: of the network. kind: float32 or int8. said: "right", "within N steps", "host", "refused: ...", "LiteRT has
    none", or "WRONG: ..."."""

    seed: int
    kind: str
    said: str
    ops: str

    @property
    def wrong(self) -> bool:
        return self.said.startswith("WRONG")


def network(seed: int) -> Grown:
    g = Grown(seed)
    for _ in range(int(g.rng.integers(2, 7))):
        g.grow()
    return g


def judged(seed: int) -> list[Verdict]:
    """A network in both forms. Int8: a step of each operator, as far as later operators can show it, is allowed; exact
    where only values move."""
    grown = network(seed)
    net, names, found = Network(grown.ops, seed), " ".join(op.code for op in grown.ops), []
    for kind in ("float32", "int8"):
        try:
            data, feeds = net.data(kind), net.feeds(kind)
            want = litert(data, feeds)
        except (RuntimeError, ValueError) as error:
            found.append(Verdict(seed, kind, f"LiteRT has none: {str(error)[:100]}", names))
            continue
        try:
            found.append(
                Verdict(
                    seed,
                    kind,
                    _float(data, feeds, want) if kind == "float32" else _int8(data, feeds, want, net.allowed),
                    names,
                )
            )
        except ErgoError as error:
            found.append(Verdict(seed, kind, f"refused: {error.what}", names))
    return found


def _float(data: bytes, feeds: dict, want: dict) -> str:
    imported = load(data)
    largest = [1.0]

    def watch(name: str, value: np.ndarray) -> None:
        if value.dtype.kind == "f" and value.size:
            largest.append(float(np.abs(value).max()))

    parameters = {p: feeds[i.name] for p, i in zip(imported.parameters, imported.inputs)}
    values = Interpreter(imported.mod).run(parameters, watch)
    for output, value in zip(imported.outputs, values):
        apart = steps_apart({output.name: value}, {output.name: want[output.name]})
        if apart <= FLOAT_APART:
            continue
        # what a clip or a cancellation leaves is as exact as the values before it
        most = ROUNDINGS * float(np.finfo(np.float32).eps) * max(largest)
        if value.shape != want[output.name].shape or np.abs(value - want[output.name]).max() > most:
            return f"WRONG: {apart:.2g} of the range"
    return "right"


def _int8(data: bytes, feeds: dict, want: dict, allowed: dict[str, float]) -> str:
    compiled = tvm_ergo.compile(data)
    got, worst = compiled.run(feeds).outputs, 0.0
    for name, right in want.items():
        apart = steps_apart(got, {name: right})
        if apart > np.floor(allowed[name]) or not np.isfinite(apart):
            return f"WRONG: {name} {apart:.0f} steps of {allowed[name]:.1f} allowed"
        mean = np.abs(got[name].astype(int) - right.astype(int)).mean()
        if (
            right.size >= 64 and mean > 0.25 * allowed[name] + 0.05
        ):  # few elements may all be off: LiteRT's MEAN is by nearly a step
            return f"WRONG: {name} off by {mean:.2f} steps in the mean"
        worst = max(worst, apart)
    host = sorted({f.op for f in compiled.fallbacks})
    return ("right" if worst == 0 else f"within {worst:.0f} steps") + (f"; host: {', '.join(host)}" if host else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    tally, start = Counter(), time.time()
    for seed in range(arguments.first, arguments.first + arguments.count):
        for verdict in judged(seed):
            tally[verdict.kind, verdict.said.split(":")[0].split(";")[0]] += 1
            if verdict.wrong or verdict.said.startswith("refused"):
                print(f"{verdict.seed} {verdict.kind}: {verdict.said}\n    {verdict.ops}", flush=True)
    print(
        f"{arguments.count} networks in {time.time() - start:.0f} s: "
        + ", ".join(f"{kind} {said} {n}" for (kind, said), n in sorted(tally.items()))
    )


if __name__ == "__main__":
    main()
