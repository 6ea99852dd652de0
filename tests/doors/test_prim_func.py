"""``tvm.build(prim_func, target="ergo")``: equal to the llvm build of the same function to the bit, or refused with
what was seen."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import te, tirx, topi
from tvm.script import tirx as T

from tvm_ergo.codegen.tir.build import program_of
from tvm_ergo.codegen.tir.recognise import prim_func_of
from tvm_ergo.codegen.tir.stages import dtype_of, shape_of
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.errors import UnsupportedError

_spec = importlib.util.spec_from_file_location("prim_func_cases", Path(__file__).with_name("prim_func_cases.py"))
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)

few = settings(max_examples=12, deadline=None)
dim = st.integers(1, 7)


def random_tensors(func: tirx.PrimFunc, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)

    def array(shape, dtype):
        info = np.iinfo(dtype)
        lo, hi = (-5000, 5000) if dtype == "int32" else (info.min, info.max)
        return rng.integers(lo, hi + 1, shape).astype(dtype)

    return [array(shape_of(p), dtype_of(p)) for p in func.params]


def check(func: tirx.PrimFunc) -> None:
    """Twice, with different tensors: nothing of the first call may be remembered."""
    chip, cpu = tvm.tirx.build(func, target="ergo"), tvm.tirx.build(func, target="llvm")
    for seed in range(2):
        got, expected = ([tvm.runtime.tensor(a) for a in random_tensors(func, seed)] for _ in range(2))
        chip["main"](*got)
        cpu["main"](*expected)
        for a, b in zip(got, expected):
            np.testing.assert_array_equal(a.numpy(), b.numpy())


@few
@given(
    dim,
    st.integers(1, 40),
    dim,
    st.booleans(),
    st.integers(-128, 127),
    st.integers(-128, 127),
    st.booleans(),
    st.booleans(),
)
def test_matmul(m, k, n, transpose_b, a_zp, b_zp, requantize, bias):
    check(cases.matmul(m, k, n, transpose_b=transpose_b, a_zp=a_zp, b_zp=b_zp, requantize=requantize, bias=bias))


@few
@given(dim, dim, dim, dim, st.booleans(), st.booleans())
def test_batched_matmul(b, m, k, n, transpose_b, requantize):
    check(cases.matmul(m, k, n, transpose_b=transpose_b, requantize=requantize, batch=(b,)))


@few
@given(
    st.integers(1, 2),
    st.integers(6, 10),
    st.integers(6, 10),
    st.integers(1, 5),
    st.integers(1, 5),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(1, 2),
    st.integers(0, 2),
    st.integers(1, 2),
    st.sampled_from(["NHWC", "NCHW"]),
    st.booleans(),
    st.booleans(),
)
def test_conv2d(n, h, w, c, o, kernel, stride, padding, dilation, layout, requantize, bias):
    if layout == "NCHW":
        bias = False  # the cases add the bias along the last axis
    check(
        cases.conv2d(n, h, w, c, o, kernel, stride, padding, dilation, layout=layout, requantize=requantize, bias=bias)
    )


@few
@given(st.integers(1, 2), st.integers(4, 8), st.integers(4, 8), st.integers(2, 6), st.integers(1, 2), st.integers(0, 1))
def test_depthwise(n, h, w, c, stride, padding):
    check(cases.depthwise(n, h, w, c, (3, 3), (stride, stride), (padding, padding)))


@pytest.mark.parametrize("name", cases.UNARY)
@settings(max_examples=4, deadline=None)
@given(shape=st.lists(dim, min_size=1, max_size=4))
def test_unary(name, shape):
    check(cases.unary(name, shape))


@pytest.mark.parametrize("name", cases.BINARY)
@settings(max_examples=4, deadline=None)
@given(shape=st.lists(dim, min_size=1, max_size=4), broadcast=st.sampled_from(["no", "channel", "ones"]))
def test_binary(name, shape, broadcast):
    other = {"no": shape, "channel": shape[-1:], "ones": [1, *shape[1:]]}[broadcast]
    check(cases.binary(name, shape, other))


def test_wrapping_addition_of_every_pair():
    a, b = (te.placeholder((256, 256), "int8", name=n) for n in "ab")
    func = te.create_prim_func([a, b, topi.add(a, b)])
    every = np.arange(-128, 128).astype(np.int8)
    out = tvm.runtime.tensor(np.zeros((256, 256), np.int8))
    left, right = np.repeat(every[:, None], 256, 1), np.repeat(every[None], 256, 0)
    tvm.tirx.build(func, target="ergo")["main"](tvm.runtime.tensor(left), tvm.runtime.tensor(right), out)
    np.testing.assert_array_equal(out.numpy(), left + right)


@T.prim_func(s_tir=True)
def script_matmul(a: T.Buffer((5, 16), "int8"), b: T.Buffer((7, 16), "int8"), c: T.Buffer((5, 7), "int32")):
    for i, j, k in T.grid(5, 7, 16):
        with T.sblock("anything"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                c[vi, vj] = 0
            c[vi, vj] = c[vi, vj] + T.cast(b[vj, vk], "int32") * T.cast(a[vi, vk], "int32")


def test_written_in_tvmscript():
    func = script_matmul
    chip, cpu = (tvm.tirx.build(func.with_attr("global_symbol", "main"), target=t) for t in ("ergo", "llvm"))
    got, expected = ([tvm.runtime.tensor(a) for a in random_tensors(func, 0)] for _ in range(2))
    chip["main"](*got)
    cpu["main"](*expected)
    np.testing.assert_array_equal(got[2].numpy(), expected[2].numpy())


def test_a_plain_product_is_one_instruction():
    program = program_of(cases.matmul(8, 16, 8), "ergo")
    assert [type(i).__name__ for i in program.instructions] == ["MatMul", "Halt"]


def test_padding_joins_the_convolution():
    program = program_of(cases.conv2d(1, 8, 8, 3, 4, (3, 3), 1, 1, 1), "ergo")
    convolutions = [i for i in program.instructions if type(i).__name__ == "Conv"]
    assert [c.padding for c in convolutions] == [(1, 1, 1, 1)]


def test_definitions_of_the_dialect_are_known_by_their_attribute():
    op = dialect.MaxPool2d(pool=(2, 2), strides=(2, 2), padding=(0, 0, 0, 0), dilation=(1, 1))
    func = prim_func_of(op, [(1, 8, 8, 3)], ["int8"])
    check(func)
    assert [n.op for n in program_of(func, "ergo").nodes] == ["max_pool2d"]


X8 = te.placeholder((3, 5), "int8", name="x")
XF = te.placeholder((3, 5), "float32", name="x")


@pytest.mark.parametrize(
    "result, word",
    [
        (lambda: te.create_prim_func([X8, topi.multiply(X8, te.compute((3, 5), lambda i, j: X8[i, 4 - j]))]), "offset"),
        (lambda: te.create_prim_func([XF, topi.nn.relu(XF)]), "float32"),
        (lambda: te.create_prim_func([X8, topi.sum(X8.astype("int32"), axis=1)]), "products of two"),
        (lambda: te.create_prim_func([X8, topi.cast(X8, "int32")]), "int32"),
        (lambda: cases.matmul(4, 200000, 4, a_zp=-100, b_zp=100), "overflow"),
    ],
)
def test_refused_with_what_was_seen(result, word):
    with pytest.raises(UnsupportedError) as caught:
        tvm.tirx.build(result(), target="ergo")
    assert word in str(caught.value) and "remedy" in str(caught.value)


def test_a_scheduled_function_is_refused():
    schedule = tvm.s_tir.Schedule(cases.matmul(16, 16, 16))
    block = schedule.get_sblock("product")
    schedule.split(schedule.get_loops(block)[0], [4, 4])
    with pytest.raises(UnsupportedError, match="before scheduling"):
        tvm.tirx.build(schedule.mod, target="ergo")


def test_relax_module_is_sent_to_tvm_compile():
    from tvm import relax

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((2, 2), "float32"))
    with builder.function("main", [x]):
        builder.emit_func_output(builder.emit(relax.op.nn.relu(x)))
    with pytest.raises(UnsupportedError, match="tvm.compile"):
        tvm.tirx.build(builder.get(), target="ergo")


def test_several_functions_and_tvms_other_entry_points():
    functions = {"f": cases.unary("relu", (2, 3)), "g": cases.unary("clip", (2, 3))}
    module = tvm.IRModule({name: f.with_attr("global_symbol", name) for name, f in functions.items()})
    x = np.array([[1, -2, 3], [-90, 5, 60]], np.int8)
    with pytest.warns(DeprecationWarning):
        built = tvm.build(module, target="ergo")
    for library in (built, tvm.compile(module, target="ergo")):
        for name, expected in (("f", np.maximum(x, 0)), ("g", x.clip(-3, 50))):
            out = tvm.runtime.tensor(np.zeros_like(x))
            library[name](tvm.runtime.tensor(x), out)
            np.testing.assert_array_equal(out.numpy(), expected)
