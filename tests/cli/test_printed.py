"""What the terminal is told: names that hold its own commands, and standard output on a full disk."""

import json
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tvm_ergo import zoo
from tvm_ergo.cli import main
from tvm_ergo.printed import SafeConsole, printable

NAME = "in\x1b]0;title\x07put\x1b[31m[/bold][red]\u202egnp"


def test_controls_are_escaped():
    assert printable("a\x1b[1m\x07\x9b\u202e\ud800\tb\n") == r"a\x1b[1m\x07\x9b\u202e\ud800" + "\tb\n"
    assert printable("naïve 漢字 😀") == "naïve 漢字 😀"


def test_a_console_says_names_as_they_are(capsys):
    from rich.table import Table

    table = Table(title=NAME)
    table.add_column(NAME)
    table.add_row(NAME)
    console = SafeConsole(width=200)
    console.print(NAME)
    console.print(table)
    out = capsys.readouterr().out
    assert (
        "\x1b" not in out
        and "\u202e" not in out
        and out.count(r"in\x1b]0;title\x07put\x1b[31m[/bold][red]\u202egnp") == 4
    )


def test_names_of_a_model_do_not_reach_the_terminal_raw(tmp_path, capsys):
    graph = helper.make_graph(
        [helper.make_node("Relu", [NAME], ["out\x1bput"], name="no\x1bde")],
        "g",
        [helper.make_tensor_value_info(NAME, TensorProto.FLOAT, (1, 8))],
        [helper.make_tensor_value_info("out\x1bput", TensorProto.FLOAT, (1, 8))],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    np.save(tmp_path / "cal.npy", np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32))
    commands = [
        ["compile", path, "-o", tmp_path / "net.ergo", "--calibration", tmp_path / "cal.npy"],
        ["report", tmp_path / "net.ergo", "--html", tmp_path / "r.html"],
        ["run", tmp_path / "net.ergo", "--random", "0"],
        ["disasm", tmp_path / "net.ergo"],
        ["run", tmp_path / "net.ergo", "--input", f"x={tmp_path / 'cal.npy'}"],
    ]
    codes = [main([str(a) for a in command]) for command in commands]
    told = capsys.readouterr()
    assert codes == [0, 0, 0, 0, 2]
    assert (
        "\x1b" not in told.out + told.err
        and "\u202e" not in told.out + told.err
        and r"\x1b" in told.out
        and r"\x1b" in told.err
    )
    page = (tmp_path / "r.html").read_text()
    assert "in\x1b" not in page and r"in\x1b" in page


@pytest.mark.parametrize("command", ["report digits.ergo", "disasm digits.ergo", "ops --json -"])
def test_a_reader_that_goes_away_is_no_failure(workspace, command):
    """As with ``| head -1``: 1 would say that a condition is met."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "tvm_ergo.cli", *command.split()],
            cwd=workspace,
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0 and "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_a_line_end_in_a_name_begins_no_line(tmp_path, workspace, capsys):
    name = "in\n  remedy: type this\nput"
    net = onnx.load(zoo.DIGITS_MODEL)
    for node in net.graph.node:
        node.input[:] = [name if i == "image" else i for i in node.input]
        node.output[:] = [name + "o" if o == net.graph.output[0].name else o for o in node.output]
    net.graph.input[0].name, net.graph.output[0].name = name, name + "o"
    onnx.save(net, tmp_path / "net.onnx")
    np.savez(tmp_path / "cal.npz", **{name: np.load(workspace / "cal.npz")["image"]})
    path = str(tmp_path / "net.ergo")
    assert main(["compile", str(tmp_path / "net.onnx"), "--calibration", str(tmp_path / "cal.npz"), "-o", path]) == 0
    assert main(["report", path]) == main(["run", path, "--random", "0"]) == 0
    assert main(["run", path, "--input", f"x={workspace / 'image.npy'}"]) == 2
    told = capsys.readouterr()
    lines = [line.strip(" │") for line in (told.out + told.err).splitlines()]
    assert not any(line.startswith("remedy: type this") for line in lines) and r"in\n" in told.out + told.err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device here")
@pytest.mark.parametrize(
    "command",
    [["targets"], ["ops"], ["ops", "--json", "-"], ["report", "digits.ergo", "--json", "-"], ["disasm", "digits.ergo"]],
    ids=" ".join,
)
def test_standard_output_on_a_full_disk(workspace, command):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "tvm_ergo.cli", *command],
            cwd=workspace,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=300,
        )
    assert done.returncode == 2 and "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert "tvm-ergo: OutputError" in done.stderr and "standard output" in done.stderr


@pytest.mark.parametrize("closed", ["1", "2", "1,2", "0,1,2"])
def test_closed_standard_files(workspace, closed, tmp_path):
    """``>&-``: what nobody reads is dropped, a file that is written holds what it should and nothing else."""
    out, shell = tmp_path / "r.json", " ".join(f"{number}>&-" for number in closed.split(","))
    command = f'"$0" -P -m tvm_ergo.cli report "$1" --json "$2" {shell}'
    again = subprocess.run(["sh", "-c", command, sys.executable, str(workspace / "digits.ergo"), str(out)])
    assert again.returncode == 0 and json.loads(out.read_text())["cycles"]
    if "1" in closed:
        command = f'"$0" -P -m tvm_ergo.cli report "$1" --json - {shell}'
        asked = subprocess.run(
            ["sh", "-c", command, sys.executable, str(workspace / "digits.ergo")], capture_output=True, text=True
        )
        assert asked.returncode == 2 and "Traceback" not in asked.stderr
        assert "2" in closed or "standard output is closed" in asked.stderr
