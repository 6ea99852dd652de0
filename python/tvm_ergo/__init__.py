"""tvm_ergo: trained networks inside the memory and the power of an edge chip.

    import tvm_ergo
    model = tvm_ergo.compile("net.onnx", target="ergo/1", calibration=images)
    print(model.run({"input": image}).outputs)

Importing this package is quick: what it offers is imported when first used.
"""

from __future__ import annotations

import importlib

assert __name__ == "tvm_ergo", f"import this package as tvm_ergo, not {__name__}"

__version__ = "0.1.0"

_PUBLIC = {
    "compile": "tvm_ergo.api",
    "quantize": "tvm_ergo.api",
    "explore": "tvm_ergo.exploring",
    "tune": "tvm_ergo.tuning.tune",
    "database": "tvm_ergo.tuning.store",
    "compress": "tvm_ergo.compressed.compress",
    "CompressedNetwork": "tvm_ergo.compressed.compress",
    "CompiledModel": "tvm_ergo.compiled",
    "RunResult": "tvm_ergo.compiled",
    "load": "tvm_ergo.compiled",
    "export_c": "tvm_ergo.exporting_c",
    "QuantizeOptions": "tvm_ergo.relay_passes.micro.quantize",
    "RankOptions": "tvm_ergo.relay_passes.macro.choose_ranks",
    "record": "tvm_ergo.codegen.runtime.recording",
    "watch": "tvm_ergo.codegen.runtime.recording",
    "watch_stages": "tvm_ergo.stage_watch",
    "target_from_file": "tvm_ergo.target.tags",
    "model_bytes_limit": "tvm_ergo.target.limits",
    "AccuracyWarning": "tvm_ergo.accuracy",
    "ErgoError": "tvm_ergo.target.errors",
}
"""Public name -> the module that defines it."""

__all__ = sorted(_PUBLIC)


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tvm_ergo' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])


def _autoload() -> None:
    """Entry point ``tvm.backends``: called by ``import tvm``; quick, and must not raise."""
    from tvm_ergo.doors import open_doors

    open_doors()
