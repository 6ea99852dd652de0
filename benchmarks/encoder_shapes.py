"""Encoders of published shapes with random weights, on a chip of enough memory: time, power and what the attention of
long sequences holds. What they compute means nothing, so no accuracy is given.

`roberta-base`: 12 layers, 768 wide, 12 heads, 3072 inside, 128 tokens, on ``ergo/2`` with 128 MiB (85 M weights of a
byte and a vocabulary of 1,000 rows: its size costs bytes, not time). `attention-512`: one attention of 12 heads of 32
channels over 512 tokens, what MiniLM's would be there, on ``ergo/1``."""

from __future__ import annotations

import time

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import tvm_ergo
from benchmarks.common import parse, parser, show
from tvm_ergo.target.machine import Trace

SHAPES = {
    "roberta-base": {"layers": 12, "width": 768, "heads": 12, "inner": 3072, "tokens": 128, "target": "ergo/2"},
    "attention-512": {"layers": 1, "width": 384, "heads": 12, "inner": 384, "tokens": 512, "target": "ergo/1"},
}
VOCABULARY = 1000


class Writer:
    """Nodes and constants of an ONNX graph, one call a node."""

    def __init__(self, seed: int = 0):
        self.rng, self.nodes, self.constants = np.random.default_rng(seed), [], []

    def __call__(self, op: str, *args, **attrs) -> str:
        names = [a if isinstance(a, str) else self._constant(np.asarray(a)) for a in args]
        out = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, names, [out], **attrs))
        return out

    def _constant(self, array: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(array, f"c{len(self.constants)}"))
        return self.constants[-1].name

    def dense(self, x: str, rows: int, columns: int) -> str:
        weight = (self.rng.standard_normal((rows, columns), np.float32) / np.float32(rows**0.5)).astype(np.float32)
        return self("Add", self("MatMul", x, weight), np.zeros(columns, np.float32))

    def norm(self, x: str, width: int) -> str:
        return self("LayerNormalization", x, np.ones(width, np.float32), np.zeros(width, np.float32), axis=-1)


def encoder(layers: int, width: int, heads: int, inner: int, tokens: int) -> onnx.ModelProto:
    """Token numbers ids [1, tokens] and a mask [1, tokens] to hidden [1, tokens, width], normalized behind each sum."""
    net = Writer()
    table, places = (net.rng.standard_normal((n, width), np.float32) for n in (VOCABULARY, tokens))
    mask = net("Mul", net("Sub", np.float32(1), net("Unsqueeze", "mask", np.array([1, 2]))), np.float32(-1e9))
    x = net.norm(net("Add", net("Gather", table, "ids", axis=0), places[None]), width)
    for _ in range(layers):
        x = net.norm(net("Add", x, _attention(net, x, mask, width, heads, tokens)), width)
        h = net.dense(x, width, inner)
        h = net(
            "Mul",
            net("Mul", h, net("Add", net("Erf", net("Div", h, np.float32(2**0.5))), np.float32(1))),
            np.float32(0.5),
        )
        x = net.norm(net("Add", x, net.dense(h, inner, width)), width)
    net.nodes.append(helper.make_node("Identity", [x], ["hidden"]))
    value = helper.make_tensor_value_info
    inputs = [value("ids", TensorProto.INT64, [1, tokens]), value("mask", TensorProto.FLOAT, [1, tokens])]
    outputs = [value("hidden", TensorProto.FLOAT, [1, tokens, width])]
    graph = helper.make_graph(net.nodes, "encoder", inputs, outputs, net.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def _attention(net: Writer, x: str, mask: str, width: int, heads: int, tokens: int) -> str:
    split, joined = np.array([1, tokens, heads, width // heads]), np.array([1, tokens, width])
    q, k, v = (net("Reshape", net.dense(x, width, width), split) for _ in range(3))
    q, k, v = (net("Transpose", t, perm=p) for t, p in ((q, [0, 2, 1, 3]), (k, [0, 2, 3, 1]), (v, [0, 2, 1, 3])))
    scores = net("Add", net("Mul", net("MatMul", q, k), np.float32((width // heads) ** -0.5)), mask)
    means = net("MatMul", net("Softmax", scores, axis=-1), v)
    return net.dense(net("Reshape", net("Transpose", means, perm=[0, 2, 1, 3]), joined), width, width)


def scores_bytes(program) -> int:
    """The most bytes that scores and exponentials hold at one time: scores from the product that begins to write them
    to their EXP_ROWS, exponentials from there to the last WEIGHTED_MEAN that reads them."""
    held = np.zeros(len(program.instructions) + 1, np.int64)
    begun: dict[int, int] = {}  # by address: the instruction that begins to write scores there
    written: dict[int, tuple[int, int]] = {}  # and exponentials there: by which instruction, bytes
    for at, one in enumerate(program.instructions):
        if one.MNEMONIC == "MATMUL":
            begun.setdefault(one.out.addr, at)
        elif one.MNEMONIC == "EXP_ROWS":
            held[begun.pop(one.x.addr, at) : at + 1] += _bytes(one.x)
            written[one.out.addr] = at + 1, _bytes(one.out)
        elif one.MNEMONIC == "WEIGHTED_MEAN" and one.a.addr in written:
            start, size = written[one.a.addr]
            held[start : at + 1] += size
            written[one.a.addr] = at + 1, size
    return int(held.max())


def _bytes(view) -> int:
    return view.shape[0] * view.strides[0]


def rows_of(name: str) -> list[dict]:
    """A row for each operating point of the chip."""
    shape = dict(SHAPES[name])
    target = shape.pop("target")
    model, rng, begin = encoder(**shape), np.random.default_rng(1), time.perf_counter()
    tokens = shape["tokens"]
    feeds = [
        {"ids": rng.integers(0, VOCABULARY, (1, tokens)), "mask": np.ones((1, tokens), np.float32)} for _ in range(2)
    ]
    options = tvm_ergo.QuantizeOptions(attention_on_chip=True)
    compiled = tvm_ergo.compile(model, target=target, memory="128MiB", calibration=feeds, quantize=options)
    seconds = time.perf_counter() - begin
    (program,) = compiled.programs.values()
    return [
        {
            "shape": name,
            "tokens": tokens,
            "host operators": len(compiled.fallbacks),
            "constants MiB": program.meta["constant_bytes"] / 2**20,
            "activations KiB": program.meta["activation_bytes"] / 1024,
            "scores and exponentials KiB": scores_bytes(program) / 1024,
            **_at(Trace(program, compiled.chip, point=point.name), point.name),
            "compile s": seconds,
        }
        for point in compiled.chip.points
    ]


def _at(trace: Trace, point: str) -> dict:
    """What one inference costs at an operating point."""
    return {
        "point": point,
        "cycles": trace.cycles,
        "inferences/s": 1 / trace.seconds,
        "uJ": trace.energy_pj / 1e6,
        "mW running": trace.energy_pj / 1e9 / trace.seconds,
    }


def main(argv=None) -> None:
    arguments = parse(parser(__doc__), argv)
    show("encoders with random weights", [r for n in arguments.nets or SHAPES for r in rows_of(n)], arguments.json)


if __name__ == "__main__":
    main()
