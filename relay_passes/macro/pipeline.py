"""The macro stage: a flat, named list of passes from any imported module to the normal form."""

from __future__ import annotations

import tvm

from tvm_ergo.relay_passes.macro.canonicalize import Canonicalize
from tvm_ergo.relay_passes.macro.flatten_constants import FlattenConstants
from tvm_ergo.relay_passes.macro.fold_constants import FoldConstants
from tvm_ergo.relay_passes.macro.fold_permutation import FoldPermutation
from tvm_ergo.relay_passes.macro.fold_scale import FoldScale
from tvm_ergo.relay_passes.macro.lift_integers import LiftIntegers
from tvm_ergo.relay_passes.macro.recognize import Recognize
from tvm_ergo.relay_passes.macro.to_nhwc import ToNhwc
from tvm_ergo.relay_passes.macro.widen_1d import Widen1d
from tvm_ergo.relay_passes.macro.widen_halves import WidenHalves
from tvm_ergo.relay_passes.relax_utils import main_of, require_static_inputs


def passes() -> list[tuple[str, tvm.transform.Pass]]:
    """Name and pass, in order. Each may be run on its own; after each the module computes the same function."""
    return [
        ("fold_constants", FoldConstants()),
        ("widen_halves", WidenHalves()),
        ("widen_1d", Widen1d()),
        ("lift_integers", LiftIntegers()),
        ("canonicalize", Canonicalize()),
        ("recognize", Recognize()),
        ("to_nhwc", ToNhwc()),
        ("lift_moved_integers", LiftIntegers()),
        ("fold_moved_constants", FoldConstants()),
        ("canonicalize_again", Canonicalize()),
        ("fold_permutation", FoldPermutation()),
        ("flatten_constants", FlattenConstants()),
        ("fold_scale", FoldScale()),
    ]


def normalize(mod: tvm.IRModule) -> tvm.IRModule:
    """``mod`` in normal form (docs/architecture.md, section 3). Errors: ModelError (dynamic shapes, control flow)."""
    require_static_inputs(main_of(mod))
    for _, one in passes():
        mod = one(mod)
    return mod
