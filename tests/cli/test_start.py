"""The command line starts without what reads models and plans: help and a missing file are answered at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

CHECK = """
import sys
from tvm_ergo.cli import main
try:
    code = main({arguments})
except SystemExit as stop:
    code = stop.code
heavy = [name for name in ("tvm", "onnx", "ortools", "plotly", "xgboost", "torch") if name in sys.modules]
print("code", code, "heavy", heavy, file=sys.stderr)
"""


def started(*arguments: str) -> str:
    script = CHECK.format(arguments=list(arguments))
    return subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True).stderr


@pytest.mark.parametrize(
    "arguments", [("--help",), ("compile", "--help"), ("explore", "--help"), ("tune", "--help"), ("--version",)]
)
def test_help_imports_nothing_heavy(arguments):
    assert started(*arguments).splitlines()[-1] == "code 0 heavy []"


@pytest.mark.parametrize("command", ["compile", "report", "run", "explore", "disasm", "eval", "compress", "tune"])
def test_a_missing_file_is_said_before_anything_is_imported(command, tmp_path):
    rest = {"tune": ["--out", str(tmp_path / "out")], "compress": ["--calibration", "c.npz", "-o", "x.ergoz"]}.get(
        command, []
    )
    told = started(command, str(tmp_path / "missing.onnx"), *rest)
    assert "missing.onnx" in told and "ModelError" in told and told.splitlines()[-1] == "code 2 heavy []"
