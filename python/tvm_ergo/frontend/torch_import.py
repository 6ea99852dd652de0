"""PyTorch models as ``torch.export`` gives them, through TVM's importer. Needs the extra ``retrain`` (PyTorch)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from tvm_ergo.frontend.imported import Imported, SourceFormat, describe, require_finite
from tvm_ergo.relay_passes.relax_utils import Constant, array_of, bindings_of, children, main_of, require_static_inputs
from tvm_ergo.target.errors import ModelError, UnsupportedError

if TYPE_CHECKING:
    import torch


def import_exported(program: torch.export.ExportedProgram) -> Imported:
    """The model with its parameters as constants; inputs are named as ``torch.export`` names them.

    Errors: ModelError (not an exported program, dynamic shapes, NaN weights), UnsupportedError (an operator TVM has no import for).
    """
    if type(program).__name__ != "ExportedProgram":
        raise ModelError("this kind of object is not a model", available=type(program).__name__, required="torch.export.export(module.eval(), (example,))")
    from tvm.relax.frontend.torch import from_exported_program

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)  # of PyTorch to PyTorch
            mod = from_exported_program(program, keep_params_as_input=False, unwrap_unit_return_tuple=True)
    except (AssertionError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise UnsupportedError("TVM cannot import an operator of the PyTorch model", available=(str(error).strip().splitlines() or [""])[0][:300],
                               remedy="export it to ONNX and give that file") from error
    require_static_inputs(main_of(mod))
    for var, value in bindings_of(main_of(mod)):
        for operand in children(value):
            if isinstance(operand, Constant):
                require_finite(array_of(operand), f"constant of {var.name}", infinity_allowed=True)
    return describe(mod, "PyTorch model", SourceFormat.PYTORCH)
