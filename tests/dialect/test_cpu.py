"""Building for the CPU: the schedule never changes an integer, floats stay within reassociation, wrong inputs are
refused."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tvm import relax, te

from tvm_ergo.relay_passes import compat, cpu, cpu_schedule
from tvm_ergo.relay_passes.dialect import testing
from tvm_ergo.target.errors import InputError, ModelError
from tvm_ergo.target.machine.kernels import float_reference

SETTINGS = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))


def build(inputs: list[relax.Var], body) -> tvm.IRModule:
    builder = relax.BlockBuilder()
    with builder.function("main", inputs):
        with builder.dataflow():
            output = builder.emit_output(builder.normalize(body(builder, *inputs)))
        builder.emit_func_output(output)
    return builder.get()


def var(name: str, shape, dtype: str = "float32") -> relax.Var:
    return relax.Var(name, relax.TensorType(shape, dtype))


@pytest.mark.parametrize("bits", [128, 256, 512])
def test_every_width_gives_the_unscheduled_result(bits):
    """A net of random int8 ops, scheduled for each vector width, against the same module with no schedule at all."""
    rng = np.random.default_rng(bits)
    cases = [testing.random_call(name, rng) for name in testing.any_op_names()]
    cases += [testing.random_call(name, rng, input_shape=(1, 16, 16, 32)) for name in ("conv2d", "depthwise_conv2d")]
    module = testing.module_of(cases)
    arrays = [a for case in cases for a in case.activations(rng)]
    plain = cpu.CompiledOnCPU(
        tvm.compile(relax.transform.LegalizeOps()(module), target="llvm"), cpu.build_cpu(module).inputs
    )
    with tvm.target.Target("llvm"):
        scheduled = cpu.ScheduleForCPU(vector_bits=bits)(cpu.LegalizeForCPU()(module))
        executable = tvm.compile(scheduled, target="llvm")
    for a, b in zip(plain(*arrays), cpu.CompiledOnCPU(executable, plain.inputs)(*arrays), strict=True):
        np.testing.assert_array_equal(a, b)


@SETTINGS
@given(data=st.data())
def test_float_convolutions(data):
    """Random NHWC/OHWI convolutions of the normal form, depthwise and grouped ones too, against the NumPy reference."""
    case = testing.random_call(data.draw(st.sampled_from(["conv2d", "depthwise_conv2d"])), data.draw)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    op, channels = case.op, case.shapes[0][3]
    depthwise = op.op_name == "depthwise_conv2d"
    weights = rng.normal(size=(channels, *case.shapes[1][:2], 1) if depthwise else case.shapes[1]).astype(np.float32)
    groups = channels if depthwise else op.groups
    module = build(
        [var("x", case.shapes[0])],
        lambda builder, x: relax.op.nn.conv2d(
            x,
            relax.const(weights),
            strides=op.strides,
            padding=op.padding,
            dilation=op.dilation,
            groups=groups,
            data_layout="NHWC",
            kernel_layout="OHWI",
        ),
    )
    x = rng.normal(size=case.shapes[0]).astype(np.float32)
    expected = float_reference.conv2d_float(
        x, weights, strides=op.strides, padding=op.padding, dilation=op.dilation, groups=groups
    )
    np.testing.assert_allclose(cpu.build_cpu(module)(x)[0], expected, rtol=1e-5, atol=1e-4)


def test_float_network_with_everything_around():
    """Dense, bias, softmax, pooling, reshape and a tuple of outputs: TVM's own legalizations under our schedule."""
    rng = np.random.default_rng(5)
    w = rng.normal(size=(48, 33)).astype(np.float32)

    def body(builder, x):
        pooled = builder.emit(relax.op.nn.max_pool2d(x, pool_size=(2, 2), strides=(2, 2), layout="NHWC"))
        flat = builder.emit(relax.op.reshape(pooled, (2, 48)))
        logits = builder.emit(relax.op.add(relax.op.matmul(flat, relax.const(w)), relax.const(np.ones(33, np.float32))))
        return relax.Tuple([logits, builder.emit(relax.op.nn.softmax(logits))])

    x = rng.normal(size=(2, 8, 8, 3)).astype(np.float32)
    logits, probabilities = cpu.build_cpu(build([var("x", x.shape)], body))(x)
    expected = x.reshape(2, 4, 2, 4, 2, 3).max(axis=(2, 4)).reshape(2, 48) @ w + 1
    exponent = np.exp(expected - expected.max(axis=-1, keepdims=True))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(probabilities, exponent / exponent.sum(axis=-1, keepdims=True), rtol=1e-5, atol=1e-6)


def test_the_accumulators_of_a_convolution_are_tiled():
    """The rule really ran: a vectorized lane loop and an unrolled column loop stand inside the reduction."""
    case = testing.random_call("conv2d", np.random.default_rng(0), input_shape=(1, 12, 12, 16))
    with tvm.target.Target("llvm"):
        module = cpu.LegalizeForCPU()(testing.module_of([case]))
    (func,) = [f for v, f in module.functions_items() if isinstance(f, tvm.tirx.PrimFunc)]
    text = cpu_schedule.schedule_prim_func(func, 512).script()
    assert "T.vectorized" in text and "accumulate_init" in text and "accumulate_update" in text


def test_symbolic_functions_are_left_alone():
    n = tvm.tirx.Var("n", "int32")
    a = te.placeholder((n,), "int8", name="a")
    func = te.create_prim_func([a, te.compute((n,), lambda i: a[i] + a[i], name="b")])
    tvm.ir.assert_structural_equal(cpu_schedule.schedule_prim_func(func), func)


@SETTINGS
@given(extent=st.integers(1, 400), limit=st.integers(1, 64))
def test_largest_divisor(extent, limit):
    found = cpu_schedule.largest_divisor(extent, limit)
    assert (
        extent % found == 0
        and found <= limit
        and not any(extent % d == 0 for d in range(found + 1, min(limit, extent) + 1))
    )


def test_wrong_inputs_are_refused():
    case = testing.random_call("transpose", np.random.default_rng(0), input_shape=(2, 3))
    compiled = cpu.build_cpu(testing.module_of([case]))
    with pytest.raises(InputError, match="wrong number"):
        compiled()
    with pytest.raises(InputError, match="does not fit"):
        compiled(np.zeros((3, 2), np.int8))
    with pytest.raises(InputError, match="does not fit"):
        compiled(np.zeros((2, 3), np.float32))
    with pytest.raises(ModelError, match="no such function"):
        cpu.build_cpu(testing.module_of([case]), entry="other")


def test_host_target_names_this_machine():
    target = compat.host_llvm_target()
    assert target.kind.name == "llvm" and compat.vector_bits(target) in (128, 256, 512)
    assert compat.vector_bits(None) == 256


def test_take_wraps_around_and_tvm_warns_of_nothing(capfd):
    """TVM's default mode reads beyond the tensor, and says so on the terminal at every use."""
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    mod = build([var("indices", (5,), "int64")], lambda _, indices: relax.op.take(relax.const(table), indices, axis=0))
    given = np.array([0, 3, -1, 4, 9])
    (result,) = cpu.build_cpu(mod)(given)
    assert np.array_equal(result, table.take(given, axis=0, mode="wrap"))
    captured = capfd.readouterr()
    assert "Warning" not in captured.err + captured.out
