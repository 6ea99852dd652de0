"""Fields <-> attributes, printing and parsing, and what ``infer`` refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tvm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tvm import relax

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.dialect import testing
from tvm_ergo.target.errors import ModelError

SETTINGS = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


def calls(module: tvm.IRModule) -> list[relax.Call]:
    return [b.value for block in module["main"].body.blocks for b in block.bindings if dialect.is_ergo_call(b.value)]


@pytest.mark.parametrize("name", testing.any_op_names())
@SETTINGS
@given(data=st.data())
def test_call_and_back(name, data):
    """op -> call -> op is the identity, in plain Python types; the call's type is what ``infer`` says; text -> module
    too."""
    case = testing.random_call(name, data.draw)
    scale = data.draw(st.floats(1e-30, 1e30))
    op = dataclasses.replace(case.op, name=data.draw(st.sampled_from(["", "layer/1:0", 'quo"te'])), out_scale=scale)
    module = testing.module_of([dataclasses.replace(case, op=op)])
    (call,) = calls(module)
    back = dialect.from_call(call)
    assert back == op and type(back) is type(op)
    for field in dataclasses.fields(op):
        value = getattr(back, field.name)
        assert type(value) is type(getattr(op, field.name)) and type(value) in (int, float, bool, str, tuple)
        assert not isinstance(value, tuple) or all(type(v) is int for v in value)
    assert (tuple(int(d) for d in call.ty.shape), str(call.ty.dtype)) == case.infer()
    parsed = tvm.script.from_source(module.script(show_meta=True))
    tvm.ir.assert_structural_equal(parsed, module)
    assert dialect.from_call(calls(parsed)[0]) == op


def test_printed_form_is_readable():
    case = testing.RandomCall(dialect.Slice(begin=(0, 1), end=(2, 3), strides=(1, 1), name="cut"), ((2, 4),), ("int8",))
    assert 'R.ergo.slice(x0_0, begin=[0, 1], end=[2, 3], name="cut"' in testing.module_of([case]).script()


def test_registration_is_idempotent():
    cls = dialect.OPS["table"]
    assert dialect.ergo_op("table")(cls) is cls and dialect.OPS["table"] is cls
    assert tvm.ir.Op.get("relax.ergo.table").get_attr("FPurity")


def test_call_infers_again_inside_a_builder():
    """A call built without a type gets it from FInferType."""
    x = relax.Var("x", relax.TensorType((2, 3), "int8"))
    call = relax.Call(tvm.ir.Op.get("relax.ergo.transpose"), [x], dialect.Transpose(perm=(1, 0)).call(x).attrs)
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        y = builder.emit(call)
        builder.emit_func_output(y)
    assert [int(d) for d in builder.get()["main"].ret_ty.shape] == [3, 2]


def test_fields_are_normalized():
    op = dialect.Slice(begin=[np.int64(0)], end=np.array([4]), strides=(1,))
    assert op == dialect.Slice(begin=(0,), end=(4,), strides=(1,)) and type(op.end[0]) is int
    with pytest.raises(TypeError):
        dialect.Slice(begin=(0.5,), end=(4,), strides=(1,))


def conv_shapes(**changes):
    shapes = {"x": (1, 4, 4, 2), "w": (3, 1, 1, 2), "bias": (3,), "mult": (3,), "shift": (3,)} | changes
    return list(shapes.values())


CONV_DTYPES = ["int8", "int8", "int32", "int32", "int8"]
REFUSED = [
    (dialect.Conv2d(), conv_shapes(w=(3, 1, 1, 5)), CONV_DTYPES, "weights do not fit"),
    (dialect.Conv2d(), conv_shapes(bias=(4,)), CONV_DTYPES, "wrong shape of bias"),
    (dialect.Conv2d(), conv_shapes(), ["uint8", *CONV_DTYPES[1:]], "wrong dtype of x"),
    (dialect.Conv2d(), conv_shapes(w=(3, 5, 5, 2)), CONV_DTYPES, "window does not fit"),
    (dialect.Conv2d(groups=3), conv_shapes(), CONV_DTYPES, "groups do not divide"),
    (dialect.Conv2d(lo=5, hi=4), conv_shapes(), CONV_DTYPES, "clip bounds"),
    (dialect.Conv2d(in_zp=200), conv_shapes(), CONV_DTYPES, "in_zp is not"),
    (dialect.Conv2d(strides=(0, 1)), conv_shapes(), CONV_DTYPES, "bad strides"),
    (dialect.Conv2d(), conv_shapes()[:4], CONV_DTYPES[:4], "wrong number of tensors"),
    (dialect.DepthwiseConv2d(), [(1, 4, 4, 2), (1, 1, 3), (3,), (3,), (3,)], CONV_DTYPES, "weights do not fit"),
    (dialect.Conv2dTranspose(padding=(9, 0, 9, 0)), conv_shapes(), CONV_DTYPES, "removes the whole output"),
    (
        dialect.MatMul(transpose_b=False, a_zp=0, b_zp=0, mult=1, shift=0),
        [(2, 3), (4, 5)],
        ["int8"] * 2,
        "inner dimensions",
    ),
    (
        dialect.MatMul(transpose_b=False, a_zp=0, b_zp=0, mult=1, shift=0),
        [(2, 2, 3), (4, 3, 5)],
        ["int8"] * 2,
        "batch dimensions",
    ),
    (
        dialect.MatMul(transpose_b=False, a_zp=0, b_zp=0, mult=2**24, shift=0),
        [(2, 3), (3, 5)],
        ["int8"] * 2,
        "multiplier out of range",
    ),
    (
        dialect.Add(a_zp=0, b_zp=0, a_mult=2**21, b_mult=1, shift=0),
        [(2,), (2,)],
        ["int8"] * 2,
        "multiplier out of range",
    ),
    (dialect.Mul(a_zp=0, b_zp=0, mult=1, shift=63), [(2,), (2,)], ["int8"] * 2, "shift out of range"),
    (dialect.Maximum(), [(2,), (3,)], ["int8"] * 2, "do not broadcast"),
    (dialect.Table(), [(2, 3), (2, 256)], ["int8"] * 2, "wrong shape of lut"),
    (dialect.MaxPool2d(pool=(1, 1), padding=(1, 0, 0, 0)), [(1, 4, 4, 2)], ["int8"], "wholly in the padding"),
    (dialect.ReduceMax(axes=(1, 0), keepdims=True), [(2, 3)], ["int8"], "bad axes"),
    (dialect.Softmax(mult=1, shift=0), [(2, 2**14), (256,)], ["int8", "int32"], "row is too long"),
    (dialect.Resize2d(), [(1, 2, 2, 1), (4, 2), (4, 3)], ["int8", "int32", "int32"], "wrong shape of rows"),
    (dialect.Pad(pad_width=(0, 0, 1)), [(2, 3)], ["int8"], "bad pad_width"),
    (dialect.Pad(pad_width=(0, 1), value=128), [(2,)], ["int8"], "pad value"),
    (dialect.Concat(axis=0), [(2, 3), (2, 4)], ["int8"] * 2, "shapes differ"),
    (dialect.Concat(axis=0), [(2,), (2,)], ["int8", "uint8"], "dtypes differ"),
    (dialect.Slice(begin=(0,), end=(5,), strides=(1,)), [(4,)], ["int8"], "slice outside"),
    (dialect.Transpose(perm=(0, 0)), [(4, 4)], ["int8"], "not a permutation"),
    (dialect.Reshape(shape=(3,)), [(4,)], ["int8"], "element counts"),
]


@pytest.mark.parametrize(("op", "shapes", "dtypes", "message"), REFUSED, ids=lambda v: v if isinstance(v, str) else "")
def test_infer_refuses(op, shapes, dtypes, message):
    op = dataclasses.replace(op, name="layer7")
    with pytest.raises(ModelError, match=message) as caught:
        op.infer(shapes, dtypes)
    assert "layer7" in caught.value.where and caught.value.required and caught.value.available is not None


def test_from_call_refuses():
    x = relax.Var("x", relax.TensorType((2, 3), "int8"))
    with pytest.raises(ModelError, match="not a call of the integer dialect"):
        dialect.from_call(relax.op.negative(x))
    op = tvm.ir.Op.get("relax.ergo.transpose")
    with pytest.raises(ModelError, match="missing"):
        dialect.from_call(relax.Call(op, [x], tvm.ir.make_node("ir.DictAttrs", name="")))
    with pytest.raises(ModelError, match="wrong type"):
        dialect.from_call(relax.Call(op, [x], tvm.ir.make_node("ir.DictAttrs", perm="ab")))


def test_symbolic_shapes_are_refused():
    x = relax.Var("x", relax.TensorType((tvm.tirx.Var("n", "int64"), 3), "int8"))
    builder = relax.BlockBuilder()
    with pytest.raises(ModelError, match="static shape"), builder.function("main", [x]):
        builder.emit(dialect.Transpose(perm=(1, 0)).call(x))


@pytest.mark.parametrize(
    ("name", "expected"), [("conv2d", 2 * 3 * 4 * 5 * 3 * 3 * 6), ("depthwise_conv2d", 2 * 3 * 4 * 6 * 9)]
)
def test_macs(name, expected):
    cls = dialect.OPS[name]
    w, channels = ((5, 3, 3, 6), 5) if name == "conv2d" else ((3, 3, 6), 6)
    assert cls().macs([(2, 5, 6, 6), w, (channels,), (channels,), (channels,)]) == expected


def test_macs_of_the_others():
    assert (
        dialect.MatMul(transpose_b=True, a_zp=0, b_zp=0, mult=1, shift=0).macs([(2, 3, 4), (2, 5, 4)]) == 2 * 3 * 5 * 4
    )
    assert dialect.Conv2dTranspose().macs([(1, 2, 3, 4), (5, 2, 2, 4), (5,), (5,), (5,)]) == 2 * 3 * 4 * 5 * 4
    assert dialect.Maximum().macs([(4,), (4,)]) == 0
