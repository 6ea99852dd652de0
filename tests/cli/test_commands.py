"""Every command on good input: exit code 0, results where they were asked for."""

import json
import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tvm_ergo import demo, frontend, zoo
from tvm_ergo.cli import COMMANDS, main
from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.relay_passes.macro import normalize
from tvm_ergo.report.model import Report
from tvm_ergo.target.program import Program

MODEL = str(zoo.DIGITS_MODEL)


def test_help_of_every_command(capsys):
    for command in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0 and "usage: tvm-ergo" in capsys.readouterr().out


def test_demo(tmp_path, capsys):
    demo.main(["--out", str(tmp_path / "demo")])
    said = capsys.readouterr().out
    assert {f.name for f in (tmp_path / "demo").iterdir()} == {
        "digits.ergo",
        "report.html",
        "report.json",
        "trace.json",
    }
    shares = [float(share) for share in re.findall(r"([0-9.]+) %", said.split("accuracy on")[1])[:2]]
    assert min(shares) > 98 and Report.model_validate_json((tmp_path / "demo" / "report.json").read_text()).errors
    assert main(["run", str(tmp_path / "demo" / "digits.ergo"), "--random", "0"]) == 0


def test_a_file_called_like_a_task_is_what_is_evaluated(workspace, tmp_path, capsys):
    """Named after a task, whose own model takes other shapes."""
    images, labels = zoo.digits()[2:]
    np.savez(tmp_path / "test.npz", x=images[:20], y=labels[:20])
    file = tmp_path / "ic_resnet8_fp32.onnx"
    file.write_bytes(zoo.DIGITS_MODEL.read_bytes())
    given = [str(file), "--calibration", str(workspace / "cal.npz"), "--data", str(tmp_path / "test.npz")]
    assert main(["eval", *given, "--json", str(tmp_path / "e.json")]) == 0
    assert json.loads((tmp_path / "e.json").read_text())[0]["figures"]["top1"] >= 95
    assert main(["eval", str(file)]) == 2 and "no data to evaluate on" in capsys.readouterr().err


def test_report_in_every_form(workspace, tmp_path, capsys):
    files = {"--json": tmp_path / "r.json", "--html": tmp_path / "r.html", "--trace": tmp_path / "t.json"}
    assert (
        main(
            ["report", str(workspace / "digits.ergo"), "--fps", "30", *(str(x) for pair in files.items() for x in pair)]
        )
        == 0
    )
    report = Report.model_validate_json(files["--json"].read_text())
    assert report.macs > 300_000 and report.power[0].frames_per_s == 30 and report.peak_activation_bytes > 4096
    assert sum(layer.macs for layer in report.programs[0].layers) == report.macs
    assert "Plotly.newPlot" in files["--html"].read_text()
    events = json.loads(files["--trace"].read_text())["traceEvents"]
    assert {e["ph"] for e in events} >= {"X", "M"}
    assert "mW" in capsys.readouterr().out


def test_objective_memory_needs_less(workspace, tmp_path, capsys):
    peaks = []
    for objective in ("energy", "memory"):
        assert (
            main(
                [
                    "report",
                    MODEL,
                    "--calibration",
                    str(workspace / "cal.npz"),
                    "--objective",
                    objective,
                    "--compression",
                    "off",
                    "--json",
                    "-",
                ]
            )
            == 0
        )
        out = capsys.readouterr().out
        peaks.append(Report.model_validate_json(out[out.index("{") :]).peak_activation_bytes)
    assert peaks[1] < peaks[0]


def test_points_differ(workspace, capsys):
    energies = []
    for point in ("nominal", "eco"):
        assert main(["report", str(workspace / "digits.ergo"), "--point", point, "--json", "-"]) == 0
        energies.append(json.loads(capsys.readouterr().out)["energy_uj"])
    assert energies[1] < energies[0]


