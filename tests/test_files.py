"""Nothing half-written: the target keeps its old content when writing fails, and no temporary file stays."""

import os
import threading

import pytest

from tvm_ergo.files import check_writable, write_atomically
from tvm_ergo.target.errors import OutputError


def test_writes_and_replaces(tmp_path):
    target = tmp_path / "a.txt"
    write_atomically(target, "one")
    write_atomically(target, b"two")
    assert target.read_text() == "two" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("make", [lambda d: d / "missing" / "a", lambda d: d])
def test_unwritable_is_our_error(tmp_path, make):
    for action in (check_writable, lambda path: write_atomically(path, "x")):
        with pytest.raises(OutputError) as caught:
            action(make(tmp_path))
        assert caught.value.remedy


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    target = write_atomically(tmp_path / "a.txt", "old")
    monkeypatch.setattr(os, "replace", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OutputError, match="cannot write"):
        write_atomically(target, "new")
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_an_interrupted_write_leaves_no_temporary_file(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a.txt", "new")
    assert not os.listdir(tmp_path)


def test_pipes_and_links_stay_what_they_are(tmp_path):
    """A rename over a device would replace it: /dev/null as an output must stay /dev/null."""
    pipe, link, read = tmp_path / "pipe", tmp_path / "link", []
    os.mkfifo(pipe)
    check_writable(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_atomically(pipe, "x" * 100_000)
    reader.join()
    assert pipe.is_fifo() and read == [b"x" * 100_000]
    link.symlink_to(tmp_path / "real")
    write_atomically(link, "one")
    assert link.is_symlink() and (tmp_path / "real").read_text() == "one"
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe", "real"]


@pytest.mark.skipif(not os.path.exists("/dev/full") or os.access("/dev", os.W_OK), reason="needs /dev/full and no right to replace it")
def test_a_full_device():
    with pytest.raises(OutputError, match="No space left"):
        write_atomically("/dev/full", "x")


def test_names_as_long_as_they_may_be_and_longer(tmp_path):
    assert write_atomically(tmp_path / ("x" * 255), "one").read_text() == "one"
    for name in ("x" * 300, "nul\0inside"):
        for action in (check_writable, lambda path: write_atomically(path, "x")):
            with pytest.raises(OutputError):
                action(tmp_path / name)
    assert len(os.listdir(tmp_path)) == 1
