"""Small compiled models and modules that several targets begin with."""

from __future__ import annotations

import functools

import numpy as np
import tvm
from tvm import relax

import tvm_ergo
from tvm_ergo.relay_passes import dialect


def function_of(shape, dtype, build) -> tvm.IRModule:
    builder, x = relax.BlockBuilder(), relax.Var("x", relax.TensorType(shape, dtype))
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(build(builder, x))
        builder.emit_func_output(result)
    return builder.get()


def _convolution(builder, x, inputs: int, outputs: int, name: str):
    rng = np.random.default_rng(outputs)
    constants = [
        relax.const(rng.integers(-90, 91, (outputs, 3, 3, inputs)).astype("int8"), "int8"),
        relax.const(rng.integers(-500, 501, outputs).astype("int32"), "int32"),
        relax.const(np.full(outputs, 2**23, "int32"), "int32"),
        relax.const(np.full(outputs, 31, "int8"), "int8"),
    ]
    return builder.emit(dialect.Conv2d((2, 2), (1, 1, 1, 1), (1, 1), 1, 3, 0, -128, 127, name=name).call(x, *constants))


def two_convolutions(builder, x):
    return _convolution(builder, _convolution(builder, x, 3, 4, "first"), 4, 5, "second")


def hosted(builder, x):
    """An operator of the host between two Programs: the file holds a library."""
    middle = builder.emit(relax.op.flip(_convolution(builder, x, 3, 4, "first"), 1))
    return _convolution(builder, middle, 4, 5, "second")


@functools.cache
def small_models() -> list:
    return [tvm_ergo.compile(function_of((1, 12, 12, 3), "int8", build)) for build in (two_convolutions, hosted)]
