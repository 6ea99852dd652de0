"""The steps around Programs against TVM's code for the CPU, to the bit: ties, limits, infinities of divisions,
per-channel scales."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

from tvm_ergo.chain.steps import STEPS
from tvm_ergo.relay_passes.cpu import build_cpu

NUMBERS = np.concatenate(
    [
        np.arange(-400, 400, dtype=np.float32) / 2,
        np.float32([0.0, -0.0, 3e38, -3e38, 1e-38, 0.49999997, -0.49999997, 2.5, 2**23 + 0.5]),
    ]
)


def on_tvm(build, *arrays) -> np.ndarray:
    builder = relax.BlockBuilder()
    params = [relax.Var(f"p{i}", relax.TensorType(a.shape, a.dtype.name)) for i, a in enumerate(arrays)]
    with builder.function("main", params):
        with builder.dataflow():
            result = builder.emit_output(build(*params))
        builder.emit_func_output(result)
    return build_cpu(builder.get())(*arrays)[0]


def same(name: str, params: dict, build, *operands, live: int = 1) -> None:
    """The step on all operands equals TVM on the first ``live`` of them, the others being constants."""
    infer, compute = STEPS[name]
    mine = compute(params, *operands)
    theirs = on_tvm(lambda *xs: build(*xs, *(relax.const(o, o.dtype.name) for o in operands[live:])), *operands[:live])
    assert (mine.shape, mine.dtype.name) == infer(params, *((o.shape, o.dtype.name) for o in operands))
    assert mine.dtype == theirs.dtype and mine.tobytes() == np.ascontiguousarray(theirs).tobytes()


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(["int8", "uint8", "int16"]),
    st.sampled_from([1.0, 0.5, 0.1, 0.0041666669, 7.3]),
    st.integers(0, 100),
    st.booleans(),
)
def test_quantize_and_dequantize(dtype, scale, zero_point, per_channel):
    x = np.resize(NUMBERS, (3, 300, 4)).astype(np.float32)
    count = 4 if per_channel else 1
    scales = (np.float32(scale) * np.linspace(1, 2, count, dtype=np.float32)).reshape((4,) if per_channel else ())
    zeros = np.resize(np.array(zero_point, dtype), scales.shape).astype(dtype)
    axis = 2 if per_channel else -1
    same(
        "quantize",
        {"axis": axis, "dtype": dtype},
        lambda v, s, z: relax.op.quantize(v, s, z, axis, dtype),
        x,
        scales,
        zeros,
    )
    q = np.arange(-200, 1000).reshape(3, 100, 4).astype(dtype)
    same("dequantize", {"axis": axis}, lambda v, s, z: relax.op.dequantize(v, s, z, axis, "float32"), q, scales, zeros)


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide"])
def test_arithmetic(name):
    a, b = np.meshgrid(NUMBERS[::7], NUMBERS[::5])
    same(name, {}, getattr(relax.op, name), a.astype(np.float32), np.ascontiguousarray(b, np.float32), live=2)
    same(name, {}, getattr(relax.op, name), np.ascontiguousarray(a[:, :8]), np.linspace(-3, 5, 8, dtype=np.float32))


@pytest.mark.parametrize(
    "numbers", [np.array([0, 1, -1, 511, 2**31 - 1, -(2**31), 2**40 + 3]), np.array([True, False])]
)
def test_token_numbers_and_masks_are_cast(numbers):
    """int64 keeps its low bits, a truth value is 0 or 1."""
    for dtype in ("int8", "int32"):
        same("cast", {"dtype": dtype}, lambda v, d=dtype: relax.op.astype(v, d), numbers)


def test_casts_and_movements():
    x = np.arange(-(2**31), 2**31, 2**32 // 60 + 1, dtype=np.int64).astype(np.int32).reshape(3, 4, 5)
    for dtype in ("float32", "int8", "uint8", "int16"):
        same("cast", {"dtype": dtype}, lambda v, d=dtype: relax.op.astype(v, d), x)
    same("reshape", {"shape": [5, 12]}, lambda v: relax.op.reshape(v, (5, 12)), x)
    same("transpose", {"axes": [2, 0, 1]}, lambda v: relax.op.permute_dims(v, [2, 0, 1]), x)


@pytest.mark.parametrize(
    "name, params, types",
    [
        ("quantize", {"axis": -1, "dtype": "int8"}, [((4,), "int8"), ((), "float32"), ((), "int8")]),
        ("quantize", {"axis": -1, "dtype": "object"}, [((4,), "float32"), ((), "float32"), ((), "int8")]),
        ("quantize", {"axis": 9, "dtype": "int8"}, [((4,), "float32"), ((4,), "float32"), ((4,), "int8")]),
        ("quantize", {"axis": "0", "dtype": "int8"}, [((4,), "float32"), ((), "float32"), ((), "int8")]),
        ("dequantize", {}, [((4,), "int8"), ((), "float32"), ((), "int8")]),
        ("cast", {"dtype": "int8"}, [((4,), "float32")]),
        ("cast", {"dtype": None}, [((4,), "int8")]),
        ("add", {}, [((4,), "float32"), ((3,), "float32")]),
        ("add", {}, [((4,), "int8"), ((4,), "float32")]),
        ("reshape", {"shape": [5]}, [((4,), "int8")]),
        ("reshape", {"shape": [-4]}, [((4,), "int8")]),
        ("reshape", {"shape": "4"}, [((4,), "int8")]),
        ("reshape", {"shape": [True, 4]}, [((4,), "int8")]),
        ("transpose", {"axes": [0, 0]}, [((4, 1), "int8")]),
        ("transpose", {}, [((4,), "int8")]),
    ],
)
def test_what_is_no_step(name, params, types):
    with pytest.raises(ValueError):
        STEPS[name][0](params, *types)


def test_nothing_grows_but_by_broadcasting():
    """What a step gives is known from its types alone, before it is computed."""
    for name, params, types in (
        ("add", {}, [((1 << 20, 1), "float32"), ((1, 1 << 20), "float32")]),
        ("reshape", {"shape": [2, 2]}, [((4,), "int8")]),
    ):
        shape, _ = STEPS[name][0](params, *types)
        assert math.prod(shape) == (1 << 40 if name == "add" else 4)
