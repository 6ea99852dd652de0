"""Real network structures: the planner's figures against the ones known for them."""

import numpy as np
import pytest
import tvm
from tvm import relax

from tvm_ergo.codegen.compile import compile_graph, emit_program
from tvm_ergo.codegen.graph import from_function
from tvm_ergo.codegen.plan import make_plan
from tvm_ergo.codegen.space import Objective
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.chip import chip
from tvm_ergo.target.errors import OutOfMemoryError
from tvm_ergo.target.machine import Machine

from .tall import wide_chain  # noqa: F401

# expansion, output channels, repeats, stride of each group of inverted residual blocks (MobileNetV2, table 2)
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
KIB = 1024


class Network:
    """Layers with random weights of the right shapes."""

    def __init__(self, size: int):
        self.rng, self.bindings = np.random.default_rng(0), []
        self.x = self.input = relax.Var("image", relax.TensorType((1, size, size, 3), "int8"))

    def emit(self, op, *args):
        call = op.call(*args)
        self.x = relax.DataflowVar(f"{op.op_name}_{len(self.bindings)}", call.ty)
        self.bindings.append(relax.VarBinding(self.x, call))
        return self.x

    def weights(self, shape, channels):
        draw = self.rng.integers
        return (
            relax.const(draw(-127, 128, shape).astype("int8")),
            relax.const(draw(-99, 99, channels).astype("int32")),
            relax.const(draw(2**23, 2**24, channels).astype("int32")),
            relax.const(np.full(channels, 33, "int8")),
        )

    def conv(self, out, kernel=1, stride=1):
        pad = (kernel - 1) // 2
        channels = int(self.x.ty.shape[3])
        self.emit(
            dialect.Conv2d(strides=(stride, stride), padding=(pad,) * 4),
            self.x,
            *self.weights((out, kernel, kernel, channels), out),
        )

    def depthwise(self, stride):
        channels = int(self.x.ty.shape[3])
        self.emit(
            dialect.DepthwiseConv2d(strides=(stride, stride), padding=(1,) * 4),
            self.x,
            *self.weights((3, 3, channels), channels),
        )

    def graph(self):
        block = relax.DataflowBlock([*self.bindings, relax.VarBinding(out := relax.Var("logits", self.x.ty), self.x)])
        func = relax.Function([self.input], relax.SeqExpr([block], out), out.ty)
        return from_function(tvm.IRModule({"main": func})["main"])


@pytest.fixture(scope="module")
def mobilenet_v2():
    net = Network(224)
    net.conv(32, 3, 2)
    for expansion, channels, repeats, first_stride in BLOCKS:
        for i in range(repeats):
            source, before = net.x, int(net.x.ty.shape[3])
            if expansion > 1:
                net.conv(before * expansion)
            net.depthwise(first_stride if i == 0 else 1)
            net.conv(channels)
            if before == channels and (i or first_stride == 1):
                net.emit(dialect.Add(a_zp=0, b_zp=0, a_mult=2**20, b_mult=2**20, shift=20), source, net.x)
    net.conv(1280)
    net.emit(dialect.ReduceSum(axes=(1, 2), keepdims=True, in_zp=0, mult=2**23, shift=29), net.x)
    net.conv(1000)
    net.emit(dialect.Reshape(shape=(1, 1000)), net.x)
    return net.graph()


def test_mobilenet_v2_reaches_the_known_bound(mobilenet_v2):
    """1470 KiB: the 112x112x96 expansion and its 56x56x96 depthwise result (design/anchors.md, column "bound")."""
    plan = make_plan(mobilenet_v2, 16 << 20)
    assert plan.bound_bytes == 1470 * KIB
    assert plan.problem.lower_bound() == plan.activation_bytes == 1470 * KIB
    assert mobilenet_v2.macs() == pytest.approx(300.8e6, rel=0.01)


