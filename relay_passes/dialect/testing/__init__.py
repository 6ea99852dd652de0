"""Random valid instances of every op, for the tests of the dialect, of the code generator and of the emulator.

>>> case = random_call("conv2d", np.random.default_rng(0))
>>> module, names = module_of([case])
>>> arrays = case.activations(np.random.default_rng(1))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.relay_passes.dialect.base import OPS, Shape
from tvm_ergo.relay_passes.dialect.testing import binary, int16, linear, simple, wide
from tvm_ergo.relay_passes.dialect.testing.source import MAKERS, RandomCall, Source, random_array

__all__ = [
    "RandomCall",
    "Source",
    "any_op_names",
    "binary",
    "int16",
    "linear",
    "module_of",
    "random_array",
    "random_call",
    "simple",
    "wide",
]


def random_call(
    op_name: str, origin: np.random.Generator | Callable | Source, *, input_shape: Shape | None = None
) -> RandomCall:
    """A valid random instance of ``op_name``.

    origin: NumPy generator or hypothesis ``draw``. input_shape: shape of the first argument where the caller has one
    (of rank 4 for the spatial ops, of rank >= 2 for matmul, >= 1 else); random by default. Errors: KeyError for an
    unknown op."""
    source = origin if isinstance(origin, Source) else Source(origin)
    case = MAKERS[op_name](source, None if input_shape is None else tuple(input_shape))
    case.op.infer(case.shapes, case.dtypes)
    return case


def any_op_names() -> list[str]:
    """Every op ``random_call`` can make: all of the dialect that models can contain."""
    missing = sorted({name for name, op in OPS.items() if op.in_models} - set(MAKERS))
    if missing:
        raise LookupError(f"no random instances of {missing}")
    return sorted(MAKERS)


def module_of(cases: Sequence[RandomCall]) -> tvm.IRModule:
    """One module whose ``main`` takes the activations of every case in order and returns the tuple of all results."""
    builder = relax.BlockBuilder()
    params, arguments = [], []
    for number, case in enumerate(cases):
        row = []
        for index, (shape, dtype) in enumerate(zip(case.shapes, case.dtypes, strict=True)):
            if index in case.constants:
                row.append(relax.const(case.constants[index]))
            else:
                row.append(relax.Var(f"x{number}_{index}", relax.TensorType(shape, dtype)))
                params.append(row[-1])
        arguments.append(row)
    with builder.function("main", params):
        with builder.dataflow():
            results = [builder.emit(case.op.call(*row)) for case, row in zip(cases, arguments, strict=True)]
            output = builder.emit_output(relax.Tuple(results))
        builder.emit_func_output(output)
    return builder.get()
