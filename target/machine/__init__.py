"""The emulated chip: ``Machine`` runs a Program on NumPy and says what it costs; ``kernels`` is the meaning of its
instructions.

The names load on first use: the instruction set imports ``machine.kernels``, and ``Machine`` imports the instruction
set."""

import importlib

_HOMES = {
    "Machine": "machine",
    "Result": "machine",
    "TileCount": "machine",
    "Memory": "memory",
    "Trace": "trace",
    "TraceEntry": "trace",
    "NodeTotal": "trace",
    "Timeline": "timeline",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
