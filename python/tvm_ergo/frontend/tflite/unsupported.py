"""Operators that are not imported, in the words of whoever made the file."""

from __future__ import annotations

from collections import Counter

from tvm_ergo.frontend.tflite.flat import Operator, Subgraph
from tvm_ergo.frontend.tflite.registry import RULES, unhandled
from tvm_ergo.target.errors import UnsupportedError

_SIZES = (
    "the size of its result depends on the data, and the chip's memory is planned before the first run: end the "
    "network before it and compute the rest on the host"
)
_REMEDIES = {
    "WHILE": "unroll the loop when converting (Keras layers: unroll=True)",
    "WHERE": _SIZES,
    "UNIQUE": _SIZES,
    "NON_MAX_SUPPRESSION_V4": _SIZES,
    "NON_MAX_SUPPRESSION_V5": _SIZES,
    "DELEGATE": "give the file as it was before a delegate compiled it",
}
_CUSTOM = "end the network before it (its inputs become outputs), and compute it on the host"


def _title(op: Operator) -> str:
    return f"custom operator {op.custom!r}" if op.code == "CUSTOM" else op.code


def _remedy(op: Operator) -> str:
    if op.code == "CUSTOM":
        if op.custom.startswith("Flex"):
            return "convert without SELECT_TF_OPS, so that TFLite's own operators are used"
        if "edgetpu" in op.custom.lower() or "ethos" in op.custom.lower() or op.custom.lower().startswith("vela"):
            return "this file was compiled for another accelerator: give the one it was made from"
        return _CUSTOM
    if op.code.startswith("STABLEHLO"):
        return "convert to TFLite's own operators (TFLITE_BUILTINS)"
    return _REMEDIES.get(op.code, _CUSTOM)


def check(graphs: list[Subgraph]) -> None:
    """Errors: UnsupportedError naming all operators that no rule converts, or an option that its rule does not carry
    out."""
    missing = [op for graph in graphs for op in graph.operators if op.code not in RULES]
    if missing:
        counts = Counter(map(_title, missing))
        listed = ", ".join(name if n == 1 else f"{name} ({n} times)" for name, n in counts.items())
        first = missing[0]
        raise UnsupportedError(
            "the TFLite file holds operators that cannot be imported",
            where=f"operator {first.position}: {_title(first)}",
            available=listed,
            remedy="; ".join(dict.fromkeys(map(_remedy, missing))),
        )
    for graph in graphs:
        for op in graph.operators:
            left = unhandled(RULES[op.code], op)
            if left:
                raise UnsupportedError(
                    f"{op.code} has options that are not carried out",
                    where=f"operator {op.position} ({op.code})",
                    available=", ".join(f"{name} = {value}" for name, value in left.items()),
                    required="their default values",
                    remedy="convert the model without them",
                )
