"""Arrays that are right as files and wrong for the network: inputs of a run, calibration, values of states."""

from __future__ import annotations

import contextlib
import functools

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import tvm_ergo
from fuzz.engine import Target
from tvm_ergo.evaluation.tflite.builder import Graph, file_of

SHAPES = ((), (0,), (1,), (2,), (3, 0), (1, 3, 8, 8), (2, 3, 8, 8), (3, 8, 8), (1, 8, 8, 3), (1, 4), (1, 1, 1, 1, 1))
KINDS = ("float32", "float64", "float16", "int8", "uint8", "int64", "uint64", "bool", "U3", "S4", "complex64", ">f4")
VALUES = (0, 1, -1, 127, -129, 3e38, -3e38, 1e-40, np.inf, -np.inf, np.nan, 2.0**63, -(2.0**63))


def _network() -> bytes:
    """A picture to four scores."""
    weights = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["a"], strides=[2, 2]),
            helper.make_node("GlobalAveragePool", ["a"], ["b"]),
            helper.make_node("Flatten", ["b"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4))],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def _summing() -> bytes:
    """A state: the sum of all inputs there were."""
    graph, q = Graph(), (0.05, 3)
    graph.tensor("x", (1, 4), "int8", *q)
    graph.tensor("h", (), "resource")
    for name in ("old", "new", "y"):
        graph.tensor(name, (1, 4), "int8", *q)
    graph.op("VAR_HANDLE", [], ["h"], "VarHandleOptions", container="", shared_name="sum")
    graph.op("READ_VARIABLE", ["h"], ["old"], "ReadVariableOptions")
    graph.op("ADD", ["old", "x"], ["new"], "AddOptions", version=2)
    graph.op("ASSIGN_VARIABLE", ["h", "new"], [], "AssignVariableOptions")
    graph.op("RELU", ["new"], ["y"], version=2)
    return file_of(graph.ends(["x"], ["y"]))


@functools.cache
def models():
    pictures = np.random.default_rng(1).normal(size=(4, 3, 8, 8)).astype(np.float32)
    return _network(), tvm_ergo.compile(_network(), calibration=pictures), tvm_ergo.compile(_summing())


def seeds() -> list[tuple[str, dict]]:
    compiled, summing = models()[1:]
    pictures = np.random.default_rng(2).normal(size=(3, 3, 8, 8)).astype(np.float32)
    (state,) = summing.state
    return [
        ("run", {"x": pictures[:1]}),
        ("calibrate", {"x": pictures}),
        ("state", dict(summing.state)),
        ("step", {"x": np.int8([[1, 2, 3, 4]]), state: summing.state[state]}),
    ]


def _other(rng, array):
    array = np.array(array)
    kind = rng.randrange(6)
    if kind == 0:
        array = np.resize(array, rng.choice(SHAPES))
    elif kind == 1:
        with np.errstate(all="ignore"), contextlib.suppress(OverflowError, ValueError):
            array = array.astype(rng.choice(KINDS))
    elif kind == 2 and array.size and array.dtype.kind in "fiu":
        with np.errstate(all="ignore"), contextlib.suppress(OverflowError, ValueError):
            array.reshape(-1)[rng.randrange(array.size)] = np.array(rng.choice(VALUES)).astype(array.dtype)
    elif kind == 3:
        array = array[:: rng.choice((-1, 2))] if array.ndim else array
    elif kind == 4:
        array = np.moveaxis(array, 0, -1) if array.ndim else array[None]
    else:
        array = array[: rng.randrange(3)] if array.ndim else array
    return array


def change(rng, seed, other):
    what, arrays = seed[0], dict(seed[1])
    for _ in range(rng.choice((1, 1, 2, 3))):
        name = rng.choice(list(arrays) or ["x"])
        kind = rng.random()
        if kind < 0.08:
            arrays.pop(name, None)
        elif kind < 0.16:
            arrays[rng.choice(("", "x", "y", "z", "\x1b[31m", "before"))] = arrays.get(name, np.zeros(1))
        elif name in arrays:
            arrays[name] = _other(rng, arrays[name])
    return what, arrays


def run(made) -> None:
    what, arrays = made
    network, compiled, summing = models()
    if what == "run":
        compiled.run(arrays)
    elif what == "calibrate":
        tvm_ergo.compile(network, calibration=arrays)
    elif what == "state":
        summing.set_state(arrays)
        summing.run({"x": np.int8([[1, 2, 3, 4]])})
    else:
        summing.run(arrays)


def _saved(made) -> bytes:
    return repr(
        (made[0], {name: (a.dtype.str, a.shape, a.ravel()[:200].tolist()) for name, a in made[1].items()})
    ).encode()


TARGET = Target(seeds, change, run, save=_saved)
