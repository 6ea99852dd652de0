"""Small ONNX networks with a softmax behind a mask, spelled in every way exporters spell one; inputs, and ONNX
Runtime's results."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROWS, LENGTH = 5, 7
TYPES = {"float": TensorProto.FLOAT, "int": TensorProto.INT64, "bool": TensorProto.BOOL, "additive": TensorProto.FLOAT}


class Net:
    """Scores ``s`` [1, ROWS, LENGTH] from an input x, a mask input m [1, LENGTH], and ``t`` for the softmax."""

    def __init__(self, kind: str, c: float):
        self.nodes, self.constants, self.kind, self.c = [], {}, kind, c

    def n(self, op: str, inputs: str, output: str, **attributes) -> str:
        self.nodes.append(helper.make_node(op, inputs.split(), [output], **attributes))
        return output

    def k(self, value, name: str, dtype=np.float32) -> str:
        self.constants[name] = np.asarray(value, dtype)
        return name

    def kept(self) -> str:
        """1 where an entry stays, float [1, LENGTH]."""
        return "m" if self.kind == "float" else self.n("Cast", "m", "mf", to=TensorProto.FLOAT)

    def ext(self) -> str:
        """(1 - m) * c."""
        self.n("Sub", f"{self.k(1, 'one')} {self.kept()}", "inv")
        return self.n("Mul", f"inv {self.k(self.c, 'c')}", "ext")

    def truth(self) -> str:
        """true where an entry stays."""
        return (
            "m"
            if self.kind == "bool"
            else self.n("Greater", f"m {self.k(0, 'zero', np.float32 if self.kind == 'float' else np.int64)}", "mb")
        )

    def model(self, t: str = "t") -> onnx.ModelProto:
        rng = np.random.default_rng(7)
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["s"]),
            *self.nodes,
            helper.make_node("Softmax", [t], ["p"], axis=-1),
        ]
        constants = {"w": rng.normal(size=(6, LENGTH)).astype(np.float32), **self.constants}
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, ROWS, 6])]
        if any("m" in node.input for node in nodes):
            inputs.append(helper.make_tensor_value_info("m", TYPES[self.kind], [1, LENGTH]))
        graph = helper.make_graph(
            nodes,
            "g",
            inputs,
            [helper.make_tensor_value_info("p", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(v, k) for k, v in constants.items()],
        )
        return onnx.shape_inference.infer_shapes(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        )


def added(net):
    net.n("Add", f"s {net.ext()}", "t")


def added_left(net):
    net.n("Add", f"{net.ext()} s", "t")


def subtracted(net):
    net.n("Sub", f"{net.k(1, 'one')} {net.kept()}", "inv")
    net.n("Sub", f"s {net.n('Mul', f'inv {net.k(-net.c, chr(99))}', 'ext')}", "t")


def one_less(net):
    net.n("Sub", f"{net.kept()} {net.k(1, 'one')}", "inv")
    net.n("Add", f"s {net.n('Mul', f'inv {net.k(-net.c, chr(99))}', 'ext')}", "t")


def expanded(net):
    net.n("Unsqueeze", f"{net.ext()} {net.k([1], 'a', np.int64)}", "e3")
    net.n("Add", f"s {net.n('Expand', f'e3 {net.k([1, ROWS, LENGTH], chr(115) + chr(104), np.int64)}', 'e')}", "t")


def scaled_behind(net):
    net.n("Add", f"s {net.ext()}", "u")
    net.n("Mul", f"u {net.k(0.5, 'half')}", "t")


def where(net):
    net.n("Where", f"{net.truth()} s {net.k(net.c, 'c')}", "t")


def where_not(net):
    net.n("Where", f"{net.n('Not', net.truth(), 'pad')} {net.k(net.c, 'c')} s", "t")


def where_added(net):
    net.n("Add", f"s {net.n('Where', f'{net.truth()} {net.k(0, chr(122))} {net.k(net.c, chr(99))}', 'e')}", "t")


def with_causal(net):
    causal = np.triu(np.full((ROWS, LENGTH), net.c, np.float32), 3)
    causal[np.tril_indices(ROWS, 2, LENGTH)] = 0
    net.n("Add", f"s {net.k(causal, 'causal')}", "u")
    net.n("Add", f"u {net.ext()}", "t")


def masks_first(net):
    causal = np.triu(np.full((ROWS, LENGTH), net.c, np.float32), 3)
    causal[np.tril_indices(ROWS, 2, LENGTH)] = 0
    net.n("Add", f"{net.ext()} {net.k(causal, 'causal')}", "u")
    net.n("Add", "s u", "t")


def multiplied(net):
    net.n("Mul", f"s {net.kept()}", "sm")
    net.n("Sub", f"{net.k(1, 'one')} {net.kept()}" if net.kind == "float" else f"{net.k(1, 'one')} mf", "inv")
    net.n("Add", f"sm {net.n('Mul', f'inv {net.k(net.c, chr(99))}', 'ext')}", "t")


def product_of_masks(net):
    net.n("Mul", f"{net.kept()} {net.k([[1] * (LENGTH - 1) + [0]], 'last')}", "both")
    net.n("Sub", f"{net.k(1, 'one')} both", "inv")
    net.n("Add", f"s {net.n('Mul', f'inv {net.k(net.c, chr(99))}', 'ext')}", "t")


def logarithm(net):
    net.n("Add", f"s {net.n('Log', net.kept(), 'e')}", "t")


def given(net):
    net.n("Add", "s m", "t")


def given_scaled(net):
    net.n("Add", f"s {net.n('Mul', f'm {net.k(2, chr(50))}', 'm2')}", "t")


def constant(net):
    mask = np.zeros((1, LENGTH), np.float32)
    mask[0, 4:] = net.c
    net.n("Add", f"s {net.k(mask, 'mask')}", "t")


def constant_where(net):
    net.n("Where", f"{net.k([[True] * 4 + [False] * 3], 'mask', bool)} s {net.k(net.c, 'c')}", "t")


def padded(net):
    net.n("Pad", f"s {net.k([0, 0, 0, 0, 0, 3], 'pads', np.int64)} {net.k(net.c, 'c')}", "t")


def joined(net):
    net.n("Concat", f"s {net.k(np.full((1, ROWS, 2), net.c), 'c')}", "t", axis=-1)


COMPUTED = (
    added,
    added_left,
    subtracted,
    one_less,
    expanded,
    scaled_behind,
    where,
    where_not,
    where_added,
    with_causal,
    masks_first,
    multiplied,
    product_of_masks,
)
CONSTANT = (constant, constant_where, padded, joined)


def samples(net: Net, count: int, pad: bool, seed: int) -> list[dict[str, np.ndarray]]:
    """Inputs by name. pad : each hides one to four entries at the end; else none does."""
    rng, found = np.random.default_rng(seed), []
    asked = any("m" in node.input for node in net.nodes)
    for i in range(count):
        kept = np.ones((1, LENGTH), bool)
        kept[0, LENGTH - (1 + i % 4 if pad else 0) :] = False
        mask = {
            "float": kept.astype(np.float32),
            "int": kept.astype(np.int64),
            "bool": kept,
            "additive": np.where(kept, np.float32(0), np.float32(net.c)),
        }[net.kind]
        found.append({"x": rng.normal(size=(1, ROWS, 6)).astype(np.float32), **({"m": mask} if asked else {})})
    return found
