"""Wrong input of every kind: exit code 2, a message that helps, no traceback, nothing half-written."""

import os
import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvm_ergo
from tvm_ergo import container, zoo
from tvm_ergo.cli import main
from tvm_ergo.target.chip import bytes_of
from tvm_ergo.target.errors import InputError

MODEL = str(zoo.DIGITS_MODEL)


@pytest.fixture
def refused(capsys):
    """Runs the CLI, expects exit code 2 and every given text in the message."""

    def call(arguments, *texts):
        assert main([str(a) for a in arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("tvm-ergo: ") and "Traceback" not in error
        for text in texts:
            assert text.lower() in error.lower(), error
        return error

    return call


def content(kind: str) -> bytes:
    whole = zoo.DIGITS_MODEL.read_bytes()
    return {"empty": b"", "truncated": whole[: len(whole) // 2], "text": b"hello, world\n" * 20, "zeros": bytes(1000)}[
        kind
    ]


@pytest.mark.parametrize("kind", ["empty", "truncated", "text", "zeros"])
@pytest.mark.parametrize("suffix", [".onnx", ".tflite", ".onnx.xz"])
def test_broken_model_files(refused, tmp_path, kind, suffix):
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content(kind))
    refused(["compile", path, "-o", tmp_path / "o.ergo"], "ModelError", path.name)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("name", ["missing.onnx", "folder.onnx", "model.pt"])
def test_no_such_model(refused, tmp_path, name):
    if name.startswith("folder"):
        (tmp_path / name).mkdir()
    elif name.endswith("pt"):
        (tmp_path / name).write_bytes(b"x")
    refused(["compile", tmp_path / name], name)


def conv_model(weight, shape=(1, 1, 8, 8)) -> onnx.ModelProto:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="first")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(refused, tmp_path, workspace, value):
    weight = np.ones((2, 1, 3, 3), np.float32)
    weight[1, 0, 2, 2] = value
    onnx.save(conv_model(weight), tmp_path / "nan.onnx")
    refused(["compile", tmp_path / "nan.onnx", "--calibration", workspace / "image.npy"], "ModelError", "w")


def test_dynamic_shape_names_the_dimension(refused, tmp_path, workspace):
    onnx.save(conv_model(np.ones((2, 1, 3, 3), np.float32), (1, 1, "height", 8)), tmp_path / "dyn.onnx")
    refused(["compile", tmp_path / "dyn.onnx"], "ModelError", "height", "--input-shape")
    assert (
        main(
            [
                "compile",
                str(tmp_path / "dyn.onnx"),
                "--calibration",
                str(workspace / "image.npy"),
                "--input-shape",
                "x=1,1,8,8",
            ]
        )
        == 0
    )


def test_a_dimension_of_zero_is_called_one(refused, tmp_path, workspace):
    onnx.save(conv_model(np.ones((2, 1, 3, 3), np.float32), (1, 1, 0, 8)), tmp_path / "zero.onnx")
    error = refused(
        ["compile", tmp_path / "zero.onnx", "--calibration", workspace / "image.npy"],
        "ModelError",
        "dimension 2 is 0",
        "without elements",
    )
    assert "not known" not in error
    assert (
        main(
            [
                "compile",
                str(tmp_path / "zero.onnx"),
                "--calibration",
                str(workspace / "image.npy"),
                "--input-shape",
                "x=1,1,8,8",
            ]
        )
        == 0
    )
    onnx.save(
        conv_model(np.ones((2, 1, 3, 3), np.float32), (0, 1, 8, 8)), tmp_path / "batch.onnx"
    )  # as exporters write an unknown batch
    assert tvm_ergo.frontend.load(tmp_path / "batch.onnx", batch=2).inputs[0].shape == (2, 1, 8, 8)
    refused(
        ["compile", tmp_path / "batch.onnx", "--calibration", workspace / "image.npy", "--input-shape", "x=0,1,8,8"],
        "ModelError",
        "dimension 0 is 0",
    )


def test_calibration(refused, tmp_path, workspace):
    refused(["compile", MODEL], "CalibrationError", "remedy")
    np.save(tmp_path / "shape.npy", np.zeros((4, 3, 8, 8), np.float32))
    refused(["compile", MODEL, "--calibration", tmp_path / "shape.npy"], "CalibrationError")
    np.save(tmp_path / "nan.npy", np.full((4, 1, 8, 8), np.nan, np.float32))
    refused(["compile", MODEL, "--calibration", tmp_path / "nan.npy"], "CalibrationError")
    np.save(tmp_path / "none.npy", np.zeros((0, 1, 8, 8), np.float32))
    refused(["compile", MODEL, "--calibration", tmp_path / "none.npy"], "CalibrationError")
    np.save(tmp_path / "pickled.npy", np.array([object()]), allow_pickle=True)
    refused(["compile", MODEL, "--calibration", tmp_path / "pickled.npy"], "CalibrationError")
    refused(["compile", MODEL, "--calibration", tmp_path / "missing.npy"], "CalibrationError", "missing.npy")
    refused(["compile", MODEL, "--calibration", "no_such_task"], "no_such_task")


def test_wrong_inputs_at_run_time(refused, tmp_path, workspace):
    compiled = workspace / "digits.ergo"
    for array in (
        np.zeros((1, 1, 9, 8), np.float32),
        np.zeros((1, 1, 8, 8)),
        np.full((1, 1, 8, 8), np.inf, np.float32),
    ):
        np.save(tmp_path / "x.npy", array)
        refused(["run", compiled, "--input", tmp_path / "x.npy"], "InputError", "image")
    refused(["run", compiled, "--input", f"picture={workspace / 'image.npy'}"], "InputError", "image")
    for shape, remedy in (((1, 8, 8), "array[None]"), ((5, 1, 8, 8), "eval")):
        np.save(tmp_path / "x.npy", np.zeros(shape, np.float32))
        refused(["run", compiled, "--input", tmp_path / "x.npy"], "InputError", remedy)
    refused(["run", compiled], "InputError", "--random")
    refused(["run", compiled, "--input", tmp_path / "none.npy"], "InputError", "none.npy")


def test_any_flipped_bit_of_a_compiled_model_is_found(refused, tmp_path, workspace):
    whole = bytearray((workspace / "digits.ergo").read_bytes())
    rng = np.random.default_rng(0)
    positions = [0, 5, len(whole) - 1, *rng.integers(0, len(whole), 25)]
    for position in positions:
        broken = whole.copy()
        broken[position] ^= 1 << int(rng.integers(8))
        (tmp_path / "b.ergo").write_bytes(broken)
        refused(["report", tmp_path / "b.ergo"], "ProgramError", "b.ergo")
    for length in (0, 3, 40, len(whole) // 2, len(whole) - 1):
        (tmp_path / "b.ergo").write_bytes(whole[:length])
        refused(["run", tmp_path / "b.ergo", "--random", "0"], "ProgramError")


@pytest.mark.parametrize(
    "options",
    [
        ["--memory", "16KiB"],
        ["--objective", "memory"],
        ["--target", "ergo/2"],
        ["--calibration", "cal.npz"],
        ["--strict"],
        ["--stream"],
    ],
)
def test_options_that_a_compiled_model_could_not_heed(refused, workspace, options):
    refused(["report", workspace / "digits.ergo", *options], "InputError", options[0], "no effect")


def test_what_a_compiled_file_does_not_hold(refused, workspace):
    refused(["report", workspace / "digits.ergo", "--compare"], "InputError", "float network")
    refused(
        ["eval", workspace / "digits.ergo", "--data", workspace / "data.npz", "--float"], "InputError", "float network"
    )


@pytest.mark.parametrize("rate", ["0", "-5", "nan", "inf", "many"])
def test_frame_rates(workspace, capsys, rate):
    with pytest.raises(SystemExit) as stop:
        main(["report", str(workspace / "digits.ergo"), f"--fps={rate}"])
    assert stop.value.code == 2 and "frame rate" in capsys.readouterr().err


def test_targets(refused, tmp_path, workspace):
    refused(["compile", MODEL, "--target", "ergo/9", "--calibration", workspace / "cal.npz"], "TargetError", "ergo/9")
    refused(["compile", MODEL, "--target", "llvm", "--calibration", workspace / "cal.npz"], "TargetError")
    for name, text in (("cut.json", '{"name": "x", '), ("list.json", "[]"), ("lacks.json", '{"name": "x"}')):
        (tmp_path / name).write_text(text)
        refused(["targets", tmp_path / name], "TargetError", name)
    refused(["targets", tmp_path / "missing.json"], "TargetError", "missing.json")


def test_too_small_a_memory_names_peak_limit_and_tensors(refused, tmp_path, workspace):
    error = refused(
        ["compile", MODEL, "--memory", "20KiB", "--calibration", workspace / "cal.npz", "-o", tmp_path / "o.ergo"],
        "OutOfMemoryError",
        "20480",
        "remedy",
    )
    assert "body" in error  # names of layers alive at the peak
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("limit, word", [("8KiB", "constants alone exceed"), ("22000", "is the least that was found")])
def test_infeasible_limits_name_the_best_peak_the_bound_and_what_holds_it(refused, workspace, limit, word):
    """A peak it names is reached when it is asked for; and one byte less is refused."""
    arguments = ["compile", MODEL, "--calibration", workspace / "cal.npz", "--compression", "off"]
    error = refused(
        [*arguments, "--memory", limit], "OutOfMemoryError", "in use there: ", "none goes below", "constant bytes", word
    )
    peak = int(re.search(r"a peak of (\d+) bytes", error)[1])
    assert peak > bytes_of(limit) and f"--memory {peak}" in error
    assert main([str(a) for a in [*arguments, "--memory", peak]]) == 0
    refused(
        [*arguments, "--memory", peak - 1], "OutOfMemoryError", f"a peak of {peak} bytes", "1 more than the memory has"
    )


def test_a_refusal_with_dense_weights_says_what_coded_ones_take(refused, workspace):
    arguments = ["compile", MODEL, "--calibration", workspace / "cal.npz", "--compression", "off", "--memory", "8KiB"]
    error = refused([*arguments, "--weights", "dense"], "OutOfMemoryError", "coded weights (")
    coded, dense = map(int, re.search(r"take down to (\d+) constant bytes instead of (\d+)", error).groups())
    assert coded < dense and f"{dense} constant bytes +" in error
    assert f"{coded} constant bytes +" in refused([*arguments, "--weights", "coded"], "OutOfMemoryError")


def test_unwritable_outputs_fail_before_the_work(refused, tmp_path, workspace):
    for option in ("-o", "--json", "--html", "--trace"):
        refused(
            ["compile", MODEL, "--calibration", workspace / "cal.npz", option, tmp_path / "no" / "such.ergo"],
            "OutputError",
            "such.ergo",
        )
    refused(
        ["compile", MODEL, "--calibration", workspace / "cal.npz", "-o", tmp_path / "x.bin"], "OutputError", ".ergo"
    )
    for command, suffix in (
        ("compile", ".ergo"),
        ("compress", ".ergoz"),
    ):  # a folder that takes no files, whatever its rights say
        first = tmp_path / f"first{suffix}"
        refused(
            [command, MODEL, "--calibration", workspace / "cal.npz", "-o", first, "--json", "/proc/ergo.json"],
            "OutputError",
            "/proc/ergo.json",
        )
        assert not first.exists()
    for option in ("--json", "--html", "--trace"):  # begins like any other, and takes nothing
        refused(
            [
                "compile",
                MODEL,
                "--calibration",
                workspace / "cal.npz",
                "-o",
                tmp_path / "never.ergo",
                option,
                "/dev/full",
            ],
            "OutputError",
            "/dev/full",
        )
    assert not os.listdir(tmp_path)


def test_arrays_that_claim_more_than_there_is_memory_for(refused, tmp_path, workspace):
    np.save(tmp_path / "huge.npy", np.zeros((1, 3), np.float32))
    header = (tmp_path / "huge.npy").read_bytes()[:128]
    (tmp_path / "huge.npy").write_bytes(header.replace(b"(1, 3), }", b"(%d, 3), }" % 10**13)[:128])
    for arguments, kind in (
        (["run", workspace / "digits.ergo", "--input"], "InputError"),
        (["compile", MODEL, "--calibration"], "CalibrationError"),
    ):
        refused(
            [*arguments, tmp_path / "huge.npy"], kind, "huge.npy", "larger than the file", "0 bytes are there", "remedy"
        )


def test_strict_lists_what_runs_on_the_host(refused, tmp_path, workspace):
    node = helper.make_node("Hardmax", ["x"], ["v"], name="best")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 8))],
        [helper.make_tensor_value_info("v", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "hardmax.onnx")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32))
    command = ["compile", tmp_path / "hardmax.onnx", "--calibration", tmp_path / "x.npy", "--strict"]
    refused(command, "UnsupportedError", "one_hot")


