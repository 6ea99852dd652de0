"""Recurrent layers, step by step: LSTM, plain RNN, SVDF. Their states live from one run to the next, as in LiteRT."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import relax

from tvm_ergo.frontend.tflite.activation import FUSED
from tvm_ergo.frontend.tflite.converter import Converter, Node, is_quantized
from tvm_ergo.frontend.tflite.flat import Tensor
from tvm_ergo.frontend.tflite.linear import weights, with_bias
from tvm_ergo.frontend.tflite.registry import operator
from tvm_ergo.relay_passes.relax_utils import Constant, Expr, array_of, const, dtype_of, shape_of

MOST_STEPS = 4096
HYBRID = {"asymmetric_quantize_inputs": "how LiteRT quantizes float inputs on the fly; here calibration does that"}
_ACTIVATIONS = {
    1: relax.op.nn.relu,
    2: lambda x: relax.op.clip(x, -1.0, 1.0),
    3: lambda x: relax.op.clip(x, 0.0, 6.0),
    4: relax.op.tanh,
}


def activated(c: Converter, node: Node, x: Expr) -> Expr:
    number = int(node.opt[FUSED])
    if number not in (0, *_ACTIVATIONS):
        raise node.refuse(f"has the activation {number}", required="NONE, RELU, RELU_N1_TO_1, RELU6 or TANH")
    return c.emit(_ACTIVATIONS[number](x)) if number else x


def remembered(c: Converter, node: Node, tensor: Tensor, real: Expr) -> Expr:
    """``real`` as the state ``tensor`` keeps it (quantized where the file says), and what is read back of it."""
    stored = c.emit(c.quantized(real, tensor, node)) if is_quantized(tensor) else real
    c.values[tensor.index] = c.current[tensor.name] = stored
    return c.real_of(stored, tensor)


def _before(c: Converter, node: Node, i: int) -> Expr:
    tensor = node.input(i)
    if not tensor.variable:
        raise node.refuse(
            f"has a state that is no variable (input {i})", required="variable tensors, as the converter writes them"
        )
    return c.real_of(c.state(tensor.name, tensor, node), tensor)


def side_by_side(c: Converter, node: Node, inputs: list[int]) -> Expr:
    """Weights [units, depth] of several gates as one matrix [depth, gates * units]: one product in place of several."""
    parts, tensors = [c.stored(node, i) for i in inputs], [node.input(i) for i in inputs]
    quantized = is_quantized(node.input(0))
    symmetric = all(
        is_quantized(t) and t.quantization.per_tensor and not t.quantization.zero_point.any() for t in tensors
    )
    if quantized and symmetric and all(isinstance(p, Constant) for p in parts):
        ints = np.concatenate([np.asarray(array_of(p)) for p in parts]).T
        scale = np.repeat([t.quantization.scale[0] for t in tensors], [shape_of(p)[0] for p in parts]).astype(
            np.float32
        )
        return c.emit(relax.op.dequantize(const(np.ascontiguousarray(ints)), const(scale), const(np.int32(0)), axis=1))
    return c.emit(relax.op.concat([weights(c, node, i, (1, 0), quantized) for i in inputs], 1))


@dataclass
class _Lstm:
    """One LSTM being written: gate order input, forget, cell, output (without input where it is coupled to forget).

    shift : by how much its weights stand behind those of the first direction. cell : which input is its cell state.
    """

    c: Converter
    node: Node
    shift: int = 0
    cell: int = 19

    def __post_init__(self) -> None:
        self.coupled = not self.has(1)
        self.gates = [1, 2, 3] if self.coupled else [0, 1, 2, 3]
        self.units = shape_of(self.c.stored(self.node, self.at(2)))[0]
        self.normalized = not self.node.code.startswith("BIDIRECTIONAL") and self.node.has(21)
        plain = not (self.normalized or any(self.has(i) for i in (9, 10, 11, 16)))
        if is_quantized(self.node.input(0)) and not plain:
            raise self.node.refuse(
                "is quantized and has a projection, peepholes or layer normalization",
                required="a plain quantized LSTM, or a float one",
            )

    def at(self, i: int) -> int:
        return i + self.shift

    def has(self, i: int) -> bool:
        return self.node.has(self.at(i))

    def input_products(self, x: Expr) -> Expr:
        """[..., gates * units]: the inputs' share of all gates, with the biases (those of a layer normalization come
        later)."""
        product = self.c.emit(relax.op.matmul(x, side_by_side(self.c, self.node, [self.at(1 + g) for g in self.gates])))
        if self.normalized:
            return product
        ints = all(dtype_of(self.c.stored(self.node, self.at(12 + g))) == "int32" for g in self.gates)
        if ints and is_quantized(self.node.input(0)):
            s = np.float64(self.node.input(0).quantization.scale[0])
            scale = np.repeat(
                [s * self.node.input(self.at(1 + g)).quantization.scale[0] for g in self.gates], self.units
            ).astype(np.float32)
            bias = np.concatenate([self.c.array(self.node, self.at(12 + g), "biases") for g in self.gates])
            return self.c.emit(
                relax.op.add(
                    product, self.c.emit(relax.op.dequantize(const(bias), const(scale), const(np.int32(0)), axis=0))
                )
            )
        return self.c.emit(
            relax.op.add(
                product, self.c.emit(relax.op.concat([self.c.real(self.node, self.at(12 + g)) for g in self.gates], 0))
            )
        )

    def _gate(self, sums: Expr, gate: int, cell: Expr) -> Expr:
        """The sum of one gate before its activation: peephole and layer normalization included."""
        c, node, at = self.c, self.node, self.gates.index(gate) * self.units
        part = (
            c.emit(relax.op.strided_slice(sums, [1], [at], [at + self.units]))
            if len(self.gates) * self.units != self.units
            else sums
        )
        peephole = {0: 9, 1: 10, 3: 11}.get(gate)
        if peephole is not None and self.has(peephole):
            part = c.emit(relax.op.add(part, c.emit(relax.op.multiply(cell, c.real(node, self.at(peephole))))))
        if self.normalized:
            mean = c.emit(relax.op.mean(part, [1], True))
            centred = c.emit(relax.op.subtract(part, mean))
            spread = c.emit(relax.op.mean(c.emit(relax.op.square(centred)), [1], True))
            unit = c.emit(
                relax.op.divide(centred, c.emit(relax.op.sqrt(c.emit(relax.op.add(spread, const(np.float32(1e-8)))))))
            )
            part = c.emit(
                relax.op.add(c.emit(relax.op.multiply(unit, c.real(node, 20 + gate))), c.real(node, 12 + gate))
            )
        return part

    def step(self, sums: Expr, cell: Expr) -> tuple[Expr, Expr]:
        """(hidden, cell) after one step, from [batch, gates * units] and the cell before."""
        c, node = self.c, self.node
        forget = c.emit(relax.op.sigmoid(self._gate(sums, 1, cell)))
        if self.coupled:
            enter = c.emit(relax.op.subtract(const(np.float32(1)), forget))
        else:
            enter = c.emit(relax.op.sigmoid(self._gate(sums, 0, cell)))
        fresh = activated(c, node, self._gate(sums, 2, cell))
        cell = c.emit(relax.op.add(c.emit(relax.op.multiply(forget, cell)), c.emit(relax.op.multiply(enter, fresh))))
        cell = self._clipped(cell, float(node.opt["cell_clip"]), node.input(self.cell))
        leave = c.emit(relax.op.sigmoid(self._gate(sums, 3, cell)))
        hidden = c.emit(relax.op.multiply(leave, activated(c, node, cell)))
        if self.has(16):
            hidden = c.emit(relax.op.matmul(hidden, weights(c, node, self.at(16), (1, 0), quantized=False)))
            hidden = c.emit(relax.op.add(hidden, c.real(node, self.at(17)))) if self.has(17) else hidden
            hidden = self._clipped(hidden, float(node.opt["proj_clip"]), None)
        return hidden, cell

    def _clipped(self, x: Expr, bound: float, tensor: Tensor | None) -> Expr:
        if tensor is not None and is_quantized(tensor):
            bound = min(bound or np.inf, float(32767 * tensor.quantization.scale[0]))
        return self.c.emit(relax.op.clip(x, -bound, bound)) if bound > 0 else x


def _sequence(
    c: Converter, node: Node, lstm: _Lstm, x: Expr, along: int, states: tuple[int, int], backwards: bool = False
) -> Expr:
    """The hidden values of all steps: the input products of all steps are one matrix product, the recurrent ones follow
    step by step."""
    steps, batch = shape_of(x)[along], shape_of(x)[1 - along]
    if steps > MOST_STEPS:
        raise node.refuse(
            f"runs over {steps} steps",
            required=f"at most {MOST_STEPS}: every step becomes operators of its own",
            remedy="cut the sequence",
        )
    products = lstm.input_products(x)
    recurrent = side_by_side(c, node, [lstm.at(5 + g) for g in lstm.gates])
    hidden, cell = (_before(c, node, i) for i in states)
    results = [None] * steps
    for t in reversed(range(steps)) if backwards else range(steps):
        ours = c.emit(relax.op.strided_slice(products, [along], [t], [t + 1])) if steps > 1 else products
        ours = c.emit(relax.op.reshape(ours, [batch, shape_of(products)[2]]))
        hidden, cell = lstm.step(c.emit(relax.op.add(ours, c.emit(relax.op.matmul(hidden, recurrent)))), cell)
        hidden, cell = (remembered(c, node, node.input(i), v) for i, v in zip(states, (hidden, cell)))
        results[t] = c.emit(relax.op.expand_dims(hidden, along))
    return results[0] if steps == 1 else c.emit(relax.op.concat(results, along))


@operator(
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
    options="UnidirectionalSequenceLSTMOptions",
    handled=f"{FUSED} cell_clip proj_clip time_major",
    without_meaning=HYBRID,
    refused="diagonal_recurrent_tensors",
)
def sequence_lstm(c: Converter, node: Node) -> None:
    c.store(node, _sequence(c, node, _Lstm(c, node), c.real(node, 0), 0 if node.opt["time_major"] else 1, (18, 19)))


@operator(
    "BIDIRECTIONAL_SEQUENCE_LSTM",
    options="BidirectionalSequenceLSTMOptions",
    handled=f"{FUSED} cell_clip proj_clip merge_outputs time_major",
    without_meaning=HYBRID,
)
def bidirectional_lstm(c: Converter, node: Node) -> None:
    """Forwards and backwards, beside each other in one output or as two."""
    if node.has(39):
        raise node.refuse("has an auxiliary input", required="one input for both directions")
    x, along = c.real(node, 0), 0 if node.opt["time_major"] else 1
    both = [
        _sequence(c, node, _Lstm(c, node, 0, 36), x, along, (35, 36)),
        _sequence(c, node, _Lstm(c, node, 17, 38), x, along, (37, 38), True),
    ]
    if node.opt["merge_outputs"]:
        c.store(node, c.emit(relax.op.concat(both, 2)))
        return
    for k, real in enumerate(both):
        c.store(node, real, k)


@operator("LSTM", options="LSTMOptions", handled=f"{FUSED} cell_clip proj_clip kernel_type", without_meaning=HYBRID)
def lstm_step(c: Converter, node: Node) -> None:
    """One step, [batch, inputs] to [batch, units]."""
    if int(node.opt["kernel_type"]) != 0:
        raise node.refuse("has the kernel BASIC", required="the kernel FULL")
    x = c.real(node, 0)
    batch, depth = shape_of(x)
    result = _sequence(c, node, _Lstm(c, node), c.emit(relax.op.reshape(x, [1, batch, depth])), 0, (18, 19))
    c.store(node, c.emit(relax.op.reshape(result, list(shape_of(result)[1:]))), len(node.op.outputs) - 1)


@operator(
    "UNIDIRECTIONAL_SEQUENCE_RNN", options="SequenceRNNOptions", handled=f"{FUSED} time_major", without_meaning=HYBRID
)
def sequence_rnn(c: Converter, node: Node) -> None:
    x, hidden = c.real(node, 0), _before(c, node, 4)
    along = 0 if node.opt["time_major"] else 1
    steps, batch = shape_of(x)[along], shape_of(x)[1 - along]
    if steps > MOST_STEPS:
        raise node.refuse(f"runs over {steps} steps", required=f"at most {MOST_STEPS}", remedy="cut the sequence")
    product = with_bias(c, node, c.emit(relax.op.matmul(x, weights(c, node, 1, (1, 0), False))), 3, 0, 1)
    recurrent, results = weights(c, node, 2, (1, 0), False), []
    for t in range(steps):
        ours = c.emit(
            relax.op.reshape(
                c.emit(relax.op.strided_slice(product, [along], [t], [t + 1])), [batch, shape_of(product)[2]]
            )
        )
        hidden = activated(c, node, c.emit(relax.op.add(ours, c.emit(relax.op.matmul(hidden, recurrent)))))
        hidden = remembered(c, node, node.input(4), hidden)
        results.append(c.emit(relax.op.expand_dims(hidden, along)))
    c.store(node, results[0] if steps == 1 else c.emit(relax.op.concat(results, along)))


@operator("RNN", options="RNNOptions", handled=FUSED, without_meaning=HYBRID)
def rnn(c: Converter, node: Node) -> None:
    product = with_bias(c, node, c.emit(relax.op.matmul(c.real(node, 0), weights(c, node, 1, (1, 0), False))), 3, 0, 1)
    recurrent = c.emit(relax.op.matmul(_before(c, node, 4), weights(c, node, 2, (1, 0), False)))
    hidden = activated(c, node, c.emit(relax.op.add(product, recurrent)))
    c.store(node, remembered(c, node, node.input(4), hidden))


@operator("SVDF", options="SVDFOptions", handled=f"rank {FUSED}", without_meaning=HYBRID)
def svdf(c: Converter, node: Node) -> None:
    """A filter over features whose results are kept for a number of steps, and a filter over these steps; ``rank``
    pairs a unit."""
    quantized, rank = is_quantized(node.input(0)), int(node.opt["rank"])
    x, history = c.real(node, 0), _before(c, node, 4)
    feature, time = weights(c, node, 1, (1, 0), quantized), c.real(node, 2)
    filters, memory = shape_of(c.stored(node, 2))
    batch = shape_of(x)[0]
    if rank < 1 or filters % rank or shape_of(history) != (batch, filters * memory):
        raise node.refuse(
            f"has the rank {rank}, {filters} filters and a state {list(shape_of(history))}",
            remedy="the file is damaged; convert it again",
        )
    fresh = c.emit(relax.op.reshape(c.emit(relax.op.matmul(x, feature)), [batch, filters, 1]))
    past = c.emit(
        relax.op.strided_slice(c.emit(relax.op.reshape(history, [batch, filters, memory])), [2], [1], [memory])
    )
    whole = c.emit(relax.op.concat([past, fresh], 2)) if memory > 1 else fresh
    kept = remembered(c, node, node.input(4), c.emit(relax.op.reshape(whole, [batch, filters * memory])))
    weighted = c.emit(relax.op.multiply(c.emit(relax.op.reshape(kept, [batch, filters, memory])), time))
    sums = c.emit(relax.op.sum(c.emit(relax.op.reshape(weighted, [batch, filters // rank, rank * memory])), [2]))
    if node.has(3):
        bias, stored = node.input(3), c.stored(node, 3)
        scale = np.float64(1)
        if dtype_of(stored) != "float32":  # steps of the state's scale times the time filter's
            scale = np.float64(node.input(4).quantization.scale[0]) * np.float64(node.input(2).quantization.scale[0])
        sums = c.emit(relax.op.add(sums, const((np.asarray(c.array(node, 3, bias.name)) * scale).astype(np.float32))))
    c.store(node, activated(c, node, sums))
