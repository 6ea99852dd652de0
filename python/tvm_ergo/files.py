"""Writing results: to a temporary name beside the target, then rename, so that nobody ever sees half a file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tvm_ergo.target.errors import OutputError


def write_atomically(path: str | Path, data: bytes | str) -> Path:
    """Writes ``data`` to ``path`` or leaves ``path`` as it was.

    Errors: OutputError where the folder does not exist or cannot be written.
    """
    path = Path(path)
    payload = data.encode() if isinstance(data, str) else data
    temporary = None
    try:
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a directory")
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        raise OutputError(f"cannot write {path}", where=str(path), available=str(error.strerror or error),
                          remedy="give a path in an existing folder you may write to, with enough free space") from error
    return path


def check_writable(path: str | Path) -> None:
    """Fails early, before long work, where ``path`` could not be written at its end."""
    path = Path(path)
    folder = path.parent if str(path.parent) else Path(".")
    problem = None
    if path.is_dir():
        problem = "it is a directory"
    elif not folder.is_dir():
        problem = f"the folder {folder} does not exist"
    elif not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        problem = "permission denied"
    if problem:
        raise OutputError(f"cannot write {path}", where=str(path), available=problem,
                          remedy="give a path in an existing folder you may write to")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
