"""Tables in the output stage: the same values as with TABLE instructions and as on the CPU, whole, in bands, in slots;
what stays apart."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tvm import relax

from tvm_ergo.codegen.compile import compile_function, compile_graph, emit_program
from tvm_ergo.codegen.fuse import fuse
from tvm_ergo.codegen.graph import from_function
from tvm_ergo.codegen.output_tables import OUTPUT_TABLES, with_output_tables
from tvm_ergo.codegen.space import Objective, make_space_plan
from tvm_ergo.codegen.space.check import check
from tvm_ergo.codegen.testing import RandomFunction, shape_of
from tvm_ergo.codegen.tuning.parts import alone
from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.compile.insert_compression import Decision, InsertCompression
from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.relay_passes.dialect.traits import Tables
from tvm_ergo.target.chip import chip
from tvm_ergo.target.codecs.slots import SLOT_CODECS, lossless_slot_bytes
from tvm_ergo.target.machine import Machine
from tvm_ergo.target.program import Program

CHIP = chip("ergo/1")
SLOW = {"deadline": None, "suppress_health_check": list(HealthCheck)}
KINDS = ("conv2d", "depthwise", "pool", "add", "mul", "matmul", "conv2d_transpose", "reshape", "transpose", "concat")


class Activated(RandomFunction):
    """Most ops are followed by a table, of which some are one a channel."""

    def grow(self, count, kinds):
        for _ in range(count):
            before = len(self.values)
            super().grow(1, [k for k in kinds if hasattr(self, k)])
            if len(self.values) > before and self.random.random() < 0.8:
                x = self.values[-1]
                per_channel = self.random.random() < 0.3
                self.emit(
                    dialect.Table(out_zp=self.zero_point()),
                    x,
                    self.constant((shape_of(x)[-1], 256) if per_channel else (256,)),
                )
        return self


def run(program, inputs):
    return list(Machine(program, CHIP, strict=True).run(inputs).outputs.values())


def assert_same(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a.reshape(b.shape), b)


@settings(max_examples=80, **SLOW)
@given(st.randoms(use_true_random=False))
def test_taken_in_equals_separate(random):
    function = Activated(random).grow(random.randint(2, 6), KINDS)
    mod, inputs = function.finish(random.randint(1, 2)), function.arrays_for_inputs()
    separate = run(compile_function(mod["main"], CHIP), inputs)
    graph = with_output_tables(from_function(mod["main"]))
    graph.validate()
    program = compile_function(mod["main"].with_attr(OUTPUT_TABLES, 1), CHIP)
    assert_same(run(program, inputs), separate)
    assert Program.from_bytes(program.to_bytes()).instructions == program.instructions
    assert Program.from_text(program.to_text()).instructions == program.instructions
    plan = make_space_plan(graph, {n.id: random.randint(1, 4) for n in graph.nodes if random.random() < 0.9})
    assert check(plan) is None
    assert_same(run(emit_program(plan, CHIP), inputs), separate)
    assert_same(
        run(compile_graph(graph, CHIP, objective=Objective.MEMORY, stream=random.random() < 0.5), inputs), separate
    )
    part = alone(graph, graph.nodes, graph.inputs, graph.outputs)
    part.validate()
    assert_same(
        run(compile_graph(part, CHIP), dict(zip((part.tensors[t].name for t in part.inputs), inputs.values()))),
        separate,
    )


@settings(max_examples=10, **SLOW)
@given(st.randoms(use_true_random=False))
def test_taken_in_equals_tvm_on_the_cpu(random):
    function = Activated(random).grow(random.randint(2, 5), KINDS)
    mod, inputs = function.finish(1), function.arrays_for_inputs()
    assert_same(
        run(compile_function(mod["main"].with_attr(OUTPUT_TABLES, 1), CHIP), inputs), build_cpu(mod)(*inputs.values())
    )


@settings(max_examples=30, **SLOW)
@given(st.randoms(use_true_random=False))
def test_slots_hold_what_the_table_gives(random):
    """A tensor made by a table waits in slots with the table's zero point; the producer looks up, then shrinks."""
    function = Activated(random)
    function._shape = lambda: (1, random.randint(4, 9), random.randint(2, 5), random.randint(1, 4))
    function.grow(random.randint(2, 5), ("conv2d", "depthwise", "add", "mul"))
    zero_points = {b.var.name: dialect.from_call(b.value).out_zp for b in function.bindings}
    decisions = {
        var.name: Decision(
            random.choice([c.name for c in SLOT_CODECS]),
            1,
            lossless_slot_bytes((1, *shape_of(var)[2:])),
            zero_points[var.name],
            keep_plain=False,
        )
        for var in function.values[1:]
        if len(shape_of(var)) == 4 and shape_of(var)[0] == 1 and random.random() < 0.8
    }
    mod, inputs = function.finish(1), function.arrays_for_inputs()
    changed = InsertCompression(decisions)(mod)
    separate = run(compile_function(mod["main"], CHIP), inputs)
    graph = fuse(with_output_tables(from_function(changed["main"])))
    graph.validate()
    assert_same(run(compile_graph(graph, CHIP), inputs), separate)


