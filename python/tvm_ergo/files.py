"""Writing results: to a temporary name beside the target, then rename, so that nobody ever sees half a file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tvm_ergo.target.errors import OutputError


def write_atomically(path: str | Path, data: bytes | str) -> Path:
    """Writes ``data`` to ``path`` or leaves ``path`` as it was.

    A link stays a link: the file it points to is written. A device or pipe is written into, never replaced by a file.
    Errors: OutputError where the folder does not exist or cannot be written.
    """
    path = Path(path)
    payload = data.encode() if isinstance(data, str) else data
    temporary = None
    try:
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a directory")
        if _is_special(path):
            with open(path, "wb", buffering=0) as file:
                _write_all(file, payload)
            return path
        target = Path(os.path.realpath(path))
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name[:40]}.", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except (OSError, ValueError) as error:  # ValueError: a name no file can have
        raise OutputError(f"cannot write {path}", where=str(path), available=str(getattr(error, "strerror", None) or error),
                          remedy="give a path in an existing folder you may write to, with enough free space") from error
    finally:  # also when interrupted
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
    return path


def _is_special(path: Path) -> bool:
    """Whether ``path`` exists and is no regular file: a device, a pipe, a socket."""
    return path.exists() and not path.is_file()


def _write_all(file, payload: bytes) -> None:
    rest = memoryview(payload)
    while rest:
        rest = rest[file.write(rest):]


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
    if problem:
        raise OutputError(f"cannot write {path}", where=str(path), available=problem,
                          remedy="give a path in an existing folder you may write to")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
