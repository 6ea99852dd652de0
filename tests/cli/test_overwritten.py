"""No result takes the place of anything that the command reads."""

import shutil

import numpy as np
import onnx
import pytest

from tvm_ergo import zoo
from tvm_ergo.cli import main


@pytest.fixture
def parts(tmp_path, workspace):
    """A network with its weights beside it, calibration data, a compiled model, a vocabulary, a tuning folder."""
    onnx.save(
        onnx.load(zoo.DIGITS_MODEL),
        tmp_path / "net.onnx",
        save_as_external_data=True,
        location="net.weights",
        size_threshold=0,
    )
    for name in ("cal.npz", "digits.ergo"):
        shutil.copy(workspace / name, tmp_path)
    np.savez(tmp_path / "words.npz", vocab=np.arange(3), vocab_scores=np.arange(3))
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "manifest.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    "command, kept",
    [
        ("compile net.onnx --calibration cal.npz --json net.weights", "net.weights"),
        ("compile net.onnx --calibration cal.npz -o digits.ergo --html ./net.weights", "net.weights"),
        ("compile net.onnx --calibration cal.npz --tokenizer words.npz --json words.npz", "words.npz"),
        ("generate digits.ergo --tokenizer words.npz --json words.npz", "words.npz"),
        ("compile net.onnx --calibration cal.npz --database tuned --json tuned/manifest.json", "tuned/manifest.json"),
        ("compile net.onnx --post ssd --post-option anchors=cal.npz --json cal.npz", "cal.npz"),
        ("compare net.onnx digits.ergo --calibration cal.npz --json digits.ergo", "digits.ergo"),
        ("run digits.ergo --input image=cal.npz -o cal.npz", "cal.npz"),
    ],
)
def test_inputs_are_kept(parts, monkeypatch, capsys, command, kept):
    monkeypatch.chdir(parts)
    before = {path: path.read_bytes() for path in parts.rglob("*") if path.is_file()}
    assert main(command.split()) == 2
    told = capsys.readouterr().err
    assert "would be overwritten" in told and kept in told
    assert {path: path.read_bytes() for path in parts.rglob("*") if path.is_file()} == before


def test_another_command_may_read_what_one_wrote(parts, monkeypatch):
    """What a command notes of its results ends with it."""
    monkeypatch.chdir(parts)
    assert main("report digits.ergo --json net.other".split()) == 0
    shutil.move("net.weights", "net.other")
    model = onnx.load("net.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "net.other" if entry.key == "location" else entry.value
    onnx.save(model, "net.onnx")
    assert main("compile net.onnx --calibration cal.npz --json out.json".split()) == 0


@pytest.mark.parametrize("path", ["tuned/best.json", "./tuned/manifest.json", "tuned/trials.jsonl"])
def test_a_tuning_run_keeps_its_own_files(parts, monkeypatch, capsys, path):
    monkeypatch.chdir(parts)
    command = ["tune", "net.onnx", "--calibration", "cal.npz", "--out", "tuned", "--json", path]
    assert main(command) == 2
    told = capsys.readouterr().err
    assert ("of the tuning run" in told or "would be overwritten" in told) and path in told
