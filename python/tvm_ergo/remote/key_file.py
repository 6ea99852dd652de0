"""The key that tuners and workers share: a file that its owner alone can read, made when first needed, copied by hand
to other machines."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from tvm_ergo.target.environment import CONFIG
from tvm_ergo.target.errors import InputError, OutputError

KEY_BYTES = 32
LEAST_CHARACTERS, MOST_CHARACTERS = 32, 4096
COPY = "copy the key file of the worker's machine (chmod 600), or start a worker here, which makes one"


def default_path() -> Path:
    """``worker.key`` in the user's folder of configurations."""
    return Path(CONFIG.value or Path.home() / ".config") / "tvm-ergo" / "worker.key"


def read(path: str | Path | None, make: bool = False) -> bytes:
    """The key in a file (None: `default_path`). make : a new one where there is no file.

    Errors: InputError (no file, no key, or others may read or write it), OutputError (it cannot be made).
    """
    path = default_path() if path is None else Path(path)
    if make:
        _make(path)
    try:
        with open(path, "rb") as file:
            _check_owner(path, os.fstat(file.fileno()))
            key = file.read(MOST_CHARACTERS + 1).strip()
    except OSError as error:
        raise InputError(
            "the key for workers cannot be read",
            where=str(path),
            available=str(error.strerror or error),
            remedy=f"{COPY}, and give it with --key",
        ) from None
    if not LEAST_CHARACTERS <= len(key) <= MOST_CHARACTERS:
        raise InputError(
            "this is no key for workers",
            where=str(path),
            required=f"{LEAST_CHARACTERS} to {MOST_CHARACTERS} characters",
            available=f"{len(key)}",
            remedy=COPY,
        )
    return key


def _check_owner(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise InputError("the key for workers is not a file", where=str(path), remedy=COPY)
    if status.st_uid not in (os.getuid(), 0):
        raise InputError(
            "the key for workers belongs to another user", where=str(path), remedy="make a copy of your own, chmod 600"
        )
    if status.st_mode & 0o077:
        raise InputError(
            "other users can read or write the key for workers",
            where=str(path),
            required="mode 0600",
            available=f"mode {stat.S_IMODE(status.st_mode):04o}",
            remedy=f"chmod 600 {path}; if others may have read it, remove it: a worker makes a new one",
        )


def _make(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    except OSError as error:
        raise OutputError(
            "the key for workers cannot be made",
            where=str(path),
            available=str(error.strerror or error),
            remedy="give another file with --key",
        ) from None
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_hex(KEY_BYTES) + "\n")
