"""From a retrained module to the compiler."""

from __future__ import annotations

import copy

import torch
import tvm
from torch import nn

from tvm_ergo.frontend.torch_import import import_exported
from tvm_ergo.retrain.structured import finish
from tvm_ergo.target.errors import ModelError


def exported(module: nn.Module, example: tuple) -> torch.export.ExportedProgram:
    """The module as ``torch.export`` sees it, for `tvm_ergo.compile`; its weights plain (the module itself stays as it
    is). example : a tuple of inputs.

    Errors: ModelError where torch cannot export it.
    """
    plain = finish(copy.deepcopy(module)).eval()
    try:
        with torch.no_grad():
            return torch.export.export(plain, tuple(example))
    except Exception as error:  # torch.export raises whatever the module's Python raises
        raise ModelError(
            "torch cannot export the module",
            where=type(module).__name__,
            available=(str(error).splitlines() or [""])[0][:300],
            remedy="torch.export needs a module without data-dependent control flow",
        ) from error


def to_relax(module: nn.Module, example: tuple) -> tvm.IRModule:
    """The module in Relax, weights as constants. Errors: ModelError, UnsupportedError."""
    return import_exported(exported(module, example)).mod
