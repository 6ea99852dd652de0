"""Every op compiled by TVM for the CPU against the slow NumPy twin and the machine's kernels, to the bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tvm_ergo.relay_passes import cpu, dialect
from tvm_ergo.relay_passes.dialect import testing
from tvm_ergo.target import numerics
from tvm_ergo.target.machine import kernels

from . import oracle

CASES_A_MODULE = 5
MOVEMENT = {"pad", "concat", "slice", "transpose", "receive", "reshape"}
COMPILE_SETTINGS = settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))


def kernel(op: dialect.ErgoOp, arrays: list[np.ndarray]) -> np.ndarray:
    """The instruction set's kernel of the same op."""
    function = getattr(kernels, op.op_name)
    fields = {f.name: getattr(op, f.name) for f in dataclasses.fields(op) if f.name not in ("name", "out_scale")}
    if op.op_name in ("maximum", "minimum", "table", "table_16", "max_pool2d", "reduce_max", "reduce_min"):
        fields.pop("out_zp")
    return function(*arrays, **fields)


@pytest.mark.parametrize("name", testing.any_op_names())
@COMPILE_SETTINGS
@given(data=st.data())
def test_compiled_equals_definition(name, data):
    """6 modules of 5 ops each, on random and on extreme (-128/127 everywhere) activations."""
    cases = [testing.random_call(name, data.draw) for _ in range(CASES_A_MODULE)]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    compiled = cpu.build_cpu(testing.module_of(cases))
    for extreme in (False, True):
        activations = [case.activations(rng, extreme) for case in cases]
        results = compiled(*[array for row in activations for array in row])
        for case, row, result in zip(cases, activations, results, strict=True):
            arguments = case.arguments(row)
            expected = oracle.run(case.op, arguments)
            assert (result.shape, str(result.dtype)) == case.infer()
            np.testing.assert_array_equal(result, expected, err_msg=str(case.op))
            if name not in MOVEMENT:
                np.testing.assert_array_equal(kernel(case.op, arguments), expected, err_msg=f"kernel of {case.op}")


def test_largest_accumulators():
    """All-extreme operands with the deepest sum that fits int32, the largest multiplier: 64-bit products, no
    overflow."""
    depth = (2**31 - 1) // (255 * 255)
    mult, shift = np.array([2**24 - 1] * 2, np.int32), np.array([47, 62], np.int8)
    w = np.stack([np.full((1, 1, depth), 127, np.int8), np.full((1, 1, depth), -128, np.int8)])
    for value, zero in ((-128, 127), (127, -128)):
        case = testing.RandomCall(
            dialect.Conv2d(in_zp=zero, w_zp=-128),
            ((1, 1, 1, depth), w.shape, (2,), (2,), (2,)),
            ("int8", "int8", "int32", "int32", "int8"),
            {1: w, 2: np.zeros(2, np.int32), 3: mult, 4: shift},
        )
        x = np.full((1, 1, 1, depth), value, np.int8)
        acc = np.array([255 * 255 * depth * (1 if value == 127 else -1), 0], np.int64)
        expected = numerics.requantize(acc, mult, shift, 0, -128, 127)
        assert abs(int(expected[0])) > 0
        np.testing.assert_array_equal(cpu.build_cpu(testing.module_of([case]))(x)[0].reshape(-1), expected)


def test_weights_that_are_not_constant():
    """Weights given at run time are packed by a stage of the PrimFunc instead of at legalization."""
    for name in ("conv2d", "conv2d_transpose", "depthwise_conv2d"):
        for seed in range(4):
            case = testing.random_call(name, np.random.default_rng(seed))
            rng = np.random.default_rng(seed)
            (x,) = case.activations(rng)
            variable = dataclasses.replace(case, constants={})
            arguments = case.arguments([x])
            np.testing.assert_array_equal(
                cpu.build_cpu(testing.module_of([variable]))(*arguments)[0], oracle.run(case.op, arguments)
            )


@pytest.mark.parametrize("name", ["conv2d", "depthwise_conv2d"])
def test_larger_images_take_the_parallel_schedule(name):
    """Sizes at which tiles are full, loops run in parallel and lanes are left over (40 = 2.5 vectors of 16)."""
    rng = np.random.default_rng(7)
    channels = 40
    x_shape = (1, 28, 28, channels)
    w_shape = (channels, 3, 3, channels) if name == "conv2d" else (3, 3, channels)
    op = dialect.OPS[name](padding=(1, 1, 1, 1), in_zp=-7)
    mult, shift = numerics.quantize_multipliers(rng.uniform(1e-4, 1e-3, channels))
    constants = {
        1: testing.random_array(rng, w_shape, "int8"),
        2: rng.integers(-999, 999, channels).astype(np.int32),
        3: mult,
        4: shift,
    }
    case = testing.RandomCall(
        op,
        (x_shape, w_shape, (channels,), (channels,), (channels,)),
        ("int8", "int8", "int32", "int32", "int8"),
        constants,
    )
    (x,) = case.activations(rng)
    np.testing.assert_array_equal(cpu.build_cpu(testing.module_of([case]))(x)[0], kernel(op, case.arguments([x])))
