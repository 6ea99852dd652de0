"""Softmax and rows by number, as exporters write them out, become one operator of the same values."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax

import tvm_ergo
from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.macro.recognize import Recognize
from tvm_ergo.relay_passes.relax_utils import bindings_of, main_of, op_name


def module(shape, dtype, build) -> tvm.IRModule:
    x, b = relax.Var("x", relax.TensorType(shape, dtype)), relax.BlockBuilder()
    with b.function("main", [x]):
        with b.dataflow():
            out = b.emit_output(build(b, x))
        b.emit_func_output(out)
    return b.get()


def ops(mod) -> list[str]:
    return [op_name(v).removeprefix("relax.") for _, v in bindings_of(main_of(mod)) if op_name(v)]


def softmax(b, x, *, maximum=True, keepdims=False, axis=-1, broadcast=True, floor=False, other=False):
    shape = tuple(int(d) for d in x.ty.shape)
    column = (*shape[:-1], 1)

    def spread(y):
        y = y if keepdims else b.emit(relax.op.reshape(y, column))
        return b.emit(relax.op.broadcast_to(y, shape)) if broadcast else y

    if maximum:
        top = b.emit(relax.op.max(x, axis=axis, keepdims=keepdims))
        top = b.emit(relax.op.maximum(top, relax.const(np.float32(-np.inf)))) if floor else top
        x = b.emit(relax.op.subtract(x, spread(top)))
    e = b.emit(relax.op.exp(x))
    below = b.emit(relax.op.exp(b.emit(relax.op.negative(x)))) if other else e
    return relax.op.divide(e, spread(b.emit(relax.op.sum(below, axis=axis, keepdims=keepdims))))


X = np.random.default_rng(0).normal(size=(3, 4, 7)).astype(np.float32)


@pytest.mark.parametrize("keepdims", (False, True))
@pytest.mark.parametrize("maximum", (False, True))
@pytest.mark.parametrize("broadcast", (False, True))
@pytest.mark.parametrize("floor", (False, True))
def test_softmax(keepdims, maximum, broadcast, floor):
    mod = module(
        X.shape,
        "float32",
        lambda b, x: softmax(b, x, maximum=maximum, keepdims=keepdims, broadcast=broadcast, floor=floor),
    )
    made = Recognize()(mod)
    assert ops(made) == ["nn.softmax"]
    assert np.allclose(evaluate(made, X)[0], evaluate(mod, X)[0], rtol=1e-5)


def test_what_looks_like_it():
    square = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)
    for build in (
        lambda b, x: softmax(b, x, axis=0, keepdims=False),  # the sums of columns, divided row by row
        lambda b, x: softmax(b, x, other=True),
        lambda b, x: softmax(b, x, maximum=False, other=True),
    ):
        mod = module(square.shape, "float32", build)
        made = Recognize()(mod)
        assert "nn.softmax" not in ops(made)
        assert np.array_equal(evaluate(made, square)[0], evaluate(mod, square)[0])


TABLE = np.random.default_rng(2).normal(size=(9, 5)).astype(np.float32)


def rows(b, x, *, first=0, swapped=False):
    shape = tuple(int(d) for d in x.ty.shape)
    column = b.emit(relax.op.reshape(x, (*shape, 1)))
    order = relax.const((first + np.arange(len(TABLE))).astype(str(x.ty.dtype)).reshape(1, 1, -1))
    hot = b.emit(relax.op.equal(order, column) if swapped else relax.op.equal(column, order))
    return relax.op.matmul(b.emit(relax.op.astype(hot, "float32")), relax.const(TABLE))


@pytest.mark.parametrize("dtype", ("int32", "int64", "uint8"))
@pytest.mark.parametrize("swapped", (False, True))
def test_rows_by_number(dtype, swapped):
    mod = module((2, 6), dtype, lambda b, x: rows(b, x, swapped=swapped))
    made = Recognize()(mod)
    assert "take" in ops(made) and "matmul" not in ops(made)
    ids = np.array([[0, 8, 3, 3, 9, 100], [1, 2, 4, 5, 6, 7]], dtype)  # 9 and 100: rows of zeros
    assert np.array_equal(evaluate(made, ids)[0], evaluate(mod, ids)[0])


def test_numbers_from_one_are_no_rows():
    assert "matmul" in ops(Recognize()(module((2, 6), "int32", lambda b, x: rows(b, x, first=1))))


def test_they_run_on_the_chip():
    weights = np.random.default_rng(3).normal(size=(5, 7)).astype(np.float32)
    mod = module(
        (1, 6), "int32", lambda b, x: softmax(b, b.emit(relax.op.matmul(b.emit(rows(b, x)), relax.const(weights))))
    )
    data = [{"x": np.random.default_rng(i).integers(0, 9, (1, 6)).astype(np.int32)} for i in range(16)]
    model = tvm_ergo.compile(mod, calibration=data)
    assert not model.fallbacks and model.accuracy.loss < 0.05
    (got,) = model.run({"x": np.array([[0, 1, 9, 50, 7, 8]], np.int32)}).outputs.values()
    assert np.abs(got - evaluate(mod, np.array([[0, 1, 9, 50, 7, 8]], np.int32))[0]).max() < 0.02
