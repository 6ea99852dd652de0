"""Nothing half-written: the target keeps its old content when writing fails, and no temporary file stays."""

import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading

import pytest

from tvm_ergo import files
from tvm_ergo.files import SUFFIX, _prefix, check_writable, write_atomically, write_together
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


def test_what_rights_do_not_tell_is_found_before_the_work(tmp_path, monkeypatch):
    """A folder that takes no files (the superuser may do everything), a link into nowhere, a socket; where it can be
    written, nothing is left of the attempt."""
    (tmp_path / "dangling").symlink_to(tmp_path / "missing" / "a")
    with socket.socket(socket.AF_UNIX) as bound:
        monkeypatch.chdir(tmp_path)
        bound.bind("socket")
        for path in ("/proc/ergo.json", tmp_path / "dangling", tmp_path / "socket"):
            with pytest.raises(OutputError, match="cannot write"):
                check_writable(path)
    check_writable(tmp_path / "new")
    check_writable("/dev/null")
    assert sorted(os.listdir(tmp_path)) == ["dangling", "socket"]


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    target = write_atomically(tmp_path / "a.txt", "old")
    monkeypatch.setattr(os, "replace", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OutputError, match="cannot write"):
        write_atomically(target, "new")
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_results_are_written_together_or_not_at_all(tmp_path):
    """The second cannot be: the first keeps what it held, and nothing temporary stays."""
    first, wrong = write_atomically(tmp_path / "a.txt", "old"), [tmp_path / "missing" / "b", tmp_path]
    if os.path.exists("/dev/full"):
        wrong.append("/dev/full")
    for path in wrong:
        with pytest.raises(OutputError, match=f"cannot write {path}"):
            write_together([(first, "new"), (path, "x")])
        assert first.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]
    write_together([(first, "new"), (tmp_path / "b", b"x"), ("/dev/null", "y")])
    assert (
        first.read_text() == "new"
        and (tmp_path / "b").read_bytes() == b"x"
        and sorted(os.listdir(tmp_path)) == ["a.txt", "b"]
    )


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


@pytest.mark.skipif(
    not os.path.exists("/dev/full") or os.access("/dev", os.W_OK), reason="needs /dev/full and no right to replace it"
)
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


KILLED = """
import os, signal, sys
from tvm_ergo import files
files.os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
files.write_atomically(sys.argv[1], "half")
"""


def test_the_next_write_removes_what_a_killed_one_left(tmp_path):
    target = write_atomically(tmp_path / "a.txt", "old")
    (tmp_path / ".a.txt.mine").write_text("a file of the user's that only begins like one of ours")
    done = subprocess.run([sys.executable, "-c", KILLED, str(target)], cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL and target.read_text() == "old" and len(os.listdir(tmp_path)) == 3
    write_atomically(tmp_path / "b.txt", "another target")
    assert len(os.listdir(tmp_path)) == 4
    write_atomically(target, "new")
    assert target.read_text() == "new" and sorted(os.listdir(tmp_path)) == [".a.txt.mine", "a.txt", "b.txt"]


def test_files_of_the_living_stay(tmp_path):
    """A running process's, another machine's, and one that is locked by a process unknown here (of another
    container)."""
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    ).stdout.strip()
    ours, others = _prefix(tmp_path / "a.txt"), ".a.txt.elsewhere."
    names = [
        f"{ours}{os.getppid()}.abcd1234{SUFFIX}",
        f"{ours}1.abcd1234{SUFFIX}",
        f"{others}{dead}.abcd1234{SUFFIX}",
        f"{ours}{dead}.locked00{SUFFIX}",
    ]
    for name in [*names, f"{ours}{dead}.stale000{SUFFIX}"]:
        (tmp_path / name).write_text("part")
    with open(tmp_path / names[-1]) as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        write_atomically(tmp_path / "a.txt", "new")
    assert sorted(os.listdir(tmp_path)) == sorted([*names, "a.txt"])


def test_many_writers_of_one_target(tmp_path):
    """Each finds the whole of one of the contents, and nothing is left."""
    contents = [str(number) * 1000 for number in range(8)]
    threads = [
        threading.Thread(target=lambda text=text: [write_atomically(tmp_path / "a.txt", text) for _ in range(20)])
        for text in contents
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a.txt").read_text() in contents and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o755])
def test_a_file_that_was_there_keeps_its_mode(tmp_path, mode):
    target = tmp_path / "a.txt"
    target.write_text("old")
    target.chmod(mode)
    write_atomically(target, "new")
    assert target.read_text() == "new" and stat.S_IMODE(target.stat().st_mode) == mode
    os.symlink("a.txt", tmp_path / "link")
    write_atomically(tmp_path / "link", "newer")
    assert target.read_text() == "newer" and stat.S_IMODE(target.stat().st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser gives files away")
def test_a_file_that_was_there_keeps_its_owner(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    os.chown(target, 12345, 23456)
    target.chmod(0o640)
    write_atomically(target, "new")
    about = target.stat()
    assert (about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode)) == (12345, 23456, 0o640)


def test_a_group_that_cannot_be_given_gets_no_rights(tmp_path, monkeypatch):
    target = tmp_path / "a.txt"
    target.write_text("old")
    target.chmod(0o664)
    real = os.stat

    def other_group(path, **options):
        about = real(path, **options)
        return os.stat_result((*about[:5], about.st_gid + 1, *about[6:])) if str(path) == str(target) else about

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "stat", other_group)
    monkeypatch.setattr(os, "fchown", refuse)
    write_atomically(target, "new")
    monkeypatch.undo()
    assert stat.S_IMODE(target.stat().st_mode) == 0o604


def test_a_folder_is_whole_or_as_it_was(tmp_path, monkeypatch):
    folder, content = tmp_path / "new" / "made", {"a.txt": "x", "sub/b.bin": b"y" * 100}
    files.write_folder(folder, content)
    assert (folder / "a.txt").read_text() == "x" and (folder / "sub" / "b.bin").read_bytes() == b"y" * 100
    with pytest.raises(OutputError, match="not empty"):
        files.write_folder(folder, content)
    empty, link = tmp_path / "empty", tmp_path / "link"
    empty.mkdir(mode=0o750)
    link.symlink_to(empty)
    stale = tmp_path / f"{files._prefix(empty)}999999999.abc{files.SUFFIX}"  # of a process that is not there
    (stale / "sub").mkdir(parents=True)
    files.write_folder(link, content)
    assert link.is_symlink() and (empty / "a.txt").exists() and empty.stat().st_mode & 0o777 == 0o750
    assert not stale.exists()
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    files.write_folder(".", content)
    assert (here / "sub" / "b.bin").exists() and os.path.samefile(".", here)
    begun = tmp_path / "begun"  # killed while it wrote into its working folder
    (begun / "sub").mkdir(parents=True)
    (begun / f"{files._prefix(begun / 'a.txt')}999999999.abc{files.SUFFIX}").write_text("x")
    monkeypatch.chdir(begun)
    files.write_folder(".", content)
    assert sorted(p.name for p in begun.rglob("*")) == ["a.txt", "b.bin", "sub"]
    monkeypatch.chdir(here)
    shutil.rmtree(begun)
    monkeypatch.setattr(files.os, "rename", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    for wrong in (tmp_path / "full", here / "a.txt", tmp_path / "a\0b"):
        with pytest.raises(OutputError, match="cannot be made"):
            files.write_folder(wrong, content)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "here", "link", "new"]
