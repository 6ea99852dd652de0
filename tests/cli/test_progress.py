"""Into a pipe or a log, long work says on standard error how far it is; standard output stays the result's alone."""

import json
import re
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from tvm_ergo import zoo
from tvm_ergo.cli import main, progress
from tvm_ergo.cli.progress import Lines, plain_lines


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only where a test says so."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_new_step_is_told_sooner_than_the_same_one(clock, capsys):
    lines = Lines(new_s=2, same_s=10)
    for second, step in (
        (1, "load"),
        (2, "load"),
        (5, "load"),
        (11, "load"),
        (12, "build"),
        (13, "build"),
        (15, "run"),
        (24, "run"),
        (25, "run"),
    ):
        clock[0] = float(second)
        lines.tell(step, f"{second} of 30")
    told = re.findall(r"tvm-ergo: (\w+) (\d+) of 30 \((\d+) s\)", capsys.readouterr().err)
    assert told == [("load", "2", "2"), ("build", "12", "12"), ("run", "15", "15"), ("run", "25", "25")]


def test_a_step_that_says_nothing_is_told_too(capsys):
    with plain_lines("compiling", Lines(new_s=0.0005, same_s=0.0005)) as advance:
        advance(3, 10, "plan")
        deadline = time.monotonic() + 30
        while (
            len(lines := re.findall("tvm-ergo: plan 3 of 10", capsys.readouterr().err)) < 1
            and time.monotonic() < deadline
        ):
            time.sleep(0.001)
        assert lines
    assert not [t for t in threading.enumerate() if t.name == "progress"]


def test_a_reader_that_went_away_does_not_stop_the_work(monkeypatch, clock):
    class Closed:
        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

        def flush(self):
            pass

    monkeypatch.setattr(progress.sys, "stderr", Closed())
    lines = Lines()
    clock[0] = 60.0
    lines.tell("load", "")
    assert lines.last == 60.0


@contextmanager
def told_at_once(description, lines):
    """As `plain_lines`, each step as it comes: how fast the machine is decides nothing."""
    lines.new_s = lines.same_s = 0.0
    yield lambda done, total=None, description=description: lines.tell(description, f"{done:,} of {total or 0:,}")


def test_standard_output_is_the_result_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "plain_lines", told_at_once)
    train, _, test, labels = zoo.digits()
    np.save(tmp_path / "calibration.npy", train[:16])
    np.savez(tmp_path / "test.npz", x=test[:100], y=labels[:100])
    assert (
        main(
            [
                "eval",
                str(zoo.DIGITS_MODEL),
                "--calibration",
                str(tmp_path / "calibration.npy"),
                "--data",
                str(tmp_path / "test.npz"),
                "--json",
                "-",
            ]
        )
        == 0
    )
    told = capsys.readouterr()
    assert json.loads(told.out)[0]["samples"] == 100 and re.search(r"tvm-ergo: test \(chip int8\) \d+ of 100", told.err)
