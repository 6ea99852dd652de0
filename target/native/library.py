"""The compiled runtime, loaded once: what `target.machine.native` calls."""

from __future__ import annotations

import ctypes
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tvm_ergo.target.environment import NATIVE, NATIVE_PATH

LIBRARY = Path(__file__).parent / "libergo_native.so"
INTERFACE = 3  # host/host.c: a library left over from older sources is not called


class Stream(ctypes.Structure):
    """A streamed port's dense array."""

    _fields_ = [("data", ctypes.c_void_p), ("bytes", ctypes.c_uint64)]


@cache
def _loaded() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(str(LIBRARY))
        if library.ergo_host_interface() != INTERFACE:
            raise OSError("it was built from older sources")
    except (OSError, AttributeError) as error:
        warnings.warn(
            f"the native runtime is not there ({error}): NumPy does its work, slower; build it with 'pip install .' "
            f"where a C compiler is",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    pointer, i32, i64 = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
    library.ergo_host_new.restype, library.ergo_host_new.argtypes = (
        pointer,
        [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64, ctypes.POINTER(i32)],
    )
    library.ergo_host_pack.restype, library.ergo_host_pack.argtypes = (
        i32,
        [pointer, i32, pointer, pointer, pointer, pointer],
    )
    library.ergo_host_tile.restype, library.ergo_host_tile.argtypes = ctypes.c_double, [i32, ctypes.c_long]
    library.ergo_host_free.restype, library.ergo_host_free.argtypes = None, [pointer]
    library.ergo_host_run.restype = ctypes.c_long
    library.ergo_host_run.argtypes = [
        pointer,
        ctypes.c_long,
        pointer,
        pointer,
        i32,
        ctypes.POINTER(i64),
        ctypes.POINTER(i32),
    ]
    library.ergo_host_path_name.restype, library.ergo_host_path_name.argtypes = ctypes.c_char_p, [i32]
    library.ergo_host_path_usable.restype, library.ergo_host_path_usable.argtypes = i32, [i32]
    library.ergo_host_load.restype = i32
    library.ergo_host_load.argtypes = [
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.POINTER(ctypes.c_uint64 * 3),
        ctypes.POINTER(ctypes.c_uint32),
    ]
    library.ergo_host_status_name.restype, library.ergo_host_status_name.argtypes = ctypes.c_char_p, [i32]
    return library


def library() -> ctypes.CDLL | None:
    """The runtime, or None where it was not built (said once) or is switched off."""
    return None if NATIVE.value == "0" else _loaded()


@dataclass(frozen=True)
class Needs:
    """What running a Program in C takes, bytes. constants : at the lowest addresses, read where they are, not in the
    arena."""

    arena: int
    workspace: int
    constants: int


def needs_of(program: bytes) -> tuple[Needs | None, str, int]:
    """``(needs, status, instruction)`` of a Program's bytes as the runtime loads them: None, the error's name and the
    instruction that has it where it refuses them."""
    needs, failed = (ctypes.c_uint64 * 3)(), ctypes.c_uint32()
    loaded = library()
    status = loaded.ergo_host_load(program, len(program), ctypes.byref(needs), ctypes.byref(failed))
    return None if status else Needs(*needs), loaded.ergo_host_status_name(status).decode(), failed.value


def path_names() -> list[str]:
    """The code paths that this processor can take, the best last. Empty without the runtime."""
    loaded, names = library(), []
    while loaded is not None and (name := loaded.ergo_host_path_name(len(names))) is not None:
        names.append((name.decode(), bool(loaded.ergo_host_path_usable(len(names)))))
    return [name for name, usable in names if usable]


def path_number(name: str | None = None) -> int:
    """Number of a path by its name; None: what the environment names, else the best. Errors: ValueError for one that
    this processor has not."""
    name = name or NATIVE_PATH.value
    if not name:
        return library().ergo_host_best_path()
    known = path_names()
    if name not in known:
        raise ValueError(f"no native code path {name!r} here; there are: {', '.join(known)}")
    return next(i for i in range(len(known) + 8) if library().ergo_host_path_name(i) == name.encode())
