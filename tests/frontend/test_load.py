"""``load``: formats, names, decompositions, and errors that say what to do."""

import lzma

import numpy as np
import onnx
import pytest
import tvm
from onnx import TensorProto, helper, numpy_helper
from tvm import relax

from tvm_ergo.frontend import SourceFormat, load
from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.relax_utils import bindings_of, op_name
from tvm_ergo.target.errors import ModelError, UnsupportedError

RNG = np.random.default_rng(0)


def model(nodes, inputs: dict, constants: dict, outputs=("y",), opset: int = 13) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def conv_model(batch="N", weight=None) -> onnx.ModelProto:
    w = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32) if weight is None else weight
    return model(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["c"], name="stem/conv.0", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["y"]),
        ],
        {"x": [batch, 3, 8, 8]},
        {"w": w, "b": np.zeros(4, np.float32)},
    )


def check_against_onnx_runtime(proto: onnx.ModelProto, inputs: dict) -> None:
    ort = pytest.importorskip("onnxruntime")
    theirs = ort.InferenceSession(proto.SerializeToString()).run(None, inputs)
    mine = evaluate(load(proto).mod, inputs)
    assert len(mine) == len(theirs)
    for a, b in zip(mine, theirs):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_every_way_to_give_a_model(tmp_path):
    proto = conv_model()
    data = proto.SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data)
    (tmp_path / "m.onnx.xz").write_bytes(lzma.compress(data))
    for given in (proto, data, tmp_path / "m.onnx", str(tmp_path / "m.onnx.xz")):
        imported = load(given)
        assert imported.format is SourceFormat.ONNX
        assert [(t.name, t.shape, t.dtype) for t in imported.inputs] == [("x", (1, 3, 8, 8), "float32")]
        assert [(t.name, t.shape) for t in imported.outputs] == [("y", (1, 4, 8, 8))]
    again = load(imported.mod)
    assert again.format is SourceFormat.RELAX and again.inputs[0].shape == (1, 3, 8, 8)
    assert load(proto, batch=5).inputs[0].shape == (5, 3, 8, 8)


def test_values_are_named_after_nodes():
    names = [v.name for v, _ in bindings_of(load(conv_model()).mod["main"])]
    assert names == ["stem_conv_0_conv2d", "stem_conv_0_reshape", "stem_conv_0", "y"]


def test_clip_and_pad_stay_single_operators():
    proto = model(
        [
            helper.make_node("Pad", ["x", "p"], ["q"]),
            helper.make_node("Clip", ["q", "lo", "hi"], ["r"]),
            helper.make_node("Clip", ["r", "lo"], ["y"]),
        ],
        {"x": [1, 2, 4, 4]},
        {"p": np.array([0, 0, 1, 2, 0, 0, 3, 0]), "lo": np.float32(0), "hi": np.float32(6)},
    )
    assert [op_name(v) for _, v in bindings_of(load(proto).mod["main"])] == [
        "relax.nn.pad",
        "relax.clip",
        "relax.nn.relu",
    ]
    check_against_onnx_runtime(proto, {"x": RNG.normal(size=(1, 2, 4, 4)).astype(np.float32) * 5})


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("opset", [11, 13])
def test_lstm_is_unrolled(direction, states, opset):
    hidden, size, steps = 3, 5, 4
    constants = {
        "w": RNG.normal(size=(1, 4 * hidden, size)).astype(np.float32),
        "r": RNG.normal(size=(1, 4 * hidden, hidden)).astype(np.float32),
        "b": RNG.normal(size=(1, 8 * hidden)).astype(np.float32),
        "h0": RNG.normal(size=(1, 2, hidden)).astype(np.float32),
        "c0": RNG.normal(size=(1, 2, hidden)).astype(np.float32),
    }
    names = ["x", "w", "r", "b", "", "h0", "c0"] if states else ["x", "w", "r", "b"]
    used = {k: v for k, v in constants.items() if k in names}
    proto = model(
        [helper.make_node("LSTM", names, ["y", "h", "c"], hidden_size=hidden, direction=direction)],
        {"x": [steps, 2, size]},
        used,
        ("y", "h", "c"),
        opset,
    )
    check_against_onnx_runtime(proto, {"x": RNG.normal(size=(steps, 2, size)).astype(np.float32)})


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("opset", [11, 13])
def test_lp_normalization(p, opset):
    proto = model([helper.make_node("LpNormalization", ["x"], ["y"], axis=1, p=p)], {"x": [2, 5]}, {}, opset=opset)
    check_against_onnx_runtime(proto, {"x": RNG.normal(size=(2, 5)).astype(np.float32)})


