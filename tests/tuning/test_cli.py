"""``tvm-ergo tune``: what it writes and prints; wrong input is one message and exit code 2; Ctrl-C keeps what there
is."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tvm_ergo import zoo
from tvm_ergo.cli import main

MODEL = str(zoo.DIGITS_MODEL)


@pytest.fixture(scope="module")
def calibration(tmp_path_factory):
    path = tmp_path_factory.mktemp("cal") / "cal.npz"
    np.savez(path, image=zoo.digits()[0][:16])
    return str(path)


def test_tune_then_compile_with_its_results(calibration, tmp_path, capsys):
    arguments = [MODEL, "--calibration", calibration]
    assert (
        main(
            [
                "tune",
                *arguments,
                "--trials",
                "20",
                "--power-budget",
                "75mW",
                "--fps",
                "30",
                "--out",
                str(tmp_path / "t"),
                "--json",
                str(tmp_path / "s.json"),
                "--plot",
                str(tmp_path / "p.html"),
            ]
        )
        == 0
    )
    summary, printed = json.loads((tmp_path / "s.json").read_text()), capsys.readouterr().out
    assert summary["tuned"]["meets_budget"] and summary["tuned"]["power_mw"] <= 75 and "--database" in printed
    assert summary == json.loads((tmp_path / "t" / "summary.json").read_text())
    assert "plotly" in (tmp_path / "p.html").read_text()
    assert main(["compile", *arguments, "--database", str(tmp_path / "t")]) == 0
    assert f"{summary['tuned']['cycles']:,} cycles" in capsys.readouterr().out
    assert main(["compile", *arguments, "--database", str(tmp_path / "t"), "--weights", "coded"]) == 2
    assert "other options" in capsys.readouterr().err


def test_a_budget_that_the_search_misses_is_an_error_and_keeps_the_results(calibration, tmp_path, capsys):
    arguments = [
        "tune",
        MODEL,
        "--calibration",
        calibration,
        "--trials",
        "4",
        "--power-budget",
        "1.5111mW",
        "--fps",
        "30",
        "--out",
        str(tmp_path / "t"),
    ]
    assert main([*arguments, "--json", str(tmp_path / "s.json")]) == 2
    assert "no schedule found meets the budgets" in capsys.readouterr().err
    assert json.loads((tmp_path / "s.json").read_text())["met"] is False and (tmp_path / "t" / "best.json").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_ctrl_c_anywhere_is_one_line_also_where_an_import_makes_another_error_of_it(monkeypatch, capsys, error):
    import tvm_ergo.cli as cli

    def interrupted():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise error from None

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start background jobs with it ignored
    try:
        monkeypatch.setattr(cli, "build_parser", interrupted)
        assert main(["targets"]) == 130 and capsys.readouterr().err == "tvm-ergo: interrupted\n"
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "wrong",
    [
        ["--power-budget", "0.01mW", "--fps", "30"],
        ["--memory", "1KiB"],
        ["--calibration", "none.npz"],
        ["--json", "no/such/folder.json"],
        ["--out", MODEL],
        ["--processes", "100000"],
    ],
)
def test_errors_are_one_message_and_code_2(calibration, tmp_path, capsys, wrong):
    assert (
        main(["tune", MODEL, "--calibration", calibration, "--out", str(tmp_path / "t"), "--trials", "4", *wrong]) == 2
    )
    error = capsys.readouterr().err
    assert error.startswith("tvm-ergo: ") and "Traceback" not in error


@pytest.mark.parametrize(
    "wrong",
    [
        ["--power-budget", "many"],
        ["--power-budget", "5kg"],
        ["--trials", "0"],
        ["--fps", "-1"],
        ["--objective", "beauty"],
    ],
)
def test_values_that_are_none_are_refused_by_the_parser(tmp_path, capsys, wrong):
    with pytest.raises(SystemExit) as stopped:
        main(["tune", MODEL, "--out", str(tmp_path / "t"), *wrong])
    assert stopped.value.code == 2 and "Traceback" not in capsys.readouterr().err


def test_a_database_that_is_none_is_refused(calibration, tmp_path, capsys):
    assert main(["compile", MODEL, "--calibration", calibration, "--database", str(tmp_path)]) == 2
    assert "DatabaseError" in capsys.readouterr().err


def test_ctrl_c_ends_with_the_best_so_far(calibration, tmp_path):
    folder = tmp_path / "t"
    process = subprocess.Popen(
        [
            sys.executable,
            "-P",
            "-m",
            "tvm_ergo.cli",
            "tune",
            MODEL,
            "--calibration",
            calibration,
            "--memory",
            "24KiB",
            "--trials",
            "100000",
            "--out",
            str(folder),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    log, deadline = folder / "trials.jsonl", time.monotonic() + 120
    while (
        process.poll() is None
        and time.monotonic() < deadline
        and not (log.exists() and len(log.read_bytes().splitlines()) > 4)
    ):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    summary = json.loads((folder / "summary.json").read_text())
    assert (
        summary["stopped"] in ("interrupted", "nothing new to try")
        and "--database" in output
        and (folder / "best.json").exists()
    )
