"""The NumPy interpreter against TVM's virtual machine on the CPU."""

import numpy as np
import pytest
import tvm
from graphs import module, random_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

from tvm_ergo.relay_passes.interpreter import Interpreter, evaluate, evaluate_call
from tvm_ergo.relay_passes.interpreter_ops import erf
from tvm_ergo.target.errors import InputError, UnsupportedError

RNG = np.random.default_rng(1)


def const(*shape, positive=False):
    value = RNG.normal(size=shape).astype(np.float32)
    return relax.const(np.abs(value) + 0.5 if positive else value)


def on_vm(mod) -> list[np.ndarray]:
    inputs = random_inputs(mod)
    vm = relax.VirtualMachine(tvm.compile(mod, "llvm"), tvm.cpu())
    out = vm["main"](*[tvm.runtime.tensor(v) for v in inputs.values()])
    return [o.numpy() for o in out] if hasattr(out, "__len__") and not hasattr(out, "numpy") else [out.numpy()]


R = relax.op
ONE_INPUT = {
    **{
        f"unary {f.__name__}": (lambda e, x, f=f: e(f(x)))
        for f in (
            R.abs,
            R.exp,
            R.floor,
            R.ceil,
            R.negative,
            R.sign,
            R.sin,
            R.cos,
            R.tanh,
            R.sigmoid,
            R.erf,
            R.square,
            R.nn.relu,
            R.nn.silu,
            R.nn.gelu,
            R.nn.gelu_tanh,
            R.nn.relu6,
        )
    },
    "clip": lambda e, x: e(R.clip(x, -0.5, 0.7)),
    "leakyrelu": lambda e, x: e(R.nn.leakyrelu(x, 0.3)),
    "prelu": lambda e, x: e(R.nn.prelu(x, const(6), 1)),
    "softmax": lambda e, x: e(R.nn.softmax(x, 1)),
    "log_softmax": lambda e, x: e(R.nn.log_softmax(x, -1)),
    "mean": lambda e, x: e(R.mean(x, [2, 3])),
    "sum": lambda e, x: e(R.sum(x, [1], keepdims=True)),
    "max": lambda e, x: e(R.max(x, [0, 3])),
    "variance": lambda e, x: e(R.variance(x, [1])),
    "permute": lambda e, x: e(R.permute_dims(x, [0, 3, 1, 2])),
    "slice": lambda e, x: e(R.strided_slice(x, [1, 3], [1, 0], [5, 7], [2, 3])),
    "concat": lambda e, x: e(R.concat([x, x], 2)),
    "split": lambda e, x: e(R.split(x, [1, 4], 1)),
    "pad": lambda e, x: e(R.nn.pad(x, [0, 0, 1, 0, 2, 1, 0, 3], "constant", 1.5)),
    "take": lambda e, x: e(R.take(x, relax.const(np.array([3, 0, 3])), 1)),
    "where": lambda e, x: e(R.where(e(R.greater(x, relax.const(np.float32(0)))), x, const(7))),
    "batch_norm": lambda e, x: e(
        R.nn.batch_norm(x, const(6), const(6), const(6), const(6, positive=True), 1, training=False)
    ),
    "layer_norm": lambda e, x: e(R.nn.layer_norm(x, const(7), const(7), [-1])),
    "max_pool2d": lambda e, x: e(R.nn.max_pool2d(x, (3, 2), (2, 1), (1, 0, 1, 1))),
    "max_pool2d ceil": lambda e, x: e(R.nn.max_pool2d(x, (3, 3), (2, 2), ceil_mode=True)),
    "avg_pool2d": lambda e, x: e(R.nn.avg_pool2d(x, (3, 3), (2, 2), (1, 1, 1, 1))),
    "avg_pool2d with padding": lambda e, x: e(R.nn.avg_pool2d(x, (3, 3), (2, 2), (1, 1, 1, 1), count_include_pad=True)),
    "adaptive_avg_pool2d": lambda e, x: e(R.nn.adaptive_avg_pool2d(x, (2, 3))),
    "transposed": lambda e, x: e(R.nn.conv2d_transpose(x, const(6, 3, 3, 2), (2, 2), (1, 0, 1, 1), (1, 0))),
    "matmul": lambda e, x: e(R.matmul(x, const(7, 3))),
    "resize nearest": lambda e, x: e(
        R.image.resize2d(
            x, (16, 14), method="nearest_neighbor", coordinate_transformation_mode="asymmetric", rounding_method="floor"
        )
    ),
    "resize linear": lambda e, x: e(
        R.image.resize2d(x, (11, 10), method="linear", coordinate_transformation_mode="half_pixel")
    ),
    "resize corners": lambda e, x: e(
        R.image.resize2d(x, (11, 10), method="linear", coordinate_transformation_mode="align_corners")
    ),
    "qdq": lambda e, x: e(
        R.dequantize(
            e(R.quantize(x, relax.const(np.float32(0.037)), relax.const(3, "int8"), 1)),
            relax.const(np.float32(0.037)),
            relax.const(3, "int8"),
            1,
        )
    ),
}


