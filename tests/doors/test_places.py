"""Operators that take places from data, on the host: valid places, negative ones too, as ONNX Runtime has them; others
wrap around the axis, so that nothing beside the tensor is read or written."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from tvm import relax

import tvm_ergo
from tvm_ergo import frontend
from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.relay_passes.interpreter import Interpreter

F, I = TensorProto.FLOAT, TensorProto.INT64
X, I64 = (3, 4), np.int64


def model(op: str, places_shape, output_shape, updates_shape=None, **attributes):
    inputs = [helper.make_tensor_value_info("x", F, X), helper.make_tensor_value_info("at", I, places_shape)]
    if updates_shape is not None:
        inputs.append(helper.make_tensor_value_info("up", F, updates_shape))
    node = helper.make_node(op, [i.name for i in inputs], ["y"], **attributes)
    output = helper.make_tensor_value_info("y", F, output_shape)
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(helper.make_graph([node], "g", inputs, [output]), opset_imports=opsets, ir_version=8)


CASES = {
    "ScatterND": (model("ScatterND", (2, 2), X, (2,)), [[0, -1], [-3, 2]], [[3, 4], [-4, -5]], [[0, 0], [2, 3]]),
    "ScatterND, rows": (model("ScatterND", (2, 1), X, (2, 4)), [[-1], [1]], [[4], [-9]], [[1], [0]]),
    "ScatterND, add": (
        model("ScatterND", (2, 2), X, (2,), reduction="add"),
        [[0, 0], [2, -4]],
        [[0, 4], [100, 0]],
        [[0, 0], [1, 0]],
    ),
    "ScatterElements": (
        model("ScatterElements", (1, 4), X, (1, 4), axis=0),
        [[0, -1, 2, -3]],
        [[3, 0, -4, 1]],
        [[0, 0, 2, 1]],
    ),
    "ScatterElements, axis 1": (
        model("ScatterElements", (3, 1), X, (3, 1), axis=1, reduction="max"),
        [[0], [-1], [3]],
        [[4], [-5], [1 << 40]],
        [[0], [3], [0]],
    ),
    "GatherND": (model("GatherND", (2, 2), (2,)), [[0, -1], [-3, 2]], [[3, 4], [-4, -5]], [[0, 0], [2, 3]]),
    "GatherND, batched": (
        model("GatherND", (3, 1), (3,), batch_dims=1),
        [[0], [-1], [3]],
        [[4], [-5], [9]],
        [[0], [3], [1]],
    ),
    "GatherElements": (
        model("GatherElements", (2, 4), (2, 4)),
        [[0, -1, 2, -3]] * 2,
        [[3, 0, -4, 1]] * 2,
        [[0, 0, 2, 1]] * 2,
    ),
}


def feeds(case, places) -> dict[str, np.ndarray]:
    rng, found = np.random.default_rng(0), {}
    for value in case.graph.input:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        found[value.name] = rng.normal(size=shape).astype(np.float32)
    return {**found, "at": np.array(places, I64)}


@pytest.mark.parametrize("name", CASES)
def test_places_from_data(name):
    case, valid, wrong, inside = CASES[name]
    reference = onnxruntime.InferenceSession(case.SerializeToString(), providers=["CPUExecutionProvider"])
    imported = frontend.load(case)
    on_cpu, by_numpy = build_cpu(imported.mod), Interpreter(imported.mod)

    def runs(places):
        given = feeds(case, places)
        names = dict(zip(imported.parameters, given.values(), strict=True))
        return on_cpu(*given.values())[0], np.asarray(next(iter(_outputs(by_numpy.run(names)))))

    expected = reference.run(None, feeds(case, valid))[0]
    wrapped = reference.run(None, feeds(case, inside))[0]
    for places, want in ((valid, expected), (wrong, wrapped)):
        for found in runs(places):
            np.testing.assert_array_equal(found, want)


def _outputs(result):
    return result.values() if isinstance(result, dict) else result if isinstance(result, (list, tuple)) else [result]


def test_a_compiled_model_does_the_same():
    case, valid, wrong, inside = CASES["ScatterND"]
    compiled = tvm_ergo.compile(case, calibration=feeds(case, valid))
    good, bad, same = (compiled.run(feeds(case, places)).outputs["y"] for places in (valid, wrong, inside))
    np.testing.assert_array_equal(bad, same)
    assert not np.array_equal(good, bad)


def one_call(build, *parameters) -> relax.Function:
    builder = relax.BlockBuilder()
    with builder.function("main", list(parameters)):
        with builder.dataflow():
            out = builder.emit_output(build(*parameters))
        builder.emit_func_output(out)
    return builder.get()


def test_what_other_doors_bring():
    """PyTorch's indexing, turned sequences, regions of pictures."""
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    var = relax.Var("x", relax.TensorType((3, 4), "float32"))
    rows, columns = (relax.Var(n, relax.TensorType((2,), "int64")) for n in "rc")
    run = build_cpu(one_call(lambda x, r, c: relax.op.index_tensor(x, relax.Tuple([r, c])), var, rows, columns))
    for r, c, want in (([0, -1], [3, -4], [3, 8]), ([3, -4], [4, -5], [0, 11])):
        np.testing.assert_array_equal(run(x, np.array(r, I64), np.array(c, I64))[0], np.float32(want))
    up = relax.Var("u", relax.TensorType((2,), "float32"))
    put = build_cpu(one_call(lambda x, r, c, u: relax.op.index_put(x, (r, c), u), var, rows, columns, up))
    found = put(x, np.array([0, 7], I64), np.array([-1, 9], I64), np.float32([50, 60]))[0]
    want = x.copy()
    want[0, 3], want[1, 1] = 50, 60
    np.testing.assert_array_equal(found, want)
    small = relax.Var("r", relax.TensorType((2,), "int8"))
    taken = build_cpu(one_call(lambda x, r: relax.op.index_tensor(x, relax.Tuple([r])), var, small))
    np.testing.assert_array_equal(taken(x, np.array([-128, 127], np.int8))[0], x[[-128 % 3, 127 % 3]])


def test_lengths_and_regions():
    x, lengths = relax.Var("x", relax.TensorType((4, 2), "float32")), relax.Var("n", relax.TensorType((2,), "int64"))
    turned = build_cpu(one_call(lambda x, n: relax.op.reverse_sequence(x, n, 0, 1), x, lengths))
    data = np.arange(8, dtype=np.float32).reshape(4, 2)
    np.testing.assert_array_equal(turned(data, np.array([4, 2], I64))[0], np.float32([[6, 3], [4, 1], [2, 5], [0, 7]]))
    np.testing.assert_array_equal(turned(data, np.array([5, -1], I64))[0], turned(data, np.array([4, 0], I64))[0])
    pictures = relax.Var("x", relax.TensorType((2, 1, 4, 4), "float32"))
    regions = relax.Var("r", relax.TensorType((2, 5), "float32"))
    aligned = build_cpu(
        one_call(lambda x, r: relax.op.vision.roi_align(x, r, (2, 2), 1.0, sample_ratio=1), pictures, regions)
    )
    data = np.arange(32, dtype=np.float32).reshape(2, 1, 4, 4)
    beyond, there = (np.float32([[a, 0, 0, 3, 3], [b, 1, 1, 2, 2]]) for a, b in ((2, -1), (1, 0)))
    np.testing.assert_array_equal(aligned(data, beyond)[0], aligned(data, there)[0])
