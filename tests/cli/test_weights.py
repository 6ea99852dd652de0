"""The option ``--weights``."""

import json

import pytest

from tvm_ergo import zoo
from tvm_ergo.cli import main


@pytest.mark.parametrize("weights", ["dense", "coded"])
def test_compile(weights, workspace, tmp_path, capsys):
    out = tmp_path / "report.json"
    assert (
        main(
            [
                "compile",
                str(zoo.DIGITS_MODEL),
                "--calibration",
                str(workspace / "cal.npz"),
                "--weights",
                weights,
                "--verbose",
                "--json",
                str(out),
                "-o",
                str(tmp_path / "net.ergo"),
            ]
        )
        == 0
    )
    (program,) = json.loads(out.read_text())["programs"]
    assert program["weights"] and (weights == "coded") == any(row["codec"] for row in program["weights"])
    assert "weights: " in capsys.readouterr().out
    assert main(["report", str(tmp_path / "net.ergo"), "--weights", "coded"]) == 2
    assert "--weights" in capsys.readouterr().err
