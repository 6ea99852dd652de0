"""Writing results: to a temporary name beside the target, then rename, so that nobody ever sees half a file.

A process that is killed in between leaves its temporary file behind; the next write to the same target removes it. Such
a file's name says which process on which machine wrote it, and a writer holds a lock on its file: only what a dead
process of this machine left, unlocked, is removed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path

from tvm_ergo.target.errors import OutputError

SUFFIX = ".ergo-part"
_results: ContextVar[tuple[str, ...]] = ContextVar("tvm_ergo_results", default=())


def write_atomically(path: str | Path, data: bytes | str) -> Path:
    """Writes ``data`` to ``path`` or leaves ``path`` as it was.

    A file that was there keeps its mode and owner. A link stays a link: the file it points to is written. A device or
    pipe is written into, never replaced by a file. Errors: OutputError where the folder does not exist or cannot be
    written."""
    write_together([(path, data)])
    return Path(path)


def write_together(results: Iterable[tuple[str | Path, bytes | str]]) -> None:
    """Writes every ``(path, data)``, each as `write_atomically` does, or leaves every file as it was: all are complete
    beside their targets before one is renamed.

    What goes into devices and pipes is gone, so they come before the renaming. Errors: OutputError, of the first that
    cannot be written."""
    staged: list[tuple[Path, str, Path]] = []
    with contextlib.ExitStack() as opened:
        try:
            special = []
            for path, data in results:
                path, payload = Path(path), data.encode() if isinstance(data, str) else data
                if path.is_dir():
                    raise IsADirectoryError(f"{path} is a directory")
                if _is_special(path):
                    special.append((path, payload))
                else:
                    opened.enter_context(_stage(path, payload, staged))
            for path, payload in special:
                with open(path, "wb", buffering=0) as file:
                    _write_all(file, payload)
            for path, temporary, target in staged:
                os.replace(temporary, target)
        except (OSError, ValueError) as error:  # ValueError: a name no file can have
            raise OutputError(
                f"cannot write {path}",
                where=str(path),
                available=str(getattr(error, "strerror", None) or error),
                remedy="give a path in an existing folder you may write to, with enough free space",
            ) from error
        finally:  # also when interrupted
            for _, temporary, _ in staged:
                if os.path.exists(temporary):
                    os.unlink(temporary)


def write_folder(folder: str | Path, files: Mapping[str, bytes | str]) -> None:
    """Writes ``{path below the folder: content}``: the folder has all of them or, also when this process is killed, is
    as it was, new or empty. A link stays a link. The working folder and mount points, which cannot be replaced, are
    written into. Errors: OutputError, also where the folder holds something."""
    temporary = ""
    try:
        target = Path(os.path.realpath(folder))
        target.parent.mkdir(parents=True, exist_ok=True)
        for path in files:
            sweep(target / path)
        if target.exists() and _holds_something(target, files):
            raise OutputError(
                "the folder is not empty", where=str(folder), remedy="give a new folder, or empty this one"
            )
        if target.exists() and (os.path.ismount(target) or target.samefile(".")):
            for path in files:
                (target / path).parent.mkdir(parents=True, exist_ok=True)
            write_together([(target / path, data) for path, data in files.items()])
            return
        sweep(target)
        temporary = tempfile.mkdtemp(prefix=_prefix(target) + f"{os.getpid()}.", suffix=SUFFIX, dir=target.parent)
        with _locked(temporary):
            for path, data in files.items():
                (Path(temporary) / path).parent.mkdir(parents=True, exist_ok=True)
                with open(Path(temporary) / path, "wb") as file:
                    file.write(data.encode() if isinstance(data, str) else data)
                    file.flush()
                    os.fsync(file.fileno())
            os.chmod(temporary, os.stat(target).st_mode & 0o7777 if target.exists() else 0o777 & ~_umask())
            os.rename(temporary, target)
    except (OSError, ValueError) as error:
        raise OutputError(
            f"the folder cannot be made: {getattr(error, 'strerror', None) or error}",
            where=os.fspath(folder),
            remedy="give another folder, with enough free space",
        ) from None
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)


def _holds_something(target: Path, files: Iterable[str]) -> bool:
    """Anything but empty folders that these files go into, as a killed process may leave them."""
    own = {parent for path in files for parent in (target / path).parents}
    return any(path not in own or not path.is_dir() for path in target.rglob("*"))


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # file systems without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _stage(path: Path, payload: bytes, staged: list[tuple[Path, str, Path]]):
    """The open, locked file beside the target that holds ``payload``; noted in ``staged`` as soon as it exists."""
    target = Path(os.path.realpath(path))
    sweep(target)
    handle, temporary = tempfile.mkstemp(prefix=_prefix(target) + f"{os.getpid()}.", suffix=SUFFIX, dir=target.parent)
    staged.append((path, temporary, target))
    file = os.fdopen(handle, "wb")
    with contextlib.suppress(OSError):  # file systems without locks
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    file.write(payload)
    file.flush()
    os.fsync(file.fileno())
    _as_before(file.fileno(), target)
    return file


def _as_before(file: int, target: Path) -> None:
    """Mode, owner and group of the file that is replaced, as far as this user may give them; of a new file, what the
    umask leaves."""
    try:
        old = os.stat(target)
    except OSError:
        os.fchmod(file, 0o666 & ~_umask())
        return
    for owner, group in (
        (old.st_uid, -1),
        (-1, old.st_gid),
    ):  # apart: a user may give a file to another of their groups, but not to another user
        with contextlib.suppress(OSError):
            os.fchown(file, owner, group)
    mode = stat.S_IMODE(old.st_mode) & 0o777
    if os.fstat(file).st_gid != old.st_gid:  # what the old group might do, this one must not
        mode &= 0o707
    os.fchmod(file, mode)


def _prefix(target: Path) -> str:
    """How the names of all temporary files of a target begin that this machine writes."""
    return f".{target.name[:40]}.{re.sub('[^A-Za-z0-9-]', '-', socket.gethostname())[:40]}."


def sweep(target: Path) -> None:
    """Removes what writes to ``target`` left behind whose process was killed."""
    name = re.compile(re.escape(_prefix(target)) + r"(\d{1,9})\.[a-z0-9_]+" + re.escape(SUFFIX))
    with contextlib.suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            found = name.fullmatch(entry.name)
            if found and not entry.is_symlink() and not _is_alive(int(found[1])):
                _remove_unlocked(entry.path)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        pass
    return True


def _remove_unlocked(path: str) -> None:
    """Removes a file or folder that nobody holds a lock on (another container's process may be unknown here)."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if stat.S_ISDIR(os.fstat(handle).st_mode):
                shutil.rmtree(path)
            elif stat.S_ISREG(os.fstat(handle).st_mode):
                os.unlink(path)
        finally:
            os.close(handle)


def _is_special(path: Path) -> bool:
    """Whether ``path`` exists and is no regular file: a device, a pipe, a socket."""
    return path.exists() and not path.is_file()


def _write_all(file, payload: bytes) -> None:
    rest = memoryview(payload)
    while rest:
        rest = rest[file.write(rest) :]


def note_results(paths: Iterable[str | Path]) -> None:
    """What the command of this context will write (`is_result`)."""
    _results.set(tuple(os.path.realpath(path) for path in paths))


def is_result(path: str | Path) -> bool:
    """Whether the command of this context will write there."""
    return os.path.realpath(path) in _results.get()


def check_writable(path: str | Path) -> None:
    """Fails early, before long work, where ``path`` could not be written at its end."""
    path = Path(path)
    folder = path.parent if str(path.parent) else Path(".")
    problem = None
    try:
        os.stat(path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # too long a name, a file among the folders, ...
        problem = str(getattr(error, "strerror", None) or error)
    if problem:
        pass
    elif path.is_dir():
        problem = "it is a directory"
    elif not folder.is_dir():
        problem = f"the folder {folder} does not exist"
    elif (not _is_special(path) and not os.access(folder, os.W_OK)) or (path.exists() and not os.access(path, os.W_OK)):
        problem = "permission denied"
    else:
        problem = _cannot_begin(path)
    if problem:
        raise OutputError(
            f"cannot write {path}",
            where=str(path),
            available=problem,
            remedy="give a path in an existing folder you may write to",
        )


def _cannot_begin(path: Path) -> str | None:
    """What goes wrong when writing is begun: rights do not tell for the superuser, nor of folders that take no files
    (``/proc``). Nothing is left, nothing written."""
    try:
        if path.is_socket():
            return "it is a socket"
        if path.is_char_device() or path.is_block_device():
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        elif not _is_special(path):
            target = Path(os.path.realpath(path))
            handle, temporary = tempfile.mkstemp(
                prefix=_prefix(target) + f"{os.getpid()}.", suffix=SUFFIX, dir=target.parent
            )
            os.close(handle)
            os.unlink(temporary)
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None


def _umask() -> int:
    """Read, not set and set back: another thread may make a file meanwhile."""
    with (
        contextlib.suppress(OSError, ValueError, StopIteration),
        open("/proc/self/status", encoding="ascii", errors="replace") as status,
    ):
        return next(int(line.split()[1], 8) for line in status if line.startswith("Umask:"))
    current = os.umask(0o077)  # kernels that do not tell: what is made meanwhile is private
    os.umask(current)
    return current
