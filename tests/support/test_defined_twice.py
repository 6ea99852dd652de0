"""Operators that are defined more than once (the interpreter, the tables, TVM's own code for the CPU) mean the same at
any attribute."""

import numpy as np
import pytest
import tvm
from tvm import relax

from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.interpreter_ops import OPERATORS
from tvm_ergo.relay_passes.relax_utils import Constant, array_of, bindings_of, main_of, op_name
from tvm_ergo.relay_passes.support import tables

R, N = relax.op, relax.op.nn
RNG = np.random.default_rng(4)
X = RNG.uniform(-4, 4, (2, 3, 5, 6)).astype(np.float32)
P = RNG.uniform(0.1, 0.9, (2, 3, 5, 6)).astype(np.float32)
BIG = (P + np.float32(1.1)).astype(np.float32)
SLOPE = relax.const(np.array([0.1, 0.5, 2.0], np.float32))

ELEMENTWISE = {
    "nn.softplus": [
        lambda x: N.softplus(x, 2.0),
        lambda x: N.softplus(x, 0.5, 1.0),
        lambda x: N.softplus(x, 3.0, 4.0),
        N.softplus,
    ],
    "nn.leakyrelu": [lambda x: N.leakyrelu(x, 0.3), lambda x: N.leakyrelu(x, 1.5), lambda x: N.leakyrelu(x, -0.2)],
    "nn.prelu": [lambda x: N.prelu(x, relax.const(np.array([0.25], np.float32)), 3)],
    "clip": [lambda x: R.clip(x, -1.5, 0.25)],
    **{
        n: [getattr(N, n[3:])]
        for n in ("nn.relu", "nn.silu", "nn.gelu", "nn.gelu_tanh", "nn.selu")
        if hasattr(N, n[3:])
    },
    **{
        n: [getattr(R, n)]
        for n in (
            "sigmoid",
            "tanh",
            "exp",
            "abs",
            "sign",
            "negative",
            "erf",
            "square",
            "floor",
            "ceil",
            "round",
            "trunc",
            "sin",
            "cos",
            "tan",
            "sinh",
            "cosh",
            "atan",
            "asinh",
            "isnan",
        )
    },
}
UNIT = {n: [getattr(R, n)] for n in ("log", "sqrt", "rsqrt", "asin", "acos", "atanh")}
WITH_NUMBER = {
    n: [lambda x, f=getattr(R, n): f(x, relax.const(np.float32(0.75)))]
    for n in (
        "add",
        "subtract",
        "multiply",
        "divide",
        "maximum",
        "minimum",
        "greater",
        "greater_equal",
        "less",
        "less_equal",
        "equal",
        "not_equal",
    )
}
OTHER = {
    "cumsum": [
        lambda x: R.cumsum(x, 1),
        lambda x: R.cumsum(x, 2, exclusive=True),
        lambda x: R.cumsum(x),
        lambda x: R.cumsum(x, -1, "float64", True),
    ],
    "nn.prelu": [lambda x: N.prelu(x, SLOPE, 1)],
    "nn.softmax": [lambda x: N.softmax(x, 1)],
    "nn.log_softmax": [lambda x: N.log_softmax(x, 2)],
    "nn.layer_norm": [
        lambda x: N.layer_norm(
            x, relax.const(np.full(6, 2, np.float32)), relax.const(np.full(6, 0.5, np.float32)), [-1], 0.1
        ),
        lambda x: N.layer_norm(
            x, relax.const(np.full(6, 2, np.float32)), relax.const(np.full(6, 0.5, np.float32)), [-1], 0.1, center=False
        ),
        lambda x: N.layer_norm(
            x, relax.const(np.full(6, 2, np.float32)), relax.const(np.full(6, 0.5, np.float32)), [-1], 0.1, scale=False
        ),
    ],
    "argmax": [lambda x: R.argmax(x, 1), lambda x: R.argmax(x, 2, keepdims=True), lambda x: R.argmax(x)],
    "argmin": [lambda x: R.argmin(x, 3)],
    **{
        n: [lambda x, f=getattr(R, n): f(x, [1, 3]), lambda x, f=getattr(R, n): f(x, -1, keepdims=True)]
        for n in ("sum", "mean", "max", "min", "prod", "variance", "std")
    },
    "nn.max_pool2d": [
        lambda x: N.max_pool2d(x, (3, 2), (2, 1), (1, 0, 1, 1), (1, 2)),
        lambda x: N.max_pool2d(x, (2, 2), (2, 2), ceil_mode=True),
    ],
    "nn.avg_pool2d": [
        lambda x: N.avg_pool2d(x, (3, 2), (2, 1), (1, 0, 1, 1), count_include_pad=True),
        lambda x: N.avg_pool2d(x, (3, 2), (2, 1), (1, 0, 1, 1)),
        lambda x: N.avg_pool2d(x, (2, 2), (2, 2), ceil_mode=True),
        lambda x: N.avg_pool2d(x, (2, 2), (1, 1), dilation=(2, 2)),
    ],
    "nn.adaptive_avg_pool2d": [lambda x: N.adaptive_avg_pool2d(x, (2, 3)), lambda x: N.adaptive_avg_pool2d(x, (3, 4))],
    "nn.pad": [
        lambda x: N.pad(x, [0, 0, 0, 0, 1, 2, 2, 1], "constant", 3.5),
        lambda x: N.pad(x, [0, 0, 0, 0, 1, 2, 2, 1], "reflect"),
        lambda x: N.pad(x, [0, 0, 0, 0, 1, 2, 2, 1], "replicate"),
        lambda x: N.pad(x, [0, 0, 0, 0, 1, 2, 2, 1], "circular"),
    ],
    "strided_slice": [
        lambda x: R.strided_slice(x, [1, 3], [0, -1], [2, -6], [1, -2]),
        lambda x: R.strided_slice(x, [2], [1], [9], [2]),
    ],
    "take": [
        lambda x: R.take(x, relax.const(np.array([2, 0])), 1),
        lambda x: R.take(x, relax.const(np.array([[1, 2], [0, 0]])), 2),
    ],
    "split": [lambda x: R.split(x, 2, 3)[1], lambda x: R.split(x, [1, 2], 1)[2]],
    "squeeze": [lambda x: R.squeeze(R.mean(x, [0], True), [0])],
    "tile": [lambda x: R.tile(x, (2, 1, 3))],
    "repeat": [lambda x: R.repeat(x, 2, 1), lambda x: R.repeat(x, 2)],
    "tril": [lambda x: R.tril(x, -1)],
    "triu": [lambda x: R.triu(x, 1)],
    "image.resize2d": [
        lambda x, m=m, c=c, r=r: R.image.resize2d(
            x, (8, 4), method=m, coordinate_transformation_mode=c, rounding_method=r
        )
        for m, r in (
            ("linear", ""),
            ("nearest_neighbor", "floor"),
            ("nearest_neighbor", "ceil"),
            ("nearest_neighbor", "round_prefer_floor"),
            ("nearest_neighbor", "round_prefer_ceil"),
        )
        for c in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "tf_half_pixel_for_nn")
    ],
    "quantize": [
        lambda x: R.quantize(x, relax.const(np.float32(0.03)), relax.const(np.int8(4)), 1, "int8"),
        lambda x: R.quantize(
            x,
            relax.const(np.array([0.03, 0.02, 0.05], np.float32)),
            relax.const(np.array([4, 0, -3], np.int8)),
            1,
            "int8",
        ),
    ],
    "power": [lambda x: R.power(R.abs(x), relax.const(np.float32(1.5)))],
    "mod": [lambda x: R.mod(x, relax.const(np.float32(1.5)))],
    "floor_mod": [lambda x: R.floor_mod(x, relax.const(np.float32(1.5)))],
    "where": [lambda x: R.where(R.greater(x, relax.const(np.float32(0))), x, relax.const(np.float32(9)))],
}


