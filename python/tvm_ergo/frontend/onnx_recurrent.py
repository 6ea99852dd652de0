"""ONNX's recurrent layers, which TVM's importer lacks: LSTM, GRU and RNN unrolled over time into plain operators.

The input products of all steps are one matrix product; each step adds the product of its state. Definitions: ONNX
operators LSTM, GRU, RNN (opset 7 on). Weights may be whatever the file computes from constants. Both directions,
initial states, lengths, clipping, peepholes and activations are those of ONNX."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from tvm_ergo.frontend.onnx_emitter import Emitter, attributes_of
from tvm_ergo.frontend.onnx_known import Known
from tvm_ergo.target.errors import ModelError, UnsupportedError

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
_PLAIN = ("Sigmoid", "Tanh", "Relu", "Softsign", "Softplus")
_PARAMETERS = {
    "LeakyRelu": {"alpha": 0.01},
    "Elu": {"alpha": 1.0},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "ThresholdedRelu": {"alpha": None},
    "Affine": {"alpha": None, "beta": None},
    "ScaledTanh": {"alpha": None, "beta": None},
}
"""Defaults; None where ONNX gives none for recurrent layers, or runtimes take different ones."""
_COVERED = frozenset(
    {
        "hidden_size",
        "direction",
        "activations",
        "activation_alpha",
        "activation_beta",
        "clip",
        "input_forget",
        "linear_before_reset",
        "layout",
    }
)


def unroll_recurrent(model: onnx.ModelProto, shapes: dict[str, list[int]]) -> bool:
    """Replace LSTM, GRU and RNN nodes in place; ``shapes`` are those of the inputs. True if there were any.

    Errors: ModelError (weights that depend on an input, unknown length), UnsupportedError (attributes ONNX does not
    define)."""
    graph = model.graph
    if not any(_is_recurrent(node) for node in graph.node):
        return False
    known = Known(model, shapes)
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=13)
    nodes = []
    for node in graph.node:
        if not _is_recurrent(node):
            nodes.append(node)
            continue
        layer = _Layer(node, known, opset)
        layer.unroll()
        nodes.extend(layer.e.nodes)
        graph.initializer.extend(layer.e.initializers)
    del graph.node[:]
    graph.node.extend(nodes)
    return True


def _is_recurrent(node: onnx.NodeProto) -> bool:
    return node.op_type in _GATES and node.domain in ("", "ai.onnx")


class _Layer:
    """One node on its way into plain operators."""

    def __init__(self, node: onnx.NodeProto, known: Known, opset: int):
        self.node, self.known, self.opset, self.kind = node, known, opset, node.op_type
        self.e, self.attributes = Emitter(node), attributes_of(node)
        self.where = f"node {node.name or node.output[0]!r} ({node.op_type})"
        if unknown := [a for a in self.attributes if a not in _COVERED]:
            raise UnsupportedError(
                "an attribute of a recurrent layer is not known",
                where=self.where,
                available=", ".join(unknown),
                required=", ".join(sorted(_COVERED)),
                remedy="export the layer without it",
            )
        self.w, self.r = self.constant(1, "W", needed=True), self.constant(2, "R", needed=True)
        self.hidden, self.directions = self.r.shape[2], self.r.shape[0]
        self.bias, self.batch_first = self.constant(3, "B"), bool(self.attributes.get("layout", 0))
        self.clip = float(self.attributes.get("clip", 0.0))
        self.steps, self.batch = self._sizes()
        self.lengths = self.constant(4, "sequence_lens")
        self.peepholes = self.constant(7, "P") if self.kind == "LSTM" else None
        self.functions = self._activations()

    # ---- what the node says -----------------------------------------------------------------------------------------
    def present(self, index: int) -> str | None:
        return self.node.input[index] if len(self.node.input) > index and self.node.input[index] else None

    def constant(self, index: int, what: str, needed: bool = False) -> np.ndarray | None:
        name = self.present(index)
        if name is None:
            if needed:
                raise ModelError(f"a recurrent layer has no {what}", where=self.where)
            return None
        value = self.known.value(name)
        if value is None:
            remedy = (
                "export the model for sequences of full length, without lengths"
                if what == "sequence_lens"
                else "export the model with its weights as constants"
            )
            raise ModelError(
                f"the {what} of a recurrent layer is not a constant",
                where=f"{self.where}, input {name!r}",
                remedy=remedy,
            )
        return value

    def _sizes(self) -> tuple[int, int]:
        """Steps and batch."""
        shape = self.known.shape(self.node.input[0])
        axes = (1, 0) if self.batch_first else (0, 1)
        if shape is None or len(shape) != 3 or any(not shape[a] for a in axes):
            raise ModelError(
                "the sequence length of a recurrent layer is not known",
                where=self.where,
                available=f"{self.node.input[0]!r} is {shape}",
                remedy="give the shapes of the inputs: input_shapes={name: shape}, --input-shape NAME=DIMS",
            )
        return shape[axes[0]], shape[axes[1]]

    def _activations(self) -> list[list[tuple[str, dict]]]:
        """Per direction the activations (f, g, h) with their parameters, which ONNX lists one after the other."""
        default = _DEFAULTS[self.kind]
        names = [a.decode() for a in self.attributes.get("activations", ())] or default * self.directions
        if len(names) != len(default) * self.directions:
            raise ModelError(
                "a recurrent layer has another number of activations than it needs",
                where=self.where,
                required=f"{len(default)} a direction",
                available=", ".join(names),
                remedy="export the model again; the file does not follow ONNX",
            )
        spelled = {n.lower(): n for n in (*_PLAIN, *_PARAMETERS)}
        given = {key: list(self.attributes.get(f"activation_{key}", ())) for key in ("alpha", "beta")}
        made = []
        for name in names:
            if name.lower() not in spelled:
                raise UnsupportedError(
                    "an activation of a recurrent layer is not supported",
                    where=self.where,
                    available=name,
                    required=", ".join(spelled.values()),
                    remedy="train the layer with one of these activations",
                )
            name = spelled[name.lower()]
            parameters = {
                key: given[key].pop(0) if given[key] else value for key, value in _PARAMETERS.get(name, {}).items()
            }
            if None in parameters.values():
                raise UnsupportedError(
                    "an activation of a recurrent layer has no parameters",
                    where=self.where,
                    available=name,
                    remedy="export the model with activation_alpha and activation_beta written out",
                )
            made.append((name, parameters))
        return [made[i * len(default) : (i + 1) * len(default)] for i in range(self.directions)]

    # ---- small operators --------------------------------------------------------------------------------------------
    def number(self, name: str, value: float) -> str:
        return self.e.constant(name, np.array(value, np.float32))

    def unsqueeze(self, x: str, axis: int, name: str, output: str | None = None) -> str:
        if self.opset < 13:
            return self.e.op("Unsqueeze", [x], name, output, axes=[axis])
        return self.e.op("Unsqueeze", [x, self.e.constant(f"{name}_axes", np.array([axis], np.int64))], name, output)

    def part(self, x: str, k: int, name: str) -> str:
        """Gate ``k`` of gates [N, gates * H]."""
        begin, end = k * self.hidden, (k + 1) * self.hidden
        if self.opset < 10:
            return self.e.op("Slice", [x], name, axes=[1], starts=[begin], ends=[end])
        bounds = [
            self.e.constant(f"{name}_{w}", np.array([v], np.int64))
            for w, v in (("begin", begin), ("end", end), ("axis", 1))
        ]
        return self.e.op("Slice", [x, *bounds], name)

    def activation(self, x: str, which: int, direction: int, name: str) -> str:
        function, parameters = self.functions[direction][which]
        if self.clip > 0:
            x = (
                self.e.op("Clip", [x], f"{name}_clip", min=-self.clip, max=self.clip)
                if self.opset < 11
                else self.e.op(
                    "Clip",
                    [x, self.number(f"{name}_low", -self.clip), self.number(f"{name}_high", self.clip)],
                    f"{name}_clip",
                )
            )
        if function in ("Affine", "ScaledTanh"):
            alpha, beta = (self.number(f"{name}_{key}", value) for key, value in parameters.items())
            if function == "Affine":
                return self.e.op("Add", [self.e.op("Mul", [x, alpha], f"{name}_scaled"), beta], name)
            return self.e.op(
                "Mul", [self.e.op("Tanh", [self.e.op("Mul", [x, beta], f"{name}_scaled")], f"{name}_tanh"), alpha], name
            )
        return self.e.op(function, [x], name, **parameters)

    # ---- unrolling --------------------------------------------------------------------------------------------------
    def unroll(self) -> None:
        x = self.node.input[0]
        if self.batch_first:
            x = self.e.op("Transpose", [x], "steps_first", perm=[1, 0, 2])
        direction = self.attributes.get("direction", b"forward").decode()
        orders = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}.get(direction)
        if orders is None or len(orders) != self.directions:
            raise ModelError(
                "the direction of a recurrent layer does not fit its weights",
                where=self.where,
                available=f"direction {direction!r}, weights for {self.directions}",
                remedy="export the model again; the file does not follow ONNX",
            )
        ends = [self._direction(x, d, backward) for d, backward in enumerate(orders)]
        self._outputs(ends)

    def _direction(self, x: str, d: int, backward: bool) -> tuple[dict[int, str], str, str | None]:
        """Outputs by step, last state and last cell of one direction."""
        tag = "" if d == 0 else "reverse_"
        gates = _GATES[self.kind] * self.hidden
        bias = np.zeros((2, gates), np.float32) if self.bias is None else self.bias[d].reshape(2, gates)
        apart = self.kind == "GRU" and bool(
            self.attributes.get("linear_before_reset", 0)
        )  # then the bias of the new state's product is inside the reset
        joined = bias.sum(0)
        if apart:
            joined[2 * self.hidden :] = bias[0, 2 * self.hidden :]
        products = self.e.op(
            "MatMul", [x, self.e.constant(f"{tag}W", np.ascontiguousarray(self.w[d].T))], f"{tag}input_products"
        )
        products = self.e.op(
            "Add", [products, self.e.constant(f"{tag}B", joined.astype(np.float32))], f"{tag}input_products_bias"
        )
        cell_of = {"LSTM": self._lstm, "GRU": self._gru, "RNN": self._rnn}[self.kind](d, tag, bias)
        state, cell = self._initial(5, d, f"{tag}h0"), self._initial(6, d, f"{tag}c0") if self.kind == "LSTM" else None
        outputs: dict[int, str] = {}
        for t in reversed(range(self.steps)) if backward else range(self.steps):
            valid = self._valid(t)
            if valid is not None and not valid.any():
                outputs[t] = self.e.constant(f"{tag}step{t}_zero", np.zeros((self.batch, self.hidden), np.float32))
                continue
            step = f"{tag}step{t}"
            inputs = self.e.op(
                "Gather", [products, self.e.constant(f"{tag}t{t}", np.array(t, np.int64))], f"{step}_x", axis=0
            )
            before = state, cell
            state, cell = cell_of(inputs, state, cell, step)
            outputs[t] = state
            if valid is not None and not valid.all():
                outputs[t], state, cell = self._held(valid, before, (state, cell), step)
        zero = np.zeros((self.batch, self.hidden), np.float32)
        return (
            outputs,
            state or self.e.constant(f"{tag}no_state", zero),
            cell or (self.e.constant(f"{tag}no_cell", zero) if self.kind == "LSTM" else None),
        )

    def _initial(self, index: int, d: int, name: str) -> str | None:
        """Initial state [D,N,H] (batch first: [N,D,H]) as [N,H]; None when absent (zeros)."""
        given = self.present(index)
        return given and self.e.op(
            "Gather",
            [given, self.e.constant(f"{name}_index", np.array(d, np.int64))],
            name,
            axis=1 if self.batch_first else 0,
        )

    def _valid(self, t: int) -> np.ndarray | None:
        """[N]: whose sequence has a step t; None where all have."""
        return None if self.lengths is None else t < np.broadcast_to(self.lengths.reshape(-1), (self.batch,))

    def _held(self, valid: np.ndarray, before, after, step: str) -> tuple[str, str, str | None]:
        """Where a sequence has ended the output is 0 and state and cell stay."""
        runs, held = (
            self.e.constant(f"{step}_{name}", v.astype(np.float32)[:, None])
            for name, v in (("runs", valid), ("held", ~valid))
        )
        output, kept = self.e.op("Mul", [after[0], runs], f"{step}_output"), []
        for name, old, new in zip(("state", "cell"), before, after):
            now = new and (output if name == "state" else self.e.op("Mul", [new, runs], f"{step}_{name}_runs"))
            kept.append(
                now
                and old
                and self.e.op("Add", [now, self.e.op("Mul", [old, held], f"{step}_{name}_old")], f"{step}_{name}_held")
                or now
            )
        return output, *kept

    def _recurrent(self, state: str | None, weight: str, inputs: str, step: str, name: str = "gates") -> str:
        """The state's product, added to ``inputs``."""
        if state is None:
            return inputs
        return self.e.op(
            "Add",
            [inputs, self.e.op("MatMul", [state, weight], f"{step}_h" if name == "gates" else f"{step}_{name}_h")],
            f"{step}_{name}",
        )

    def _weight(self, d: int, name: str, begin: int = 0, end: int | None = None) -> str:
        rows = self.r[d][begin * self.hidden : None if end is None else end * self.hidden]
        return self.e.constant(name, np.ascontiguousarray(rows.T))

    def _lstm(self, d: int, tag: str, bias: np.ndarray) -> Callable:
        """Gates i, o, f, c; peepholes i, o, f."""
        e, weight = self.e, self._weight(d, f"{tag}R")
        peep = (
            {}
            if self.peepholes is None
            else {g: e.constant(f"{tag}P{g}", p) for g, p in zip("iof", self.peepholes[d].reshape(3, self.hidden))}
        )

        def gate(gates: str, k: int, which: int, cell: str | None, step: str) -> str:
            letter = "iofc"[k]
            x = self.part(gates, k, f"{step}_{letter}_part")
            if letter in peep and cell is not None:
                x = e.op(
                    "Add", [x, e.op("Mul", [cell, peep[letter]], f"{step}_{letter}_seen")], f"{step}_{letter}_peephole"
                )
            return self.activation(x, which, d, f"{step}_{letter}")

        def cell_of(inputs: str, state: str | None, cell: str | None, step: str) -> tuple[str, str]:
            gates = self._recurrent(state, weight, inputs, step)
            i, c = gate(gates, 0, 0, cell, step), gate(gates, 3, 1, cell, step)
            new = e.op("Mul", [i, c], f"{step}_new")
            if cell is not None:
                f = (
                    e.op("Sub", [self.number(f"{step}_one", 1), i], f"{step}_f")
                    if self.attributes.get("input_forget", 0)
                    else gate(gates, 2, 0, cell, step)
                )
                new = e.op("Add", [e.op("Mul", [f, cell], f"{step}_kept"), new], f"{step}_cell")
            o = gate(gates, 1, 0, new, step)
            return e.op("Mul", [o, self._without_clip(new, d, f"{step}_tanh")], f"{step}_state"), new

        return cell_of

    def _without_clip(self, cell: str, d: int, name: str) -> str:
        kept, self.clip = self.clip, 0.0
        made = self.activation(cell, 2, d, name)
        self.clip = kept
        return made

    def _gru(self, d: int, tag: str, bias: np.ndarray) -> Callable:
        """Gates z, r, h; the new state is h + z * (state - h)."""
        e, hidden, after = self.e, self.hidden, bool(self.attributes.get("linear_before_reset", 0))
        weight = self._weight(d, f"{tag}R", 0, 3 if after else 2)
        new_weight = None if after else self._weight(d, f"{tag}Rh", 2, 3)
        inner = np.concatenate([np.zeros(2 * hidden, np.float32), bias[1, 2 * hidden :]])
        inner_bias = e.constant(f"{tag}Rb", inner) if after else None

        def cell_of(inputs: str, state: str | None, cell: None, step: str) -> tuple[str, None]:
            parts = [self.part(inputs, k, f"{step}_{letter}_x") for k, letter in enumerate("zrh")]
            if state is not None:
                product = e.op("MatMul", [state, weight], f"{step}_h")
                product = e.op("Add", [product, inner_bias], f"{step}_h_bias") if after else product
                parts[:2] = [
                    e.op("Add", [p, self.part(product, k, f"{step}_{g}_h")], f"{step}_{g}_gate")
                    for k, (g, p) in enumerate(zip("zr", parts))
                ]
            z, r, new = self.activation(parts[0], 0, d, f"{step}_z"), "", parts[2]
            if after or state is not None:
                r = self.activation(parts[1], 0, d, f"{step}_r")
            if after:
                product = (
                    e.constant(f"{step}_Rbh", inner[2 * hidden :])
                    if state is None
                    else self.part(product, 2, f"{step}_new_h")
                )
                new = e.op("Add", [new, e.op("Mul", [r, product], f"{step}_reset")], f"{step}_new_gate")
            elif state is not None:
                new = self._recurrent(e.op("Mul", [r, state], f"{step}_reset"), new_weight, new, step, "new_gate")
            new = self.activation(new, 1, d, f"{step}_new")
            change = new if state is None else e.op("Sub", [new, state], f"{step}_change")
            return e.op("Sub", [new, e.op("Mul", [z, change], f"{step}_kept")], f"{step}_state"), None

        return cell_of

    def _rnn(self, d: int, tag: str, bias: np.ndarray) -> Callable:
        weight = self._weight(d, f"{tag}R")

        def cell_of(inputs: str, state: str | None, cell: None, step: str) -> tuple[str, None]:
            return self.activation(self._recurrent(state, weight, inputs, step), 0, d, f"{step}_state"), None

        return cell_of

    # ---- outputs ----------------------------------------------------------------------------------------------------
    def _outputs(self, ends: list[tuple[dict[int, str], str, str | None]]) -> None:
        """Y [T,D,N,H] (batch first [N,T,D,H]), Y_h and Y_c [D,N,H] (batch first [N,D,H])."""
        names = [*self.node.output, "", "", ""][:3]
        if names[0]:
            along = []
            for d, (outputs, _, _) in enumerate(ends):
                parts = [self.unsqueeze(outputs[t], 0, f"d{d}_step{t}_y") for t in sorted(outputs)]
                stacked = parts[0] if len(parts) == 1 else self.e.op("Concat", parts, f"Y_d{d}", axis=0)
                along.append(self.unsqueeze(stacked, 1, f"Y_d{d}_direction"))
            self._joined(along, 1, "Y", names[0], [2, 0, 1, 3])
        for k, what in ((1, "h"), (2, "c")):
            if names[k] and ends[0][k] is not None:
                self._joined(
                    [self.unsqueeze(end[k], 0, f"Y_{what}_d{d}") for d, end in enumerate(ends)],
                    0,
                    f"Y_{what}",
                    names[k],
                    [1, 0, 2],
                )

    def _joined(self, parts: list[str], axis: int, name: str, output: str, batch_first: list[int]) -> None:
        """The directions as one tensor under the node's output name."""
        if not self.batch_first:
            self.e.op("Concat", parts, name, output, axis=axis)
            return
        self.e.op(
            "Transpose", [self.e.op("Concat", parts, name, axis=axis)], f"{name}_batch_first", output, perm=batch_first
        )
