"""Files that ask for more memory than the limit are refused before any of it is taken; data beside a model is read from
plain files below its folder only."""

import importlib.util
import json
import lzma
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvm_ergo
from tvm_ergo import frontend, zoo
from tvm_ergo.cli import main
from tvm_ergo.frontend import stored
from tvm_ergo.target.chip import load_chip
from tvm_ergo.target.errors import InputError, ModelError, ProgramError, TargetError
from tvm_ergo.target.limits import (
    DEFAULT_MODEL_BYTES,
    MAX_DEPTH,
    Declared,
    max_model_bytes,
    model_bytes_limit,
    parsed_json,
)

_spec = importlib.util.spec_from_file_location("size_bombs", Path(__file__).with_name("size_bombs.py"))
bombs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(bombs)


def test_every_way_in_which_a_size_arises():
    """In a process of its own, with 3 GiB of address space: nothing of it is allocated."""
    done = subprocess.run([sys.executable, "-P", bombs.__file__], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert set(said) == set(bombs.bombs()) and len(said) > 35
    wrong = {
        name: text
        for name, text in said.items()
        if "more memory than the limit" not in text and "too many nodes" not in text
    }
    assert not wrong
    assert all("--max-model-bytes" in text for text in said.values() if "the limit" in text)


def test_the_limit_is_an_option(capsys, tmp_path):
    grown = bombs.net(bombs.node("Expand", "x s"), values={"s": bombs.i64(64, 4)})
    frontend.load(grown)
    with pytest.raises(ModelError, match="more memory"):
        frontend.load(grown, max_model_bytes=1000)
    onnx.save(grown, tmp_path / "net.onnx")
    assert main(["report", str(tmp_path / "net.onnx"), "--max-model-bytes", "1kB"]) == 2
    assert "--max-model-bytes" in capsys.readouterr().err and max_model_bytes() == DEFAULT_MODEL_BYTES
    for wrong in (0, -1, True, 1.5, [1]):
        with pytest.raises(InputError):
            frontend.load(grown, max_model_bytes=wrong)
    with model_bytes_limit("64GiB"):
        assert max_model_bytes() == 64 << 30
        with model_bytes_limit(None):
            assert max_model_bytes() == 64 << 30


def test_declared_sizes_are_added_up():
    declared = Declared("file", 100)
    declared.add_tensor([10, 5], 1)
    declared.add_tensor([-3, 1 << 70], 8)
    with pytest.raises(ModelError, match="102 bytes"):
        declared.add_tensor([13], 4, "node 'n'")


def test_json_is_not_nested_without_end():
    assert parsed_json("[" * MAX_DEPTH + "]" * MAX_DEPTH) and parsed_json(b'{"[[[[[[": "\\"]]"}') == {"[[[[[[": '"]]'}
    for text in (
        "[" * 100_000,
        "[" * 70 + "]" * 70,
        '{"a":' * 70 + "1" + "}" * 70,
        "NaN",
        "-Infinity",
        b"\xff",
        "9" * 5000,
        "",
        '\\"' * 1_000_000,  # looked at once, not once for every quote
        '"\\',
    ):
        with pytest.raises(ValueError):
            parsed_json(text)


def test_a_file_without_an_end_is_not_read_for_ever(tmp_path):
    (tmp_path / "net.ergo").symlink_to("/dev/zero")
    (tmp_path / "chip.json").symlink_to("/dev/zero")
    with model_bytes_limit(1 << 20):
        with pytest.raises(ProgramError, match="1,048,576 bytes"):
            tvm_ergo.load(tmp_path / "net.ergo")
        with pytest.raises(TargetError, match="1,048,576 bytes"):
            load_chip(tmp_path / "chip.json")


def test_an_xz_is_opened_piece_by_piece(monkeypatch):
    model = zoo.DIGITS_MODEL.read_bytes()
    assert stored.unpacked(lzma.compress(model), "m") == model
    assert (
        stored.unpacked(lzma.compress(model[:100]) + bytes(8) + lzma.compress(model[100:]), "m") == model
    )  # streams one after another
    monkeypatch.setattr(stored, "CHUNK_BYTES", 1000)
    assert stored.unpacked(lzma.compress(model), "m") == model
    zeros = lzma.compress(bytes(1 << 20))
    for data in (zeros, zeros * 3):
        with model_bytes_limit(1 << 19), pytest.raises(ModelError, match="more memory"):
            stored.unpacked(data, "m")
    for cut in (zeros[:-1], zeros[:20], zeros + b"x", b"\xfd7zXZ\x00"):
        with pytest.raises(ModelError, match="truncated or damaged"):
            stored.unpacked(cut, "m")


def test_files_larger_than_the_limit_are_not_read(tmp_path):
    path = tmp_path / "large.onnx"
    with open(path, "wb") as file:
        file.truncate(DEFAULT_MODEL_BYTES + 1)  # takes no space
    with pytest.raises(ModelError, match="more memory"):
        frontend.load(path)


def test_tflite_tensors_are_added_up():
    from tvm_ergo.frontend.tflite import _check_sizes
    from tvm_ergo.frontend.tflite.flat import Subgraph, Tensor

    def graph(*shapes, kind="INT8"):
        return Subgraph(
            "g", tuple(Tensor(i, f"t{i}", shape, kind, None, None) for i, shape in enumerate(shapes)), (), (), ()
        )

    big = (1 << 16, 1 << 14)
    _check_sizes((graph(big, big, big, (-1, 1 << 40)), graph(())), "m")
    for graphs in (
        (graph(*[big] * 5),),
        (graph(*[big] * 3), graph(big, big)),
        (graph((1 << 15, 1 << 15), kind="FLOAT64"),),
    ):
        with pytest.raises(ModelError, match="more memory"):
            _check_sizes(graphs, "m")


# ---- data beside the model ----
def external(location: str, length=None, offset=None, dims=(4, 4), attribute=False) -> onnx.ModelProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    if attribute:
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4))],
        [] if attribute else [tensor],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("attribute", [False, True], ids=["initializer", "constant"])
