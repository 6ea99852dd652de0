"""What a user is told: short, with the nearest right thing, and without the insides of TVM."""

import subprocess
import sys

import numpy as np
import pytest

import tvm_ergo
from tvm_ergo import zoo
from tvm_ergo.cli import main
from tvm_ergo.cli.stray import STRAY

MODEL = str(zoo.DIGITS_MODEL)


@pytest.mark.parametrize(
    "arguments, told, meant",
    [
        (["compile", MODEL, "--memroy", "5"], "no option --memroy", "did you mean --memory?"),
        (["compile", MODEL, "--calibraton=x.npz"], "no option --calibraton", "did you mean --calibration?"),
        (["report", MODEL, "--frames", "30"], "no option --frames", "report --help"),
        (["compil", MODEL], "invalid choice: 'compil'", "did you mean compile?"),
        (["compile", MODEL, "--objective", "memmory"], "invalid choice: 'memmory'", "did you mean memory?"),
        (["compile", MODEL, "other.onnx"], "too many arguments: other.onnx", "compile --help"),
        (["compile"], "required: model", "compile --help"),
        ([], "required: COMMAND", "tvm-ergo --help"),
    ],
)
def test_wrong_options_get_the_nearest_right_one(capsys, arguments, told, meant):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and told in said and meant in said
    assert said.startswith("tvm-ergo: InputError: ") and "usage:" not in said and len(said.splitlines()) <= 3


def test_a_missing_model_names_what_is_beside_it(capsys, tmp_path):
    (tmp_path / "network.onnx").write_bytes(b"x")
    assert main(["compile", str(tmp_path / "netwrok.onnx")]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path / 'network.onnx'} is there" in said and "remedy: check the path" in said


WRITES = """
import os, sys
from tvm_ergo.cli.stray import without_stray_warnings
with without_stray_warnings():
    os.write(2, b"[00:42:04] /project/src/runtime/vm/executable.cc:276: Warning: Scope Saving: \\n")
    os.write(2, b"[00:42:04] /project/src/a.cc:1: Error: this is one\\nno newline")
    print("from Python", file=sys.stderr)
print("behind", file=sys.stderr)
"""


def test_warnings_of_tvm_s_insides_do_not_reach_the_terminal():
    done = subprocess.run([sys.executable, "-P", "-c", WRITES], capture_output=True, text=True, check=True)
    assert "Scope" not in done.stderr and "Error: this is one" in done.stderr and "no newline" in done.stderr
    assert "from Python" in done.stderr and done.stderr.endswith("behind\n")
    assert not STRAY.match(b"tvm-ergo: a warning of ours")


@pytest.mark.parametrize(
    "given, told, remedy",
    [
        ({"image": np.zeros((1, 8, 8, 1), np.float32)}, "wrong shape", "numpy.transpose(array, (0, 3, 1, 2))"),
        ({"image": np.zeros((1, 64), np.float32)}, "wrong shape", "array.reshape([1, 1, 8, 8])"),
        ({"image": np.zeros((1, 3, 9, 9), np.float32)}, "wrong shape", "bring it to [1, 1, 8, 8]"),
        ({"picture": np.zeros((1, 1, 8, 8), np.float32)}, "not those of the model", "--input image=FILE.npy"),
        ({"image": np.zeros((1, 1, 8, 8), np.int64)}, "wrong shape or dtype", "array.astype('float32')"),
        ({"image": np.ma.masked_less(np.zeros((1, 1, 8, 8), np.float32), 1)}, "masked array", "array.filled(0)"),
    ],
)
def test_wrong_inputs_of_a_run_get_what_to_type(workspace, given, told, remedy):
    model = tvm_ergo.load(workspace / "digits.ergo")
    with pytest.raises(tvm_ergo.ErgoError, match=told) as refused:
        model.run(given)
    assert remedy in str(refused.value)


def test_the_remedies_of_shapes_work_when_typed(workspace, tmp_path):
    """Of calibration data in one flat array."""
    flat = np.load(workspace / "cal.npz")["image"].reshape(32, 64)
    with pytest.raises(tvm_ergo.ErgoError, match="wrong shape") as refused:
        tvm_ergo.compile(MODEL, calibration=flat)
    expression = str(refused.value).rpartition(": ")[2]
    assert "required: [n, 1, 8, 8], n samples" in str(refused.value)
    tvm_ergo.compile(MODEL, calibration=eval(expression, {"array": flat}))


def test_out_of_memory_fits_a_screen_and_its_remedies_work(workspace, capsys):
    arguments = ["compile", MODEL, "--calibration", str(workspace / "cal.npz")]
    assert main([*arguments, "--memory", "4KiB"]) == 2
    said = capsys.readouterr().err
    message = said[said.index("tvm-ergo: OutOfMemoryError") :]
    labels = [line.split(":")[0].strip() for line in message.splitlines()[1:]]
    assert labels == ["where", "required", "available", "remedy"] and len(message) < 80 * 16
    remedies = message.splitlines()[-1].split("; ")
    assert len(remedies) <= 3
    typed = [remedy.split("--memory ")[1].split()[0] for remedy in remedies if "--memory " in remedy]
    assert typed and all(main([*arguments, "--memory", size]) == 0 for size in typed)


def test_errors_of_a_compiled_file_name_the_file(workspace, capsys):
    path = str(workspace / "digits.ergo")
    assert main(["report", path, "--compare", str(workspace / "image.npy")]) == 2
    assert f"where: {path}" in capsys.readouterr().err
    with pytest.raises(tvm_ergo.ErgoError, match="float network") as refused:
        tvm_ergo.load(path).run_float(np.load(workspace / "image.npy"))
    assert refused.value.where == path


@pytest.mark.parametrize("command", ["compile", "compress", "run", "eval", "report", "explore", "tune"])
def test_helps_name_the_formats_alike(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    model = " ".join(capsys.readouterr().out.partition("positional arguments:")[2].partition("options:")[0].split())
    for suffix in (".onnx", ".onnx.xz", ".tflite", ".pt2", ".ergoz")[: 4 if command == "compress" else None]:
        assert suffix in model, (command, model)
    takes_compiled = command in ("run", "report", "eval")
    assert (".ergo" in model.replace(".ergoz", "")) == takes_compiled, (command, model)


def test_few_calibration_inputs_are_said(workspace, tmp_path, capsys):
    images = np.load(workspace / "cal.npz")["image"]
    for count, said in ((1, "those of 1 calibration input,"), (4, "those of 4 calibration inputs,"), (32, None)):
        np.save(tmp_path / "some.npy", images[:count])
        assert main(["compile", MODEL, "--calibration", str(tmp_path / "some.npy")]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert said in text if said else "ranges are those of" not in text
