"""Small ONNX models, what ONNX Runtime makes of them, and what the frontend and the macro passes make of them."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tvm_ergo.frontend import load
from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.macro import normalize

F = np.float32


def node(op, inputs, outputs="y", **attributes):
    """Names are given as one text, separated by blanks; "-" is an absent input."""
    names = ["" if n == "-" else n for n in inputs.split()]
    return helper.make_node(op, names, outputs.split(), **attributes)


def model(nodes, constants, inputs, outputs=("y",), opset=18, domains=()):
    """inputs: {name: array or (dtype, shape)}; outputs are declared without a shape."""
    kinds = {n: (v.dtype, v.shape) if isinstance(v, np.ndarray) else v for n, v in inputs.items()}
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(np.dtype(t)), s)
            for n, (t, s) in kinds.items()
        ],
        [onnx.ValueInfoProto(name=n) for n in outputs],
        [
            v if isinstance(v, onnx.TensorProto) else numpy_helper.from_array(np.asarray(v), n)
            for n, v in constants.items()
        ],
    )
    made = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)],
        ir_version=4 if opset < 10 else 10,
    )
    made = onnx.shape_inference.infer_shapes(made)
    for output in made.graph.output:  # ONNX infers nothing behind operators of other domains and some old ones
        if not output.type.HasField("tensor_type"):
            output.type.CopyFrom(helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None))
    return made


def reference(made, feeds) -> list:
    """ONNX Runtime's outputs, its graph optimizations off."""
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    ort.set_default_logger_severity(4)
    return ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feeds)


def evaluated(made, feeds) -> list:
    """The outputs of the imported model in normal form, evaluated in NumPy."""
    imported = load(made)
    inputs = {p: feeds[i.name] for p, i in zip(imported.parameters, imported.inputs)}
    return evaluate(normalize(imported.mod), inputs)


def assert_same(made, feeds, rtol=1e-4, atol=1e-5) -> None:
    """Both agree: shapes, element types, values."""
    for got, want in zip(evaluated(made, feeds), reference(made, feeds), strict=True):
        assert got.shape == want.shape and got.dtype == want.dtype, (got.dtype, got.shape, want.dtype, want.shape)
        np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)