@pytest.mark.parametrize("folder", ["", "data/"])
def test_data_beside_the_model(tmp_path, attribute, folder):
    weights = np.arange(16, dtype=np.float32).reshape(4, 4)
    (tmp_path / "data").mkdir()
    (tmp_path / folder / "w.bin").write_bytes(bytes(8) + weights.tobytes())
    onnx.save(external(f"{folder}w.bin", 64, 8, attribute=attribute), tmp_path / "net.onnx")
    inside = external("", attribute=attribute)
    inside.graph.ClearField("initializer")
    for node in inside.graph.node:
        if node.op_type == "Constant":
            node.attribute[0].t.CopyFrom(numpy_helper.from_array(weights, "w"))
    if not attribute:
        inside.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    import tvm

    tvm.ir.assert_structural_equal(frontend.load(tmp_path / "net.onnx").mod, frontend.load(inside).mod)


def test_only_plain_files_below_the_folder_are_read(tmp_path):
    inside, outside = tmp_path / "model", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "w.bin").write_bytes(bytes(64))
    (inside / "plain.bin").write_bytes(bytes(64))
    os.symlink(outside / "w.bin", inside / "link.bin")
    os.symlink("plain.bin", inside / "inner.bin")
    os.symlink(outside, inside / "folder")
    os.mkfifo(inside / "pipe.bin")
    for location in (
        "../outside/w.bin",
        str(outside / "w.bin"),
        "link.bin",
        "inner.bin",
        "folder/w.bin",
        "pipe.bin",
        "missing.bin",
        "",
        ".",
        "a\0b",
        "plain.bin/x",
        "./../model/plain.bin",
        "x" * 5000,
    ):
        onnx.save(external(location, 64), inside / "net.onnx")
        with pytest.raises(ModelError):
            frontend.load(inside / "net.onnx")
    for said in (
        {"length": 65},
        {"offset": 1, "length": 64},
        {"offset": -1},
        {"length": -4},
        {"length": "many"},
        {"offset": "1e3"},
        {"length": 32},
        {"dims": (1 << 20, 1 << 20)},
        {"length": 1 << 62},
        {"offset": 1 << 70},
    ):
        onnx.save(external("plain.bin", **said), inside / "net.onnx")
        with pytest.raises(ModelError):
            frontend.load(inside / "net.onnx")
    onnx.save(external("plain.bin"), inside / "net.onnx")
    frontend.load(inside / "net.onnx")


def test_inputs_that_operators_need_are_there():
    for op, names in (("Add", ["x", ""]), ("Concat", ["x", ""]), ("Concat", ["", "x"]), ("MatMul", ["", "x"])):
        attributes = {"axis": 1} if op == "Concat" else {}
        with pytest.raises(ModelError, match="left out"):
            frontend.load(bombs.net(helper.make_node(op, names, ["y"], **attributes)))


def test_windows_larger_than_their_inputs():
    with pytest.raises(ModelError, match="a window is larger"):
        frontend.load(bombs.net(bombs.node("MaxPool", "x", kernel_shape=[9, 9]), x=(1, 1, 4, 4)))


def test_stored_tensors_have_no_negative_dimensions():
    """Wherever they stand; ONNX's inference, which does not look, is not reached."""
    from tvm_ergo.frontend.onnx_sizes import check_dimensions

    bad = TensorProto(name="bad", data_type=TensorProto.FLOAT, dims=[2, -1])
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0]),
        helper.make_tensor("i", TensorProto.INT64, [1], [0]),
        [4],
    )
    sparse.dims[0] = -4
    relu = bombs.node("Relu", "x")
    constant = helper.make_node("Constant", [], ["c"], value=bad)
    body = helper.make_graph([constant], "b", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, None)])
    for nodes in (
        [constant, relu],
        [helper.make_node("Constant", [], ["c"], sparse_value=sparse), relu],
        [helper.make_node("If", ["x"], ["c"], then_branch=body, else_branch=body), relu],
    ):
        with pytest.raises(ModelError, match="negative dimension"):
            check_dimensions(bombs.net(*nodes))
    model = bombs.net(relu)
    check_dimensions(model)
    model.graph.initializer.append(bad)
    with pytest.raises(ModelError, match="negative dimension") as refused:
        frontend.load(model)
    assert "'bad'" in refused.value.where