def test_report_of_power_and_zeros(workspace, capsys):
    assert (
        main(
            [
                "report",
                str(workspace / "digits.ergo"),
                "--fps",
                "30",
                "--point",
                "low",
                "--window",
                "5",
                "--zeros",
                str(workspace / "image.npy"),
                "--json",
                "-",
            ]
        )
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert (found["point"], found["peak"]["window_us"], found["zeros"]["sample"]) == (
        "low",
        5.0,
        "image.npy",
    ) and 0 < found["zeros"]["share"] < 1
    assert [row["point"] for row in found["points"]] == ["nominal", "low", "eco"] and found["points"][1][
        "power"
    ] == found["power"]
    assert found["power"][0]["gated_mw"] < found["power"][0]["power_mw"] and {
        row["part"] for row in found["parts"]
    } >= {"TENSOR", "memory", "always on"}


def test_compare_from_the_model_file(workspace, capsys):
    assert main(["report", MODEL, "--calibration", str(workspace / "cal.npz"), "--compare", "--json", "-"]) == 0
    errors = json.loads(capsys.readouterr().out)["errors"]
    assert len(errors) >= 10 and all(row["sqnr_db"] is None or row["sqnr_db"] > 15 for row in errors)
    assert (
        main(
            [
                "report",
                MODEL,
                "--calibration",
                str(workspace / "cal.npz"),
                "--compare",
                str(workspace / "image.npy"),
                "--json",
                "-",
            ]
        )
        == 0
    )
    assert 10 <= len(json.loads(capsys.readouterr().out)["errors"])


def test_run_equals_the_python_api(workspace, tmp_path, capsys):
    import tvm_ergo

    assert (
        main(
            [
                "run",
                str(workspace / "digits.ergo"),
                "--input",
                str(workspace / "image.npy"),
                "-o",
                str(tmp_path / "o.npz"),
            ]
        )
        == 0
    )
    expected = tvm_ergo.load(workspace / "digits.ergo").run(np.load(workspace / "image.npy")).outputs["logits"]
    np.testing.assert_array_equal(np.load(tmp_path / "o.npz")["logits"], expected)


def test_random_input_is_seeded(workspace, capsys):
    outputs = []
    for seed in ("1", "1", "2"):
        assert main(["run", str(workspace / "digits.ergo"), "--random", seed, "--json", "-"]) == 0
        outputs.append(json.loads(capsys.readouterr().out)["logits"]["data"])
    assert outputs[0] == outputs[1] != outputs[2]


def test_eval_on_own_data(workspace, capsys):
    assert main(["eval", str(workspace / "digits.ergo"), "--data", str(workspace / "data.npz"), "--json", "-"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["samples"] == 20 and row["figures"]["top1"] >= 95


def test_disassembly_assembles_back(workspace, tmp_path, capsys):
    import tvm_ergo

    assert main(["disasm", str(workspace / "digits.ergo"), "--full", "-o", str(tmp_path / "d.asm")]) == 0
    (program,) = tvm_ergo.load(workspace / "digits.ergo").programs.values()
    assert Program.from_text((tmp_path / "d.asm").read_text()).to_bytes() == program.to_bytes()
    assert main(["disasm", str(workspace / "digits.ergo")]) == 0
    assert len(capsys.readouterr().out) < (tmp_path / "d.asm").stat().st_size


def test_targets_and_ops(capsys):
    assert main(["targets", "--json", "-"]) == 0
    assert {chip["name"] for chip in json.loads(capsys.readouterr().out)} >= {"ergo/1", "ergo/2"}
    assert main(["ops", "conv2d", "--json", "-"]) == 0
    assert all("conv2d" in str(row["operators"]) for row in json.loads(capsys.readouterr().out))


def test_a_chip_file_of_ones_own(workspace, tmp_path, capsys):
    assert main(["targets", "ergo/1", "--json", "-"]) == 0
    chip = json.loads(capsys.readouterr().out)  # one chip: a chip file
    (tmp_path / "mine.json").write_text(json.dumps({**chip, "name": "mine", "memory_bytes": 40000}))
    assert (
        main(
            [
                "compile",
                MODEL,
                "--target",
                str(tmp_path / "mine.json"),
                "--calibration",
                str(workspace / "cal.npz"),
                "-o",
                str(tmp_path / "m.ergo"),
                "--json",
                "-",
            ]
        )
        == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert report["chip"] == "mine" and report["chip_memory_bytes"] == 40000


def test_quantization_options_reach_the_compiler(workspace, capsys):
    sqnr_db = []
    for options in ((), ("--method", "percentile", "--percentile", "90", "--equalize", "off")):
        assert (
            main(["report", MODEL, "--calibration", str(workspace / "cal.npz"), *options, "--compare", "--json", "-"])
            == 0
        )
        sqnr_db.append(json.loads(capsys.readouterr().out)["errors"][-1]["sqnr_db"])
    assert sqnr_db[1] < sqnr_db[0]  # clipping a tenth of all values costs accuracy


@pytest.mark.parametrize("option, begins", [("--html", "<!doctype html>"), ("--trace", "{"), ("--json", "{")])
def test_a_result_alone_on_standard_output(workspace, tmp_path, monkeypatch, capsys, option, begins):
    """The tables go to standard error then, and no file is called "-"."""
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(workspace / "digits.ergo"), option, "-"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(begins) and "mW" in err and not list(tmp_path.iterdir())
    assert option == "--html" or json.loads(out)


def test_eval_of_own_data_gives_the_float_figure_beside_the_chips(workspace, tmp_path, capsys):
    """Of a float model unless told otherwise, on the same samples; of others the reason why there is none."""
    with np.load(workspace / "data.npz") as own:
        labels = np.where(
            np.arange(20) < 3, (own["y"] + 1) % 10, own["y"]
        )  # three are wrong: a figure that is no round hundred
        np.savez(tmp_path / "data.npz", x=own["x"], y=labels)
    own = ["--data", str(tmp_path / "data.npz"), "--json", str(tmp_path / "rows.json")]
    model = ["eval", MODEL, "--calibration", str(workspace / "cal.npz"), *own]
    assert main([str(a) for a in model]) == 0
    chip, in_float = json.loads((tmp_path / "rows.json").read_text())
    assert "float reference" in capsys.readouterr().out and in_float["network"] == "float" and in_float["samples"] == 20
    run = Interpreter(normalize(frontend.load(str(zoo.DIGITS_MODEL)).mod))
    with np.load(tmp_path / "data.npz") as data:
        right = [int(np.argmax(run.run(x[None])[0])) == y for x, y in zip(data["x"], data["y"])]
    assert (
        chip["float reference"]["top1"] == in_float["figures"]["top1"] == pytest.approx(100 * np.mean(right))
        and in_float["figures"]["top1"] < 100
    )
    assert chip["loss"] == pytest.approx(in_float["figures"]["top1"] - chip["figures"]["top1"])
    for arguments, reason in (
        ([*model, "--no-float"], "--no-float"),
        (["eval", workspace / "digits.ergo", *own], "a compiled file does not hold the float network"),
    ):
        assert main([str(a) for a in arguments]) == 0
        (row,) = json.loads((tmp_path / "rows.json").read_text())
        assert reason in row["no float reference"] and row["loss"] is None and reason in capsys.readouterr().out


def test_an_output_of_no_elements_is_printed(tmp_path, capsys):
    node = helper.make_node("Slice", ["x", "at", "at", "axis"], ["y"])
    numbers = [numpy_helper.from_array(np.array([value]), name) for name, value in (("at", 5), ("axis", 3))]
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3, 8, 0))],
        numbers,
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "empty.onnx"
    )
    np.save(tmp_path / "cal.npy", np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32))
    assert main(["run", str(tmp_path / "empty.onnx"), "--calibration", str(tmp_path / "cal.npy"), "--random", "0"]) == 0
    assert "y: float32 [1, 3, 8, 0], no elements" in capsys.readouterr().out
