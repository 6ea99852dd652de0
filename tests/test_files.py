"""Nothing half-written: the target keeps its old content when writing fails, and no temporary file stays."""

import os

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
