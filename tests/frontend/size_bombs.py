"""Small ONNX files that name large tensors, one for every way in which a size arises. Run as a program, it imports each
within 3 GiB of new address space and prints the errors."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

GIB = 1 << 30
N = 1 << 33  # elements: 32 GiB of float32
F, I = TensorProto.FLOAT, TensorProto.INT64


def net(*nodes, values=None, x=(1, 4), opset=17, functions=(), more_inputs=()) -> onnx.ModelProto:
    """A model from input x to output y. values : arrays of initializers by name."""
    inits = [numpy_helper.from_array(np.asarray(v), k) for k, v in (values or {}).items()]
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", F, x), *more_inputs],
        [helper.make_tensor_value_info("y", F, None)],
        inits,
    )
    opsets = [helper.make_opsetid("", opset)] + [helper.make_opsetid("local", 1)] * bool(functions)
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=list(functions))


def node(op, inputs, output="y", **attributes):
    return helper.make_node(op, inputs.split(), output.split(), **attributes)


def i64(*numbers):
    return np.array(numbers, np.int64)


def bombs() -> dict[str, onnx.ModelProto]:
    one = np.ones((1, 1, 2, 2), np.float32)
    scalar = np.float32(1)
    found = {
        "ConstantOfShape": net(node("ConstantOfShape", "s", "c"), node("Add", "x c"), values={"s": i64(N)}),
        "ConstantOfShape overflows": net(
            node("ConstantOfShape", "s", "c"), node("Add", "x c"), values={"s": i64(1 << 62, 8)}
        ),
        "Expand of a constant": net(
            node("Expand", "c s", "e"), node("Add", "x e"), values={"c": scalar, "s": i64(1 << 16, 1 << 17)}
        ),
        "Expand of the input": net(node("Expand", "x s"), values={"s": i64(N // 4, 4)}),
        "Range": net(
            node("Range", "a b d", "r"),
            node("Cast", "r", "f", to=F),
            node("Add", "x f"),
            values={"a": np.int64(0), "b": np.int64(N), "d": np.int64(1)},
        ),
        "Range that inference carries along": net(
            node("Range", "a b d", "r"),
            node("Cast", "r", "f", to=F),
            node("Add", "x f"),
            values={"a": np.int64(0), "b": np.int64(1 << 26), "d": np.int64(1)},
        ),
        "Range of floats": net(
            node("Range", "a b d", "r"),
            node("ReduceSum", "r", "f"),
            node("Add", "x f"),
            values={"a": scalar, "b": np.float32(4e9), "d": np.float32(1)},
        ),
        "Tile of a constant": net(
            node("Tile", "c r", "t"), node("Add", "x t"), values={"c": np.ones((1, 4), np.float32), "r": i64(N // 4, 1)}
        ),
        "Tile of the input": net(node("Tile", "x r"), values={"r": i64(N // 4, 1)}),
        "Pad": net(node("Pad", "x p"), values={"p": i64(0, 0, N, 0)}),
        "Pad of a constant": net(
            node("Pad", "c p", "d"), node("Add", "x d"), values={"c": np.ones(4, np.float32), "p": i64(0, N)}
        ),
        "Pad, old": net(node("Pad", "x", pads=[0, 0, N, 0]), opset=9),
        "Resize by scales": net(
            helper.make_node("Resize", ["x", "", "s"], ["y"]),
            values={"s": np.float32([1, 1, 4e4, 4e4])},
            x=(1, 1, 2, 2),
        ),
        "Resize by sizes": net(
            helper.make_node("Resize", ["x", "", "", "s"], ["y"]),
            values={"s": i64(1, 1, 1 << 16, 1 << 17)},
            x=(1, 1, 2, 2),
        ),
        "Resize of a constant": net(
            helper.make_node("Resize", ["c", "", "", "s"], ["r"]),
            node("Add", "x r"),
            values={"c": one, "s": i64(1, 1, 1 << 16, 1 << 17)},
            x=(1, 1, 2, 2),
        ),
        "Resize along one axis": net(
            helper.make_node("Resize", ["x", "", "", "s"], ["y"], mode="linear"),
            values={"s": i64(1, 1, 1, 1 << 17)},
            x=(1, 1, 1, 1 << 16),
        ),
        "Upsample": net(node("Upsample", "x s"), values={"s": np.float32([1, 1, 4e4, 4e4])}, x=(1, 1, 2, 2), opset=9),
        "OneHot": net(
            node("Cast", "x", "i", to=I), node("OneHot", "i d v"), values={"d": np.int64(N), "v": np.float32([0, 1])}
        ),
        "EyeLike": net(
            node("ConstantOfShape", "s", "c"),
            node("EyeLike", "c", "e"),
            node("Add", "x e"),
            values={"s": i64(1 << 16, 1 << 16)},
        ),
        "Conv, padded": net(node("Conv", "x w", pads=[1 << 17, 1 << 15, 0, 0]), values={"w": one}, x=(1, 1, 2, 2)),
        "ConvTranspose, shape": net(
            node("ConvTranspose", "x w", output_shape=[1 << 16, 1 << 17]), values={"w": one}, x=(1, 1, 2, 2)
        ),
        "ConvTranspose, strides": net(
            node("ConvTranspose", "x w", strides=[1 << 17, 1 << 17]), values={"w": one}, x=(1, 1, 2, 2)
        ),
        "MaxPool, padded": net(
            node("MaxPool", "x", kernel_shape=[1 << 17, 1 << 17], pads=[(1 << 17) - 1] * 4), x=(1, 1, 2, 2)
        ),
        "RandomNormal": net(node("RandomNormal", "", "c", shape=[N]), node("Add", "x c")),
        "RandomUniform": net(node("RandomUniform", "", "c", shape=[N]), node("Add", "x c")),
        "HannWindow": net(node("HannWindow", "n", "c"), node("Add", "x c"), values={"n": np.int64(N)}),
        "MelWeightMatrix": net(
            node("MelWeightMatrix", "a b r l u", "c"),
            node("ReduceSum", "c", "d"),
            node("Add", "x d"),
            values={
                "a": np.int64(1 << 17),
                "b": np.int64(1 << 18),
                "r": np.int64(16000),
                "l": scalar,
                "u": np.float32(8000),
            },
        ),
        "CenterCropPad": net(node("CenterCropPad", "x s"), values={"s": i64(1, N)}, opset=18),
        "AffineGrid": net(node("AffineGrid", "x s"), values={"s": i64(1, 1, 1 << 16, 1 << 16)}, x=(1, 2, 3), opset=20),
        "an input": net(node("Relu", "x"), x=(1, N)),
        "an input, overflowing": net(node("Relu", "x"), x=(1 << 40, 1 << 40)),
        "LSTM, steps": net(
            node("LSTM", "x w r", "y", hidden_size=1),
            values={"w": np.ones((1, 4, 1), np.float32), "r": np.ones((1, 4, 1), np.float32)},
            x=(1 << 27, 1, 1),
        ),
        "a sum of many": net(
            *[node("Expand", "x s", f"e{i}") for i in range(9)],
            node("Concat", " ".join(f"e{i}" for i in range(9)), axis=0),
            values={"s": i64(GIB // 32, 4)},
        ),
        "twice itself": net(
            *[
                node("Concat", f"{'x' if i == 0 else f'c{i}'} {'x' if i == 0 else f'c{i}'}", f"c{i + 1}", axis=0)
                for i in range(31)
            ],
            node("Relu", "c31"),
        ),
        "a chain of shapes": net(
            node("Shape", "x", "s"),
            node("Mul", "s k", "t"),
            node("Expand", "x t"),
            values={"k": i64(1 << 16, 1 << 15)},
            x=(1, 1),
        ),
        "a constant's dims": net(
            helper.make_node(
                "Constant",
                [],
                ["c"],
                sparse_value=helper.make_sparse_tensor(
                    helper.make_tensor("v", F, [1], [1.0]), helper.make_tensor("i", I, [1], [0]), [1 << 17, 1 << 16]
                ),
            ),
            node("Add", "x c"),
        ),
        "an If": net(
            helper.make_node("If", ["c"], ["y"], then_branch=_branch("t"), else_branch=_branch("e")),
            values={"c": np.array(True)},
        ),
        "in a function": net(helper.make_node("Grow", ["x"], ["y"], domain="local"), functions=[_function(1 << 15)]),
    }
    for op in ("MatMul", "Add"):
        found[f"{op}, outer"] = net(
            *[node("ConstantOfShape", f"s{i}", f"c{i}") for i in range(2)],
            node(op, "c0 c1", "c"),
            node("Add", "x c"),
            values={"s0": i64(1 << 16, 1), "s1": i64(1, 1 << 16)},
        )
    found["functions that call each other"] = net(
        helper.make_node("f30", ["x"], ["y"], domain="local"), functions=_doubling(30)
    )
    return found


def _branch(name: str) -> onnx.GraphProto:
    grown = [node("ConstantOfShape", f"{name}n", f"{name}c"), node("Add", f"x {name}c", f"{name}z")]
    return helper.make_graph(
        grown,
        name,
        [],
        [helper.make_tensor_value_info(f"{name}z", F, None)],
        [numpy_helper.from_array(i64(N), f"{name}n")],
    )


def _function(times: int) -> onnx.FunctionProto:
    nodes = [helper.make_node("Constant", [], ["r"], value_ints=[times, times]), node("Tile", "a r", "b")]
    return helper.make_function("local", "Grow", ["a"], ["b"], nodes, [helper.make_opsetid("", 17)])


def _doubling(count: int) -> list[onnx.FunctionProto]:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    made = [helper.make_function("local", "f0", ["a"], ["b"], [node("Relu", "a", "b")], opsets)]
    for i in range(1, count + 1):
        inner = [
            helper.make_node(f"f{i - 1}", ["a"], ["m"], domain="local"),
            helper.make_node(f"f{i - 1}", ["m"], ["b"], domain="local"),
        ]
        made.append(helper.make_function("local", f"f{i}", ["a"], ["b"], inner, opsets))
    return made


if __name__ == "__main__":
    import json
    import resource
    import sys

    from tvm_ergo import frontend
    from tvm_ergo.target.errors import ErgoError

    cases = bombs()
    frontend.load(net(node("Relu", "x")))  # what importing itself takes is not counted
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 3 * GIB,) * 2)
    said = {}
    for name, model in cases.items():
        assert len(model.SerializeToString()) < 30_000, name
        print(name, file=sys.stderr, flush=True)
        try:
            frontend.load(model.SerializeToString())
            said[name] = "imported"
        except ErgoError as error:
            said[name] = f"{type(error).__name__}: {error}"
    print(json.dumps(said))
