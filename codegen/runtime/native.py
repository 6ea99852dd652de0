"""Access to the native module of kind ``ergo`` (program_module.cc), compiled when the package is installed."""

from __future__ import annotations

import ctypes
from pathlib import Path

from tvm_ergo.target.errors import ProgramError

LIBRARY = Path(__file__).parent / "libtvm_ergo_runtime.so"
_LOAD = "ffi.Module.load_from_bytes.ergo"
_CREATE = "tvm_ergo.runtime.create_module"
_loaded: list[ctypes.CDLL] = []


def _missing(reason: str) -> ProgramError:
    return ProgramError(
        "the native runtime library of tvm_ergo cannot be loaded",
        where=str(LIBRARY),
        available=reason,
        required="libtvm_ergo_runtime.so, compiled by `pip install` (needs g++)",
        remedy="install g++ and run `pip install --force-reinstall --no-deps .` in the source tree of tvm_ergo",
    )


def load_library() -> bool:
    """Loads the library once, which registers the module kind ``ergo`` with TVM. Never raises.

    Without the library, loading an executable that holds Programs raises ProgramError with the remedy. Returns whether
    it is there."""
    if _loaded:
        return True
    import tvm_ffi

    try:
        _loaded.append(ctypes.CDLL(str(LIBRARY)))
    except OSError as error:
        reason = str(error)

        def refuse(_bytes):
            raise _missing(reason)

        tvm_ffi.register_global_func(_LOAD, refuse, override=True)
        return False
    return True


def create_module(programs: dict[str, bytes]):
    """A runtime module of kind ``ergo`` that answers to each symbol name of ``programs`` (name -> Program bytes).

    Errors: ProgramError if the native library is missing, with the remedy.
    """
    import tvm_ffi

    if not load_library():
        raise _missing("not found or not loadable")
    return tvm_ffi.get_global_func(_CREATE)(programs)


def programs_of(module) -> dict[str, bytes]:
    """Symbol name -> Program bytes of everything for the chip in a runtime module and its imports."""
    import tvm_ffi

    found: dict[str, bytes] = {}
    pending = [module]
    while pending:
        current = pending.pop()
        pending += list(current.imports)
        if current.kind == "ergo":
            found.update(
                {
                    str(name): bytes(data)
                    for name, data in tvm_ffi.get_global_func("tvm_ergo.runtime.programs")(current).items()
                }
            )
    return found