def test_residual_adds_run_in_place(mobilenet_v2):
    plan = make_plan(mobilenet_v2, 16 << 20)
    adds = [n for n in mobilenet_v2.nodes if isinstance(n.op, dialect.Add)]
    assert len(adds) == 10
    assert all(plan.views[n.outputs[0]].same_place(plan.views[n.inputs[0]]) for n in adds)


def test_mobilenet_v2_runs_strictly(mobilenet_v2):
    big = chip("ergo/1").with_memory(16 << 20)
    program = emit_program(make_plan(mobilenet_v2, 16 << 20), big)
    image = np.random.default_rng(1).integers(-128, 128, (1, 224, 224, 3)).astype("int8")
    result = Machine(program, big, strict=True).run({"image": image})
    assert [o.shape for o in result.outputs.values()] == [(1, 1000)]


def test_out_of_memory_names_peak_limit_and_tensors(mobilenet_v2):
    with pytest.raises(OutOfMemoryError) as caught:
        make_plan(mobilenet_v2, 4_000_000)
    text = str(caught.value)
    plan = make_plan(mobilenet_v2, 16 << 20)
    expansion = 112 * 112 * 96
    for part in (
        f"{plan.memory_bytes} bytes",
        "4000000 bytes",
        f"conv2d_3 {expansion} bytes",
        f"depthwise_conv2d_4 {expansion // 4} bytes",
        f"{plan.constant_bytes} constant bytes",
        f"{1470 * KIB} activation bytes",
        f"--memory {plan.memory_bytes}",
    ):
        assert part in text
    assert "where: step 4 (depthwise_conv2d_4)" in text


def test_the_advice_is_about_the_part_that_is_larger(wide_chain):
    """Activations are the larger part of this chain, whatever the limit; a limit below its constants says so of them as
    well."""
    graph = wide_chain[1]
    plan = make_plan(graph, 1 << 20)
    constants, activations = plan.constant_bytes, plan.activation_bytes
    assert constants < activations
    for limit, words in (
        (constants + activations - 1, ["activations are the larger part"]),
        (constants, ["activations are the larger part"]),
        (constants - 1, ["constants alone exceed", "so do activations"]),
    ):
        with pytest.raises(OutOfMemoryError) as caught:
            make_plan(graph, limit)
        assert (
            all(word in caught.value.remedy for word in words)
            and "constants are the larger part" not in caught.value.remedy
        )


def test_the_smallest_sufficient_memory_compiles(mobilenet_v2):
    need = make_plan(mobilenet_v2, 16 << 20).memory_bytes
    assert make_plan(mobilenet_v2, need).memory_bytes == need
    with pytest.raises(OutOfMemoryError):
        make_plan(mobilenet_v2, need - 1)


def test_mobilenet_v2_in_bands_of_rows(mobilenet_v2):
    """The frame and a tenth of it; whole layers need 1,470 KiB."""
    program = compile_graph(mobilenet_v2, chip("ergo/1").with_memory(16 << 20), objective=Objective.MEMORY)
    assert program.meta["activation_bytes"] <= 1.1 * 224 * 224 * 3
    assert program.meta["space"]["mac_overhead"] <= 1.35
    limit = program.meta["constant_bytes"] + 300 * KIB
    assert compile_graph(mobilenet_v2, chip("ergo/1"), memory_bytes=limit).meta["peak_bytes"] <= limit


def test_mobilenet_v2_in_bands_is_the_same_network(mobilenet_v2):
    big = chip("ergo/1").with_memory(16 << 20)
    image = {"image": np.random.default_rng(1).integers(-128, 128, (1, 224, 224, 3)).astype("int8")}
    whole, banded = (
        Machine(compile_graph(mobilenet_v2, big, objective=o), big, strict=True).run(image).outputs
        for o in (Objective.LATENCY, Objective.MEMORY)
    )
    for name, value in whole.items():
        np.testing.assert_array_equal(banded[name], value)
