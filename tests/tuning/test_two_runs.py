"""Two tuning runs on one folder, as processes of their own: whoever comes second hears of the first, from its first
moment on and whatever is asked; what is refused leaves nothing."""

import fcntl
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tvm_ergo import files, zoo
from tvm_ergo.target.errors import OutputError
from tvm_ergo.tuning import store


def tuning(folder, calibration, *more) -> subprocess.Popen:
    command = [sys.executable, "-P", "-m", "tvm_ergo.cli", "tune", str(zoo.DIGITS_MODEL), "--calibration", calibration]
    command += ["--memory", "26000", "--trials", "20000", "--out", str(folder), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def is_locked(folder) -> bool:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def wait_for(process, condition) -> None:
    until = time.monotonic() + 300
    while not condition():
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.005)


def test_the_second_of_two_processes_is_told_so(tmp_path):
    calibration, folder = str(tmp_path / "cal.npz"), tmp_path / "deep" / "run"
    np.savez(calibration, image=zoo.digits()[0][:16])
    first = tuning(folder, calibration)
    try:
        wait_for(first, lambda: is_locked(folder))
        assert not (folder / store.MANIFEST).exists()  # it has hardly begun
        others = [tuning(folder, calibration, *more) for more in ((), ("--resume",))]
        for other in others:
            _, errors = other.communicate()
            assert other.returncode == 2 and "another tuning run is at work in the folder" in errors
            assert "leave --resume out" not in errors and "Traceback" not in errors
        wait_for(first, lambda: (folder / store.TRIALS).exists())
        other = tuning(folder, calibration)
        assert "another tuning run is at work in the folder" in other.communicate()[1] and other.returncode == 2
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    assert not is_locked(folder)  # the kernel let it go


def test_what_is_refused_leaves_nothing(tmp_path):
    folder = tmp_path / "a" / "b"
    with pytest.raises(ValueError), store.claimed(folder):
        assert folder.is_dir() and is_locked(folder)
        with pytest.raises(OutputError, match="another tuning run"), store.claimed(folder):
            pass
        assert is_locked(folder)
        raise ValueError
    assert not (tmp_path / "a").exists()
    with store.claimed(folder):
        (folder / "x").write_text("")
    assert (folder / "x").exists() and not is_locked(folder)
    for wrong in (folder / "x", folder / "x" / "y", tmp_path / "a\0b"):
        with pytest.raises(OutputError, match="cannot make the folder"), store.claimed(wrong):
            pass


def test_a_folder_that_went_away_is_not_written_to(tmp_path, monkeypatch):
    """Between opening it and having the lock, the run that made it was refused."""
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setattr(fcntl, "flock", lambda handle, how: folder.rmdir())
    with pytest.raises(OutputError, match="start again"), store.claimed(folder):
        raise AssertionError


def test_a_run_killed_at_its_first_file_leaves_a_folder_that_may_be_used(tmp_path):
    """What it left of the manifest, as every write that is killed leaves a part beside its target."""
    left = tmp_path / f"{files._prefix(tmp_path / store.MANIFEST)}999999999.abc{files.SUFFIX}"
    left.write_text("{")
    store.check_folder(tmp_path, {}, resume=False)
    assert not left.exists()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="something else"):
        store.check_folder(tmp_path, {}, resume=False)
