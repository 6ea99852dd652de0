"""What the refusal of a file above the limit names is enough, at every door: typed once, the file is read."""

import lzma
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tvm_ergo
from tvm_ergo import compressed, frontend, zoo
from tvm_ergo.cli import main
from tvm_ergo.frontend import stored
from tvm_ergo.frontend.xz_index import unpacked_bytes
from tvm_ergo.relay_passes.array_files import read_arrays
from tvm_ergo.target import limits
from tvm_ergo.target.errors import ErgoError, ModelError
from tvm_ergo.target.limits import Declared, model_bytes_limit, whole

CORPUS = Path(__file__).resolve().parents[2] / "fuzz" / "corpus"


def named(error: ErgoError) -> int:
    """The size in the remedy, which is also what is said to be required, and in the line of Python."""
    sizes = re.findall(r"--max-model-bytes (\d+)|model_bytes_limit\((\d+)\)", str(error))
    assert len(sizes) == 2 and sizes[0][0] == sizes[1][1]
    assert f"{int(sizes[0][0]):,} bytes" in error.required
    return int(sizes[0][0])


def opens_at_what_it_names(load) -> int:
    with model_bytes_limit(100), pytest.raises(ErgoError, match="more memory than the limit") as refused:
        load()
    needed = named(refused.value)
    with model_bytes_limit(needed):
        load()
    with model_bytes_limit(needed - 1), pytest.raises(ErgoError, match="more memory than the limit"):
        load()
    return needed


def external_model(folder: Path) -> Path:
    weights = np.ones((40, 30), np.float32)
    (folder / "w.bin").write_bytes(weights.tobytes())
    tensor = TensorProto(name="w", data_type=1, dims=weights.shape, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="w.bin")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("HardSwish", ["a"], ["y"])]
    x, y = (helper.make_tensor_value_info(n, 1, s) for n, s in (("x", ("n", 40)), ("y", ("n", 30))))
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], [tensor]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


def test_onnx(tmp_path):
    opens_at_what_it_names(lambda: frontend.load(zoo.DIGITS_MODEL))
    opens_at_what_it_names(lambda: frontend.load(onnx.load(zoo.DIGITS_MODEL)))
    path = external_model(tmp_path)
    assert opens_at_what_it_names(lambda: frontend.load(path)) > 4800
    assert opens_at_what_it_names(lambda: frontend.load(path, batch=64)) > 64 * 4 * 70


def test_an_xz_names_what_the_model_in_it_needs(tmp_path):
    path = tmp_path / "net.onnx.xz"
    path.write_bytes(lzma.compress(zoo.DIGITS_MODEL.read_bytes()))
    assert opens_at_what_it_names(lambda: frontend.load(path)) == opens_at_what_it_names(
        lambda: frontend.load(zoo.DIGITS_MODEL)
    )


@pytest.mark.parametrize("name", sorted(p.name for p in CORPUS.glob("*.tflite")))
def test_tflite(name):
    opens_at_what_it_names(lambda: frontend.load(CORPUS / name))


def test_compressed_and_compiled_networks(tmp_path):
    imported = frontend.load(zoo.DIGITS_MODEL)
    packed = compressed.pack(imported.mod, ["image"], ["logits"]).data
    (tmp_path / "net.ergoz").write_bytes(packed)
    assert opens_at_what_it_names(lambda: frontend.load(tmp_path / "net.ergoz")) > 10_000
    images = np.random.default_rng(0).random((16, 1, 8, 8), np.float32)
    tvm_ergo.compile(str(zoo.DIGITS_MODEL), calibration=images).save(tmp_path / "net.ergo")
    opens_at_what_it_names(lambda: tvm_ergo.load(tmp_path / "net.ergo"))


def test_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.zeros(100), b=np.zeros(50), c=np.zeros(10, np.int8))
    assert opens_at_what_it_names(lambda: read_arrays(tmp_path / "a.npz")) >= 1210
    np.save(tmp_path / "a.npy", np.zeros(100))
    opens_at_what_it_names(lambda: read_arrays(tmp_path / "a.npy"))


def test_pt2(tmp_path):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.Hardswish(), torch.nn.Flatten(), torch.nn.Linear(144, 10)
    )
    exported = torch.export.export(net.eval(), (torch.zeros(1, 1, 8, 8),))
    torch.export.save(exported, tmp_path / "net.pt2")
    opens_at_what_it_names(lambda: frontend.load(tmp_path / "net.pt2"))


def test_typed_on_the_command_line(tmp_path, capsys):
    shutil.copy(zoo.DIGITS_MODEL, tmp_path / "net.onnx")
    command = ["report", str(tmp_path / "net.onnx")]
    assert main([*command, "--max-model-bytes", "1kB"]) == 2
    size = re.search(r"--max-model-bytes (\d+)", capsys.readouterr().err)[1]
    main([*command, "--max-model-bytes", size])
    assert "more memory than the limit" not in capsys.readouterr().err


def test_what_is_large_is_not_looked_at(monkeypatch, tmp_path):
    """Above the look, the whole of a stage is named before anything of it is taken, with room for the next stages."""
    monkeypatch.setattr(limits, "LOOK_BYTES", 0)
    monkeypatch.setattr(stored, "LOOK_BYTES", 0)
    packed = lzma.compress(bytes(100_000))
    monkeypatch.setattr(lzma, "LZMADecompressor", None)  # not even opened
    with model_bytes_limit(99_999), pytest.raises(ModelError) as refused:
        stored.unpacked(packed, "m")
    assert named(refused.value) == 400_000
    (tmp_path / "net.onnx").write_bytes(bytes(1000))
    with model_bytes_limit(999), pytest.raises(ModelError) as refused:
        stored.read_file(tmp_path / "net.onnx")
    assert named(refused.value) == 4000
    path = external_model(tmp_path)
    monkeypatch.setattr(stored._External, "read", None)
    with model_bytes_limit(1000), pytest.raises(ModelError) as refused, whole():
        frontend.onnx_import.import_onnx(onnx.load(path, load_external_data=False), "m", batch=64, folder=tmp_path)
    assert named(refused.value) > 4800 + 64 * 4 * 70


def test_the_index_of_an_xz():
    for parts in ((b"",), (b"abc" * 1000,), (bytes(5000), b"x" * 77), (b"", b"1", b"22" * 300)):
        streams = [lzma.compress(part) for part in parts]
        assert unpacked_bytes(b"".join(streams)) == unpacked_bytes(bytes(8).join(streams)) == sum(map(len, parts))
    data = lzma.compress(bytes(5000))
    for bad in (data[:-1], data[4:], data + b"x", data[:30], b"YZ", bytes(12), data[:-6] + b"\xff\xff\xff\xff" + b"YZ"):
        assert unpacked_bytes(bad) in (None, 0)


def test_a_small_sum_waits_for_the_largest():
    with pytest.raises(ModelError) as refused, whole():
        first, second, third = (Declared("f", 10) for _ in range(3))
        first.add(11)
        with whole():
            second.add(30, "here")
        third.add(10)
        first.add(5)
    assert named(refused.value) == 30 and "here" in refused.value.where
    with pytest.raises(ModelError) as refused, whole():
        Declared("f", 10).add(limits.LOOK_BYTES + 1)
    with pytest.raises(ValueError), whole():  # what is wrong with the file comes first
        Declared("f", 10).add(11)
        raise ValueError
    with whole():
        Declared("f", 10).add(10)
    shares = Declared("f", 10, parts=4)
    shares.add(40)
    with pytest.raises(ModelError, match="11 bytes"):
        shares.add(1)