@pytest.mark.parametrize("name", ONE_INPUT)
def test_operator_equals_the_virtual_machine(name):
    mod = module(ONE_INPUT[name], (2, 6, 8, 7))
    for mine, theirs in zip(evaluate(mod, random_inputs(mod)), on_vm(mod), strict=True):
        assert mine.shape == theirs.shape and mine.dtype == theirs.dtype
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=2e-5)


@settings(max_examples=12, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(*[st.integers(0, 2)] * 4),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.sampled_from([(1, 4, 5), (2, 4, 6), (4, 4, 4), (4, 4, 8)]),
    layout=st.sampled_from(["NCHW", "NHWC"]),
)
def test_conv2d_equals_the_virtual_machine(kernel, strides, padding, dilation, groups, layout):
    g, c, o = groups
    shape = (2, c, 9, 8) if layout == "NCHW" else (2, 9, 8, c)
    kernel_layout = "OIHW" if layout == "NCHW" else "OHWI"
    weight = const(o, c // g, *kernel) if layout == "NCHW" else const(o, *kernel, c // g)
    mod = module(lambda e, x: e(R.nn.conv2d(x, weight, strides, padding, dilation, g, layout, kernel_layout)), shape)
    np.testing.assert_allclose(evaluate(mod, random_inputs(mod))[0], on_vm(mod)[0], rtol=1e-4, atol=1e-4)


def test_erf_against_the_standard_library():
    import math

    x = np.linspace(-7, 7, 2001)
    assert np.abs(erf(x) - [math.erf(v) for v in x]).max() < 1e-10


def test_quantize_rounds_half_to_even_and_saturates():
    mod = module(lambda e, x: e(R.quantize(x, relax.const(np.float32(2)), relax.const(1, "int8"))), (6,))
    x = np.array([1, 3, 5, -1, 1000, -1000], np.float32)
    assert evaluate(mod, x)[0].tolist() == [1, 3, 3, 1, 127, -128]


def test_intermediates_and_observer():
    mod = module(lambda e, x: e(R.add(e(R.nn.relu(x), name_hint="positive"), x), name_hint="sum"), (1, 3))
    x = np.array([[-1, 2, 3]], np.float32)
    outputs, seen = evaluate(mod, x, intermediates=True)
    assert seen["positive"].tolist() == [[0, 2, 3]] and seen["x0"].tolist() == x.tolist()
    names = []
    Interpreter(mod).run(np.concatenate([x, x]), lambda name, array: names.append(name))
    assert names.count("positive") == 2
    assert evaluate(mod, np.concatenate([x, 2 * x]), intermediates=True)[1]["positive"].tolist() == [
        [0, 2, 3],
        [0, 4, 6],
    ]


def test_operators_without_a_rule_run_on_tvm():
    mod = module(lambda e, x: e(R.add(e(R.sort(x)), x)), (2, 5))
    x = RNG.normal(size=(2, 5)).astype(np.float32)
    assert np.allclose(evaluate(mod, x)[0], np.sort(x) + x)

    def with_function(bb, x):
        return bb.emit_te(lambda a: tvm.te.compute(a.shape, lambda i, j: a[i, j] * 2, name="twice"), x)

    bb = relax.BlockBuilder()
    parameter = relax.Var("x0", relax.TensorType((2, 5), "float32"))
    with bb.function("main", [parameter]):
        with bb.dataflow():
            out = bb.emit_output(with_function(bb, parameter))
        bb.emit_func_output(out)
    assert np.allclose(evaluate(bb.get(), x)[0], 2 * x)


def test_unknown_operator_is_named():
    call = relax.Call(
        tvm.ir.Op.get("relax.memory.ensure_zero_offset"), [relax.Var("x", relax.TensorType((2,), "float32"))]
    )
    with pytest.raises(UnsupportedError, match="ensure_zero_offset"):
        evaluate_call(call, [np.zeros(2)])


def test_wrong_inputs():
    relu = Interpreter(module(lambda e, x: e(R.nn.relu(x)), (1, 3)))
    for bad in (
        {"y": np.zeros((1, 3), np.float32)},
        np.zeros((1, 4), np.float32),
        np.zeros((1, 3)),
        np.zeros((0, 3), np.float32),
    ):
        with pytest.raises(InputError):
            relu.run(bad)
