"""LiteRT's built-in kernels (no XNNPACK, which rounds otherwise) as the reference of TFLite files; and how far the
product is from them."""

from __future__ import annotations

import numpy as np


class LiteRT:
    """An interpreter that keeps its variables from one run to the next. keep_all: every `tensor` can be read after a
    run.

    Errors: RuntimeError or ValueError where LiteRT refuses the file.
    """

    def __init__(self, data: bytes, keep_all: bool = False):
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        self._interpreter = Interpreter(
            model_content=data,
            num_threads=1,
            experimental_preserve_all_tensors=keep_all,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        self._interpreter.allocate_tensors()

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for details in self._interpreter.get_input_details():
            self._interpreter.set_tensor(details["index"], feeds[details["name"]])
        self._interpreter.invoke()
        return {
            d["name"]: self._interpreter.get_tensor(d["index"]).copy() for d in self._interpreter.get_output_details()
        }

    def tensor(self, index: int) -> np.ndarray:
        return self._interpreter.get_tensor(index).copy()


def litert(data: bytes, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs of one run of a fresh interpreter."""
    return LiteRT(data).run(feeds)


def steps_apart(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> float:
    """The largest difference: in steps of integers, relative to the range (or the largest magnitude) of real outputs;
    infinite for another shape or type."""
    worst = 0.0
    for name, right in want.items():
        found = got.get(name)
        if found is None or found.shape != right.shape or found.dtype != right.dtype:
            return np.inf
        difference = np.abs(found.astype(np.float64) - right.astype(np.float64))
        difference = np.where(found == right, 0, difference)  # infinities of one sign
        if right.dtype.kind == "f" and right.size:
            finite = right[np.isfinite(right)].astype(np.float64)
            span = max(np.ptp(finite), np.abs(finite).max()) if finite.size else 0.0
            difference = difference / span if span else difference
        worst = max(worst, float(np.nan_to_num(difference, nan=np.inf).max(initial=0.0)))
    return worst
