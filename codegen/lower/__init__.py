"""Lowering: one rule per op of the dialect, from a node and a box of its output to instructions. Families in files."""

from tvm_ergo.codegen.lower import (  # noqa: F401  (their import registers the rules)
    binary,
    coded,
    compression,
    elementwise,
    int16,
    linear,
    movement,
    pooling,
    positions,
    rows,
)
from tvm_ergo.codegen.lower.base import RULES, Emitter, lowers

__all__ = ["RULES", "Emitter", "lowers"]