def module(makers, x) -> tvm.IRModule:
    """One function that applies each maker to the input."""
    builder, p = relax.BlockBuilder(), relax.Var("x", relax.TensorType(x.shape, str(x.dtype)))
    with builder.function("main", [p]):
        with builder.dataflow():
            made = [builder.emit(make(p)) for make in makers]
            out = builder.emit_output(relax.Tuple(made))
        builder.emit_func_output(out)
    return builder.get()


def by_tvm(mod, x) -> list[np.ndarray]:
    vm = relax.VirtualMachine(tvm.compile(mod, tvm.target.Target("llvm")), tvm.cpu())
    return [o.numpy() for o in vm["main"](tvm.runtime.tensor(x))]


GROUPS = [
    (n, makers, x)
    for kinds, x in ((ELEMENTWISE, X), (UNIT, P), ({"acosh": [R.acosh]}, BIG), (WITH_NUMBER, X), (OTHER, X))
    for n, makers in kinds.items()
]


@pytest.mark.parametrize("name,makers,x", GROUPS, ids=[g[0] for g in GROUPS])
def test_interpreter_is_tvm(name, makers, x):
    mod = module(makers, x)
    assert any(op_name(v) == f"relax.{name}" for _, v in bindings_of(main_of(mod)))
    for got, want in zip(evaluate(mod, x), by_tvm(mod, x), strict=True):
        assert got.shape == want.shape and got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


TABLES = [
    g
    for g in GROUPS
    if f"relax.{g[0]}" in tables.ELEMENTWISE and g[0] not in ("power", "where") and g[1] is not OTHER["nn.prelu"]
]


@pytest.mark.parametrize("name,makers,x", TABLES, ids=[g[0] for g in TABLES])
def test_tables_are_the_interpreter(name, makers, x):
    for make in makers:
        mod = module([make], x)
        call = next(v for _, v in bindings_of(main_of(mod)) if op_name(v) == f"relax.{name}")
        others = [np.float64(array_of(a)) if isinstance(a, Constant) else a.value for a in call.args[1:]]
        got = tables.evaluate(call, f"relax.{name}", [x.astype(np.float64), *others])
        np.testing.assert_allclose(got, evaluate(mod, x)[0], rtol=2e-5, atol=2e-6)


def test_every_table_operator_is_covered():
    tried = {f"relax.{g[0]}" for g in GROUPS}
    assert set(tables.ELEMENTWISE) - tried == {
        "relax.nn.relu6",
        "relax.logical_not",
        "relax.logical_and",
        "relax.logical_or",
    }
    assert {"relax.cumsum", "relax.nn.softplus", "relax.nn.leakyrelu"} <= tried & set(OPERATORS)