def layer(random, out=4, **fields):
    """A 1x1 convolution of [1, 5, 5, 3] and its function."""
    function = RandomFunction(random)
    function.values = function.params = [relax.Var("x", relax.TensorType((1, 5, 5, 3), "int8"))]
    vectors = [function.constant((out,), "int32", 2**23, 2**24 - 1), function.constant((out,), "int8", 28, 31)]
    conv = function.emit(
        dialect.Conv2d(name="conv", out_zp=3, **fields),
        function.values[0],
        function.constant((out, 1, 1, 3)),
        function.constant((out,), "int32", -500, 500),
        *vectors,
    )
    return function, conv


def test_the_table_names_the_tensor_and_its_quantization():
    function, conv = layer(Random(1))
    table = function.emit(dialect.Table(name="silu", out_scale=0.5, out_zp=-7), conv, function.constant((256,)))
    graph = with_output_tables(from_function(function.finish(1)["main"]))
    (node,) = graph.nodes
    assert (node.out_scale, node.out_zp, graph.tensors[node.outputs[0]].name) == (
        0.5,
        -7,
        table.name,
    ) and "then %" in str(graph)
    (told,) = compile_graph(graph, CHIP).meta["tensors"]
    assert (told["name"], told["layer"], told["out_scale"], told["out_zp"]) == (table.name, "silu", 0.5, -7)


def test_what_is_read_elsewhere_stays():
    function, conv = layer(Random(2))
    table = function.emit(dialect.Table(), conv, function.constant((256,)))
    function.emit(dialect.Maximum(), conv, table)
    assert len(with_output_tables(from_function(function.finish(1)["main"])).nodes) == 3


def test_an_output_stays():
    function, conv = layer(Random(3))
    function.emit(dialect.Table(), conv, function.constant((256,)))
    function.random.choice = lambda values: conv
    graph = from_function(function.finish(2)["main"])
    assert conv.name in {graph.tensors[t].name for t in graph.outputs}
    assert len(with_output_tables(graph).nodes) == 2


def test_unsigned_results_stay():
    function, conv = layer(Random(4))
    function.emit(dialect.Table(), conv, function.constant((256,), "uint8", 0, 255))
    assert len(with_output_tables(from_function(function.finish(1)["main"])).nodes) == 2


@pytest.mark.parametrize("per_channel, nodes", [(False, 2), (True, 3)])
def test_a_table_behind_a_reshape(per_channel, nodes):
    function, conv = layer(Random(5))
    flat = function.emit(dialect.Reshape((25, 4)), conv)
    function.emit(dialect.Table(out_zp=9), flat, function.constant((4, 256) if per_channel else (256,)))
    mod, inputs = function.finish(1), function.arrays_for_inputs()
    graph = with_output_tables(from_function(mod["main"]))
    assert len(graph.nodes) == nodes and graph.nodes[-1].out_zp == 9
    assert_same(run(compile_graph(graph, CHIP), inputs), build_cpu(mod)(*inputs.values()))


@pytest.mark.parametrize("shapes", [((256,), (256,)), ((4, 256), (4, 256)), ((256,), (4, 256))])
def test_two_tables_are_one(shapes):
    function, y = layer(Random(7))
    for shape in shapes:
        y = function.emit(dialect.Table(out_zp=11), y, function.constant(shape))
    mod, inputs = function.finish(1), function.arrays_for_inputs()
    graph = with_output_tables(from_function(mod["main"]))
    graph.validate()
    assert len(graph.nodes) == (1 if shapes[0] == shapes[1] else 2)
    assert_same(run(compile_graph(graph, CHIP), inputs), build_cpu(mod)(*inputs.values()))


def test_tables_cost_fewer_cycles_and_no_more_memory():
    function, conv = layer(Random(6), out=64)
    function.emit(dialect.Table(), conv, function.constant((256,)))
    func = function.finish(1)["main"]
    separate, taken = (compile_function(f, CHIP) for f in (func, func.with_attr(OUTPUT_TABLES, 1)))
    from tvm_ergo.target.machine import Trace

    assert Trace(taken, CHIP, None).cycles < Trace(separate, CHIP, None).cycles
    assert taken.meta["peak_bytes"] <= separate.meta["peak_bytes"]


def test_hosts_are_what_has_an_output_table():
    from tvm_ergo.target.isa import OPCODES

    names = {
        "Conv2d": "CONV",
        "DepthwiseConv2d": "DEPTHWISE",
        "Conv2dTranspose": "CONV_TRANSPOSE",
        "MatMul": "MATMUL",
        "Add": "ADD",
        "Mul": "MUL",
        "AvgPool2d": "POOL",
        "MaxPool2d": "POOL",
    }
    assert {names[op.__name__] for op in dialect.OPS.values() if op.traits.output_table is not Tables.NONE} == {
        cls.MNEMONIC for cls in OPCODES.values() if cls.OUTPUT_TABLE
    }
