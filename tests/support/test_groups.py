"""How graphs fall into groups, what is refused, and why."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

from tvm_ergo.relay_passes import support
from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.support import Kind, Refused, Supported
from tvm_ergo.relay_passes.support.elementwise import Dominators, UnaryTable
from tvm_ergo.relay_passes.support.view import FunctionView

op = relax.op


def const(array, dtype="float32"):
    return relax.const(np.asarray(array, dtype))


def function(body, *shapes, dtype="float32"):
    """``main`` of ``body(emit, *inputs)``; a dict of the named variables comes along."""
    builder, named = relax.BlockBuilder(), {}
    params = [relax.Var(f"x{i}", relax.TensorType(s, dtype)) for i, s in enumerate(shapes)]

    def emit(expr, name=""):
        var = builder.emit(expr, name_hint=name or "t")
        named[name] = var
        return var

    with builder.function("main", params):
        with builder.dataflow():
            result = builder.emit_output(body(emit, *params))
        builder.emit_func_output(result)
    return builder.get()


def groups(mod):
    return [(g.rule.__name__, len(g.members), len(g.inputs)) for g in support.find_groups(mod["main"])]


def conv(emit, x, channels=4, name="conv"):
    w = const(np.ones((channels, 3, 3, 4)))
    y = emit(op.nn.conv2d(x, w, padding=1, data_layout="NHWC", kernel_layout="OHWI"), name)
    return emit(op.add(y, const(np.ones(channels))), name + "_bias")


SHAPE = (1, 6, 6, 4)


def test_bias_and_relu_belong_to_the_convolution():
    mod = function(lambda emit, x: emit(op.nn.relu(conv(emit, x))), SHAPE)
    assert groups(mod) == [("Conv2d", 3, 1)]
    (group,) = support.find_groups(mod["main"])
    assert group.kind is Kind.LINEAR and group.name == "conv" and group.output.name == "t"


def test_relu_of_a_result_read_twice_is_its_own_table():
    def body(emit, x):
        y = conv(emit, x)
        return emit(op.add(emit(op.nn.relu(y)), y))

    # relu(y) + y depends on y alone: one table
    assert groups(function(body, SHAPE)) == [("Conv2d", 2, 1), ("UnaryTable", 2, 1)]


def test_silu_behind_a_convolution_is_one_table():
    def body(emit, x):
        y = conv(emit, x)
        return emit(op.multiply(y, emit(op.sigmoid(y))))

    assert groups(function(body, SHAPE)) == [("Conv2d", 2, 1), ("UnaryTable", 2, 1)]


def test_residual_addition_absorbs_its_relu():
    def body(emit, x):
        return emit(op.nn.relu(emit(op.add(conv(emit, x), x))))

    assert groups(function(body, SHAPE)) == [("Conv2d", 2, 1), ("BinaryElementwise", 2, 2)]


def test_cone_ends_where_others_read():
    """a feeds the sum and an output: it is a table of its own, and the rest starts at it."""

    def body(emit, x):
        a = emit(op.tanh(x))
        b = emit(op.exp(emit(op.negative(a))))
        return relax.Tuple([a, emit(op.abs(b))])

    assert groups(function(body, SHAPE)) == [("UnaryTable", 1, 1), ("UnaryTable", 3, 1)]


def test_two_different_activations_of_one_tensor_multiply_into_one_table():
    def body(emit, x):
        return emit(op.multiply(emit(op.tanh(x)), emit(op.sigmoid(x))))

    assert groups(function(body, SHAPE)) == [("UnaryTable", 3, 1)]


def test_gate_of_two_tensors_is_a_product():
    def body(emit, x, y):
        return emit(op.multiply(emit(op.tanh(x)), emit(op.sigmoid(y))))

    assert groups(function(body, SHAPE, SHAPE)) == [
        ("UnaryTable", 1, 1),
        ("UnaryTable", 1, 1),
        ("BinaryElementwise", 1, 2),
    ]


def test_product_absorbs_transpose_and_scale():
    def body(emit, q, k):
        return emit(op.multiply(emit(op.matmul(q, emit(op.permute_dims(k, [0, 2, 1])))), const(0.25)))

    assert groups(function(body, (2, 5, 8), (2, 7, 8))) == [("MatMul", 3, 2)]


def test_every_binding_of_a_split_is_a_slice():
    def body(emit, x):
        parts = emit(op.split(x, 2, 3))
        return emit(op.concat([emit(relax.TupleGetItem(parts, 1)), emit(relax.TupleGetItem(parts, 0))], 3))

    assert groups(function(body, SHAPE)) == [("Split", 2, 1), ("Split", 2, 1), ("Concat", 1, 2)]


def test_qdq_delimits():
    def body(emit, x):
        y = emit(op.nn.relu(x))
        y = emit(op.dequantize(emit(op.quantize(y, const(0.1), const(0, "int8"))), const(0.1), const(0, "int8")))
        return emit(op.tanh(y))

    assert groups(function(body, SHAPE)) == [("UnaryTable", 1, 1), ("UnaryTable", 1, 1)]


REFUSED = {
    "weights": (
        lambda emit, x, y: emit(op.nn.conv2d(x, y, data_layout="NHWC", kernel_layout="OHWI"), "bad"),
        (SHAPE, (4, 3, 3, 4)),
        "run time",
    ),
    "divisor": (lambda emit, x, y: emit(op.divide(x, y), "bad"), (SHAPE, SHAPE), "divisor"),
    "softmax": (lambda emit, x: emit(op.nn.softmax(x, 1), "bad"), (SHAPE,), "axis"),
    "prod": (lambda emit, x: emit(op.prod(x, 1), "bad"), (SHAPE,), "no such operator"),
    "cumsum": (lambda emit, x: emit(op.cumsum(x), "bad"), (SHAPE,), "as one row"),
    "cubic": (
        lambda emit, x: emit(op.image.resize2d(x, (3, 3), layout="NHWC", method="cubic"), "bad"),
        (SHAPE,),
        "cubic",
    ),
    "layout": (lambda emit, x: emit(op.nn.max_pool2d(x, (2, 2)), "bad"), (SHAPE,), "layout"),
    "flat": (lambda emit, x: emit(op.argmax(x), "bad"), (SHAPE,), "as one row"),
    "nan": (lambda emit, x: emit(op.matmul(x, const(np.full((4, 2), np.nan))), "bad"), (SHAPE,), "NaN"),
    "infinite": (
        lambda emit, x: emit(op.nn.pad(x, [0, 0, 1, 1, 0, 0, 0, 0], "constant", float("inf")), "bad"),
        (SHAPE,),
        "finite",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_node_reason_and_remedy(case):
    body, shapes, word = REFUSED[case]
    mod = function(body, *shapes)
    (refused,) = support.analyse(mod["main"]).refused
    assert refused.node == "bad" and word in refused.reason and refused.remedy
    assert support.find_groups(mod["main"]) == []
    var = next(v for v in FunctionView(mod["main"]).order if v.name == "bad")
    assert isinstance(support.check(mod["main"], var), Refused)


def test_check_of_a_supported_binding_gives_its_group():
    mod = function(lambda emit, x: emit(op.nn.relu(conv(emit, x))), SHAPE)
    view = FunctionView(mod["main"])
    result = support.check(mod["main"], view.order[1])
    assert isinstance(result, Supported) and view.order[0] in result.group.members


def test_integer_tensors_are_refused():
    (refused,) = support.analyse(function(lambda emit, x: emit(op.add(x, x)), SHAPE, dtype="int32")["main"]).refused
    assert "int32" in refused.reason


OPS = ["relu", "tanh", "square", "add_self", "scale", "shift_channels", "gate"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(OPS), st.integers(0, 3)), min_size=1, max_size=8))
def test_random_expressions_of_one_tensor(steps):
    """Groups cover every binding once, and each table equals the interpreter on the same codes."""

    def body(emit, x):
        values = [x]
        for name, back in steps:
            v = values[-1 - back % len(values)]
            values.append(
                emit(
                    {
                        "relu": lambda: op.nn.relu(v),
                        "tanh": lambda: op.tanh(v),
                        "square": lambda: op.multiply(v, v),
                        "add_self": lambda: op.add(v, values[-1]),
                        "scale": lambda: op.multiply(v, const(0.5)),
                        "shift_channels": lambda: op.add(v, const([0.1, -0.2])),
                        "gate": lambda: op.multiply(values[-1], v),
                    }[name]()
                )
            )
        return values[-1]

    mod = relax.transform.DeadCodeElimination()(function(body, (128, 2)))
    analysis = support.analyse(mod["main"])
    view = analysis.view
    members = [m for g in analysis.groups for m in g.members]
    computed = [v for v in view.order if isinstance(view.value[v], relax.Call)]
    assert not analysis.refused and len(members) == len(set(members)) and set(members) == set(computed)
    codes = np.linspace(-2, 2, 128)
    _, seen = evaluate(mod, {"x0": np.stack([codes, codes], 1).astype(np.float32)}, intermediates=True)
    seen["x0"] = np.stack([codes, codes], 1)
    for group in analysis.groups:
        if group.rule is not UnaryTable:
            continue
        for channel in range(2):
            source = np.asarray(seen[group.inputs[0].name], np.float64)[:, channel]
            table = UnaryTable.evaluate(view, group, source)
            got = table[channel] if table.ndim == 2 else table
            np.testing.assert_allclose(got, seen[group.output.name][:, channel], rtol=2e-4, atol=1e-5)


def naive_cone(view, root):
    """The definition: try every tensor as the base, keep the largest set that reads nothing else and is read by nobody
    else."""
    best = None
    for base in [*view.func.params, *view.order]:
        members, stack, reads = {root}, [root], set()
        while stack:
            for source in view.reads(stack.pop()):
                if source == base:
                    reads.add(source)
                elif source in view.value and view.const(source) is None:
                    if source not in members:
                        members.add(source)
                        stack.append(source)
                else:
                    reads.add(source)
        alone = all(m == root or (m not in view.outputs and set(view.users(m)) <= members) for m in members)
        if base != root and reads == {base} and alone and len(members) > len(best or ()):
            best = members
    return best


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.booleans()), min_size=1, max_size=9))
def test_cones_are_those_of_the_definition(steps):
    def body(emit, x, y):
        values = [x, y]
        for a, b, unary in steps:
            first, second = values[-1 - a % len(values)], values[-1 - b % len(values)]
            values.append(emit(op.tanh(first) if unary else op.add(first, second)))
        return values[-1]

    view = FunctionView(function(body, (2, 3), (2, 3))["main"])
    dominators = Dominators(view, set())
    for var in view.order:
        if isinstance(view.value[var], relax.Call):
            assert dominators.cone(var, set()) == naive_cone(view, var)
