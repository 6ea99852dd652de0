"""Random chip functions with compressible weights: constants of random ones made sparse or drawn from few values."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
from tvm import relax

from tvm_ergo.codegen.graph import Graph, Node, Tensor
from tvm_ergo.codegen.testing import RandomFunction
from tvm_ergo.codegen.weights.apply import codable
from tvm_ergo.codegen.weights.coding import Coding
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.codecs.weights_registry import WEIGHT_CODECS


class SparseFunction(RandomFunction):
    """int8 constants have few values or many zeros."""

    def constant(self, shape, dtype: str = "int8", low: int = -128, high: int = 127):
        if dtype != "int8" or low != -128:
            return super().constant(shape, dtype, low, high)
        kind = self.random.randrange(4)
        values = self.arrays.integers(low, high + 1, shape)
        if kind == 0:
            values = values * (self.arrays.random(shape) < 0.15)
        elif kind == 1:
            values = self.arrays.choice([-90, 0, 0, 0, 45], shape)
        elif kind == 2:
            values = np.clip(self.arrays.normal(0, 6, shape), -128, 127)
        return relax.const(values.astype(dtype), dtype)


def randomly_coded(graph: Graph, random) -> Graph:
    """Every constant that can be coded, in a random codec and lanes; some plain."""
    can = codable(graph, smallest_bytes=1)
    return replace(
        graph,
        tensors=tuple(
            replace(t, coding=Coding(random.choice(list(WEIGHT_CODECS)), random.randint(1, 16)))
            if t.id in can and random.random() < 0.9
            else t
            for t in graph.tensors
        ),
    )


def conv_graph(channels: int, coding: Coding | None, values=None, layers: int = 1) -> Graph:
    """Convolutions "conv" of 3x3 over 8 x 8 x channels, 80 % of the weights zero unless ``values(rng, shape)`` draws
    others."""
    rng, shape = np.random.default_rng(0), (channels, 3, 3, channels)
    w = (values or (lambda rng, shape: rng.choice([-40, -12, 9, 30], shape) * (rng.random(shape) < 0.2)))(
        rng, shape
    ).astype(np.int8)
    vectors = [np.zeros(channels, np.int32), np.full(channels, 9_000_000, np.int32), np.full(channels, 30, np.int8)]
    tensors = [Tensor(0, "x", (1, 8, 8, channels), "int8")]
    nodes = []
    for layer in range(layers):
        op = dialect.Conv2d(
            name="conv",
            strides=(1, 1),
            padding=(1, 1, 1, 1),
            dilation=(1, 1),
            groups=1,
            in_zp=0,
            out_zp=0,
            lo=-128,
            hi=127,
        )
        first = len(tensors)
        tensors += [
            Tensor(first + i, f"conv.{role}", a.shape, a.dtype.name, a, coding if role == "w" else None)
            for i, (role, a) in enumerate(zip(("w", "bias", "mult", "shift"), (w, *vectors)))
        ]
        tensors.append(Tensor(first + 4, f"y{layer}", (1, 8, 8, channels), "int8"))
        nodes.append(
            Node(
                layer,
                f"conv{layer}",
                op,
                (first - 1 if layer else 0, first, first + 1, first + 2, first + 3),
                (first + 4,),
            )
        )
    return Graph(tuple(tensors), tuple(nodes), (0,), (len(tensors) - 1,))


def conv_function(channels: int, layers: int = 2):
    """As `conv_graph`, other weights in each layer, as a Relax function."""
    function = SparseFunction(Random(0), 1)
    x = function.params[0] = relax.Var("x", relax.TensorType((1, 8, 8, channels), "int8"))
    for _ in range(layers):
        shape = (channels, 3, 3, channels)
        w = function.arrays.choice([-40, -12, 9, 30], shape) * (function.arrays.random(shape) < 0.2)
        vectors = [
            relax.const(np.full(channels, value, dtype))
            for value, dtype in ((5, "int32"), (9_000_000, "int32"), (30, "int8"))
        ]
        op = dialect.Conv2d(
            strides=(1, 1), padding=(1, 1, 1, 1), dilation=(1, 1), groups=1, in_zp=0, out_zp=0, lo=-128, hi=127
        )
        x = function.emit(op, x, relax.const(w.astype(np.int8)), *vectors)
    return function.finish()["main"]