def test_usage_errors_exit_with_two(capsys):
    for arguments in (
        [],
        ["fly"],
        ["compile"],
        ["compile", MODEL, "--memory", "9" * 400],
        ["compile", MODEL, "--memory", "lots"],
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
    assert "lots" in capsys.readouterr().err


def test_a_result_never_overwrites_an_input_or_another_result(refused, tmp_path, workspace):
    before = (workspace / "digits.ergo").read_bytes()
    model, image = workspace / "digits.ergo", workspace / "image.npy"
    refused(["report", model, "--json", model], "OutputError", "input")
    refused(["disasm", model, "-o", model], "OutputError", "input")
    refused(["run", model, "--random", "0", "--output", model], "OutputError", "input")
    refused(["run", model, "--input", f"image={image}", "--output", image], "OutputError", "input")
    refused(["report", model, "--json", tmp_path / "r", "--html", tmp_path / "r"], "OutputError", "another result")
    refused(["run", model, "--random", "-1"], "InputError", "--random")
    refused(["report", model, "--json", ""], "OutputError", "no name")
    assert model.read_bytes() == before and not os.listdir(tmp_path)


def test_compiled_models_with_a_true_checksum_and_false_content(refused, tmp_path, workspace):
    """The parts behind the checksum are read as if anybody could have written them."""
    sections = container.read(workspace / "digits.ergo")
    meta, chain = sections["meta"], sections["chain"]
    wrong = [
        {**sections, "meta": chain, "chain": meta},
        {"meta": b"\xff", "library": b""},
        {"meta": b"[" * 100_000, "library": b""},
        {"meta": meta},
        {"chain": chain},
        {**sections, "chain": b"{}"},
        {**sections, "chain": b"["},
    ]
    for number, content in enumerate(wrong):
        container.write(tmp_path / f"{number}.ergo", content)
        refused(["report", tmp_path / f"{number}.ergo"], "ProgramError")
    for library in (b"", b"\x7fELF" + bytes(100)):
        container.write(tmp_path / "library.ergo", {"meta": meta, "library": library})
        refused(["run", tmp_path / "library.ergo", "--random", "0"], "ProgramError", "library")
    payload = (workspace / "digits.ergo").read_bytes()[container.HEAD.size :] + b"\0"
    head = container.HEAD.pack(container.MAGIC, container.VERSION, container._digest(container.VERSION, payload))
    (tmp_path / "tail.ergo").write_bytes(head + payload)
    refused(["report", tmp_path / "tail.ergo"], "ProgramError")


def test_standard_output_takes_one_text(refused, tmp_path, workspace, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = workspace / "digits.ergo"
    refused(["report", model, "--html", "-", "--trace", "-"], "OutputError", "standard output", "another result")
    refused(["explore", MODEL, "--html", "-", "--json", "-"], "OutputError", "standard output", "another result")
    refused(["run", model, "--random", "0", "-o", "-"], "OutputError", "no text", "./-")
    refused(["compile", MODEL, "--calibration", workspace / "cal.npz", "-o", "-"], "OutputError", "no text")
    assert not os.listdir(tmp_path)


def test_an_unknown_suffix_names_the_known_ones(refused, tmp_path):
    for name in ("net", "net.ergo.xz", "net.pt"):
        (tmp_path / name).write_bytes(b"")  # a file that is not there is refused before
    for name in ("net", "net.ergo.xz"):
        refused(["run", tmp_path / name, "--random", "0"], "ModelError", ".onnx, .onnx.xz, .tflite, .pt2", ".ergo")
    refused(["run", tmp_path / "net.pt", "--random", "0"], "ModelError", "torch.export.save")


def test_quantizing_options_of_a_model_that_is_quantized_already(refused, tmp_path, workspace):
    refused(["compile", MODEL, "--project-channels", "0.1"], "CalibrationError")
    onnx.save(qdq_model(), tmp_path / "qdq.onnx")
    for option in (["--project-channels", "0.1"], ["--method", "mse"], ["--percentile", "99"], ["--equalize", "off"]):
        for command in ("compile", "report", "explore"):
            refused([command, tmp_path / "qdq.onnx", *option], "InputError", option[0], "quantized already")
    with pytest.raises(InputError, match="no channels are projected"):
        tvm_ergo.compile(qdq_model(), quantize=tvm_ergo.QuantizeOptions(project_channels=0.1))


def qdq_model() -> onnx.ModelProto:
    """float [1, 4] -> quantize -> dequantize -> relu -> quantize -> dequantize."""
    pairs = [("x", "q"), ("q", "d"), ("d", "r"), ("r", "p"), ("p", "y")]
    kinds = ["QuantizeLinear", "DequantizeLinear", "Relu", "QuantizeLinear", "DequantizeLinear"]
    nodes = [
        helper.make_node(kind, [a] if kind == "Relu" else [a, "scale", "zero"], [b])
        for kind, (a, b) in zip(kinds, pairs)
    ]
    graph = helper.make_graph(
        nodes,
        "qdq",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [
            numpy_helper.from_array(np.array(0.1, np.float32), "scale"),
            numpy_helper.from_array(np.array(3, np.int8), "zero"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def test_options_that_contradict_each_other_or_would_be_ignored(refused, tmp_path, workspace):
    model, image = workspace / "digits.ergo", workspace / "image.npy"
    calibrated = ["compile", MODEL, "--calibration", workspace / "cal.npz"]
    refused([*calibrated, "--percentile", "99"], "InputError", "--method percentile")
    refused(["run", model, "--input", image, "--random", "3"], "InputError", "one of the two")
    refused(["run", model, "--input", image, "--input", f"image={image}"], "InputError", "twice: image")
    refused(["eval", model, "--data", workspace / "data.npz", "--test", "foo"], "InputError", "--test")
    refused(["eval", "nothere", "--data", workspace / "data.npz"], "InputError", "no file and no evaluation task")
    np.savez(tmp_path / "scalar.npz", x=np.float32(3), y=np.array([0]))
    refused(["eval", model, "--data", tmp_path / "scalar.npz"], "InputError", "does not fit together")
    assert main([str(a) for a in [*calibrated, "--project-channels", "1e308"]]) == 0