@pytest.mark.parametrize("axis", [1, 2])
def test_softmax_of_an_old_opset_behind_a_tensor_of_unknown_rank(axis):
    """ONNX's inference knows no rank behind another domain's operator; all axes from the given one on are one."""
    nodes = [
        helper.make_node("Gelu", ["x"], ["g"], domain="com.microsoft"),
        helper.make_node("Softmax", ["g"], ["y"], axis=axis),
    ]
    proto = model(nodes, {"x": [2, 3, 4]}, {}, opset=11)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    check_against_onnx_runtime(proto, {"x": RNG.normal(size=(2, 3, 4)).astype(np.float32)})


def test_missing_file():
    with pytest.raises(ModelError, match="cannot be read"):
        load("/nowhere/model.onnx")


def test_truncated_and_foreign_files(tmp_path, capfd):
    data = conv_model().SerializeToString()
    for cut in (1, 10, len(data) // 2, len(data) - 1):
        with pytest.raises(ModelError):
            load(data[:cut])
    for junk in (b"", b"hello world, this is text", bytes(range(256)), b"\xfd7zXZ\x00broken"):
        with pytest.raises(ModelError):
            load(junk)
    (tmp_path / "m.tflite").write_bytes(data)
    with pytest.raises(ModelError, match="not what its name says"):
        load(tmp_path / "m.tflite")
    (tmp_path / "m.net").write_bytes(data)
    with pytest.raises(ModelError, match="suffix"):
        load(tmp_path / "m.net")
    with pytest.raises(ModelError, match="not a model"):
        load(42)
    out, err = capfd.readouterr()
    assert out == "" and err == ""


def test_truncated_tflite(shared, capfd):
    data = (shared / "models" / "tflite" / "kws_ref_model.tflite").read_bytes()
    for cut in (9, 100, 5000, len(data) // 2):
        with pytest.raises((ModelError, UnsupportedError)):
            load(data[:cut])
    assert "Warning" not in capfd.readouterr().err


def test_unknown_dimension_is_named_with_the_remedy():
    proto = model([helper.make_node("Relu", ["x"], ["y"])], {"x": ["N", 3, "height", 8]}, {})
    with pytest.raises(ModelError) as caught:
        load(proto)
    assert "'height'" in str(caught.value) and "input_shapes={'x'" in str(caught.value)
    assert load(proto, input_shapes={"x": [1, 3, 5, 8]}).inputs[0].shape == (1, 3, 5, 8)
    with pytest.raises(ModelError, match="does not fit"):
        load(proto, input_shapes={"x": [1, 4, 5, 8]})
    with pytest.raises(ModelError, match="does not have"):
        load(proto, input_shapes={"z": [1]})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_numbers_are_named(bad):
    w = np.zeros((4, 3, 3, 3), np.float32)
    w[1, 2, 0, 1] = bad
    with pytest.raises(ModelError, match=r"tensor 'w', element \(1, 2, 0, 1\)"):
        load(conv_model(weight=w))


def test_infinities_of_a_mask_are_allowed():
    proto = model(
        [helper.make_node("Add", ["x", "m"], ["y"])], {"x": [1, 2]}, {"m": np.array([0, -np.inf], np.float32)}
    )
    assert evaluate(load(proto).mod, np.ones((1, 2), np.float32))[0].tolist() == [[1, -np.inf]]


def test_unsupported_operator_is_named_with_its_node(capfd):
    proto = model([helper.make_node("Det", ["x"], ["y"], name="the_determinant")], {"x": [1, 3, 3]}, {})
    with pytest.raises(UnsupportedError) as caught:
        load(proto)
    assert "Det" in str(caught.value) and "the_determinant" in str(caught.value)
    out, err = capfd.readouterr()
    assert out == "" and err == ""


def test_invalid_graph():
    proto = conv_model()
    proto.graph.node[0].input[1] = "nobody"
    with pytest.raises(ModelError, match="not valid"):
        load(proto)


def symbolic_module(*shapes):
    """relu of the sum of inputs x0, x1, ... whose shapes may hold names."""
    symbols: dict = {}
    dims = [
        [symbols.setdefault(d, tvm.tirx.Var(d, "int64")) if isinstance(d, str) else d for d in shape]
        for shape in shapes
    ]
    params = [relax.Var(f"x{i}", relax.TensorType(d, "float32")) for i, d in enumerate(dims)]
    bb = relax.BlockBuilder()
    with bb.function("main", params):
        with bb.dataflow():
            total = params[0]
            for other in params[1:]:
                total = bb.emit(relax.op.add(total, other))
            out = bb.emit_output(relax.op.nn.relu(total))
        bb.emit_func_output(out)
    return bb.get()


def test_relax_module_with_symbolic_shape_takes_batch_and_input_shapes():
    mod = symbolic_module(("n", 3), ("n", 3))
    assert [t.shape for t in (*load(mod).inputs, *load(mod).outputs)] == [(1, 3)] * 3
    assert load(mod, batch=5).outputs[0].shape == (5, 3)
    assert load(mod, input_shapes={"x0": [2, 3], "x1": [2, 3]}).outputs[0].shape == (2, 3)
    x = RNG.normal(size=(2, 3)).astype(np.float32)
    assert np.array_equal(evaluate(load(mod, batch=2).mod, {"x0": x, "x1": x})[0], np.maximum(2 * x, 0))


@pytest.mark.parametrize(
    "shapes, given, words",
    [
        ((("n", "t"),), None, "dimension 't' \\(axis 1\\)"),
        ((("n", 3), ("n", 3)), {"x0": [2, 3], "x1": [4, 3]}, "does not fit"),
        (((2, 3),), {"x0": [4, 3]}, "does not fit"),
        (((2, 3),), {"y": [2, 3]}, "does not have"),
    ],
)
def test_relax_module_with_unknown_or_contradicting_dimensions(shapes, given, words):
    with pytest.raises(ModelError, match=words):
        load(symbolic_module(*shapes), input_shapes=given)


def test_tvm_compile_of_a_symbolic_module_names_the_dimension_and_the_remedy():
    with pytest.raises(ModelError) as caught:
        tvm.compile(symbolic_module(("n", 3), ("n", 3)), target="ergo")
    text = str(caught.value)
    for expected in (
        "dimension 'n' (axis 0) of input 'x0'",
        "batch=1",
        "input_shapes={'x0': [1, 3]}",
        'BindSymbolicVars({"n": 1}',
    ):
        assert expected in text, text


def test_relax_module_with_a_weight_that_is_not_a_number():
    bb = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((2, 3), "float32"))
    with bb.function("main", [x]):
        with bb.dataflow():
            out = bb.emit_output(relax.op.matmul(x, relax.const(np.full((3, 2), np.nan, np.float32))))
        bb.emit_func_output(out)
    with pytest.raises(ModelError, match="not a finite number"):
        load(bb.get())


def test_weights_beside_the_file(tmp_path):
    proto = conv_model()
    onnx.save_model(proto, tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=16)
    x = RNG.normal(size=(1, 3, 8, 8)).astype(np.float32)
    assert np.allclose(
        evaluate(load(tmp_path / "m.onnx").mod, x)[0], evaluate(load(conv_model_like(proto, tmp_path)).mod, x)[0]
    )
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match="weight file"):
        load(tmp_path / "m.onnx")


def conv_model_like(proto: onnx.ModelProto, folder) -> onnx.ModelProto:
    """``proto`` with its weights back inside (saving moved them out)."""
    return onnx.load(folder / "m.onnx")


@pytest.mark.parametrize(
    "op, constants", [("Conv", {"w": np.ones((2, 2, 1, 5), np.float32)}), ("MaxPool", {}), ("AveragePool", {})]
)
def test_a_window_larger_than_its_input_is_refused(op, constants):
    attributes = {} if constants else {"kernel_shape": [1, 5]}
    node = helper.make_node(op, ["x", *constants], ["y"], name="wide", strides=[1, 4], **attributes)
    with pytest.raises(ModelError, match="window is larger(.|\n)*wide"):
        load(model([node], {"x": [1, 2, 4, 4]}, constants))


def test_a_name_that_is_not_utf8_is_damage():
    data = conv_model(batch=1).SerializeToString().replace(b"\n\x01x", b"\n\x01\xf3")
    with pytest.raises(ModelError):
        load(data)


def test_a_tflite_file_with_offsets_into_nowhere_is_damaged(shared):
    whole = (shared / "models/tflite/kws_ref_model.tflite").read_bytes()
    position = len(whole) - 5300
    with pytest.raises(ModelError, match="truncated or damaged"):
        load(whole[:position] + b"\xff\xff\xff\x7f" + whole[position + 4 :])


def test_input_shapes_that_are_no_dict():
    with pytest.raises(ModelError, match="not a dict"):
        load(conv_model(), input_shapes=5)


def test_inputs_whose_names_differ_only_in_signs_stay_apart():
    imported = load(model([helper.make_node("Sub", ["a/b", "a.b"], ["y"])], {"a/b": [1, 4], "a.b": [1, 4]}, {}))
    assert [i.name for i in imported.inputs] == ["a/b", "a.b"] and len(set(imported.parameters)) == 2
