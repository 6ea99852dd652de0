"""Random chip functions: the strict machine equals the Relax function compiled by TVM for the CPU, to the bit."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tvm_ergo.codegen.compile import compile_function, compile_graph, emit_program
from tvm_ergo.codegen.fuse import fuse
from tvm_ergo.codegen.graph import from_function
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.plan import Step, make_plan
from tvm_ergo.codegen.testing import RandomFunction
from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.target.chip import chip
from tvm_ergo.target.machine import Machine
from tvm_ergo.target.program import Program

CHIP = chip("ergo/1")
MEMORY = 1 << 20
SWITCHES = [f.name for f in dataclasses.fields(Options) if f.type == "bool"]
OFF = Options(**dict.fromkeys(SWITCHES, False))
SLOW = {"deadline": None, "suppress_health_check": list(HealthCheck)}
RANDOMS = st.randoms(use_true_random=False)


def run(program, inputs):
    return list(Machine(program, CHIP, strict=True).run(inputs).outputs.values())


def random_function(random, ops=12, **kinds):
    return RandomFunction(random, random.randint(1, 3)).grow(random.randint(1, ops), **kinds)


def assert_same(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a.reshape(b.shape), b)


@settings(max_examples=30, **SLOW)
@given(RANDOMS)
def test_machine_equals_tvm_on_the_cpu(random):
    function = random_function(random)
    mod, inputs = function.finish(random.randint(1, 3)), function.arrays_for_inputs()
    assert_same(run(compile_function(mod["main"], CHIP, memory_bytes=MEMORY), inputs), build_cpu(mod)(*inputs.values()))


@pytest.mark.parametrize(
    "kind",
    sorted(
        set(RandomFunction.COMPUTE + RandomFunction.ELEMENTWISE + RandomFunction.MOVEMENT + RandomFunction.COMPRESSION)
    ),
)
@settings(max_examples=4, **SLOW)
@given(random=RANDOMS)
def test_each_op_equals_tvm_on_the_cpu(kind, random):
    function = RandomFunction(random, 2).grow(2, kinds=(kind,))
    mod, inputs = function.finish(), function.arrays_for_inputs()
    assert_same(run(compile_function(mod["main"], CHIP, memory_bytes=MEMORY), inputs), build_cpu(mod)(*inputs.values()))


@settings(max_examples=12, **SLOW)
@given(RANDOMS)
def test_every_combination_of_switches_computes_the_same(random):
    function = random_function(random, kinds=RandomFunction.ELEMENTWISE + RandomFunction.MOVEMENT + ("conv2d",))
    graph, inputs = from_function(function.finish(random.randint(1, 3))["main"]), function.arrays_for_inputs()
    expected = run(compile_graph(graph, CHIP, memory_bytes=MEMORY, options=OFF), inputs)
    for values in itertools.product([False, True], repeat=len(SWITCHES)):
        options = Options(**dict(zip(SWITCHES, values, strict=True)))
        assert_same(run(compile_graph(graph, CHIP, memory_bytes=MEMORY, options=options), inputs), expected)


@settings(max_examples=150, **SLOW)
@given(RANDOMS)
def test_all_switches_on_equals_all_off(random):
    function = random_function(random, 20)
    graph, inputs = from_function(function.finish(random.randint(1, 4))["main"]), function.arrays_for_inputs()
    assert_same(
        run(compile_graph(graph, CHIP, memory_bytes=MEMORY), inputs),
        run(compile_graph(graph, CHIP, memory_bytes=MEMORY, options=OFF), inputs),
    )


def tiles(random, graph, node):
    """A random partition of the node's output box into a grid, in random order; softmax rows stay whole."""
    cuts = []
    for axis, extent in enumerate(graph.tensors[node.outputs[0]].shape):
        whole = isinstance(node.op, dialect.Softmax) and axis == len(graph.tensors[node.outputs[0]].shape) - 1
        if isinstance(node.op, (dialect.Compress, dialect.Decompress)):
            whole = axis != 1  # slots and rows are coded whole
        if isinstance(node.op, dialect.Conv2dTranspose) and axis in (1, 2):
            # a tile behind the last row's reach crops more than there is, which the machine's kernel does not do yet
            whole = node.op.output_padding[axis - 1] > 0
        inner = (
            []
            if whole or extent == 1
            else sorted(set(random.randint(1, extent - 1) for _ in range(random.randint(0, 2))))
        )
        edges = [0, *inner, extent]
        cuts.append(list(itertools.pairwise(edges)))
    boxes = list(itertools.product(*cuts))
    random.shuffle(boxes)
    return boxes


@settings(max_examples=150, **SLOW)
@given(RANDOMS)
def test_tiles_of_every_node_compute_the_whole(random):
    function = random_function(random, 8)
    graph, inputs = from_function(function.finish(random.randint(1, 2))["main"]), function.arrays_for_inputs()
    steps = [Step(node, box) for node in graph.nodes for box in tiles(random, graph, node)]
    options = random.choice([Options(), OFF])
    assert_same(
        run(emit_program(make_plan(graph, MEMORY, options, steps), CHIP), inputs),
        run(compile_graph(graph, CHIP, memory_bytes=MEMORY, options=OFF), inputs),
    )


@settings(max_examples=20, **SLOW)
@given(RANDOMS)
def test_programs_survive_bytes_and_carry_their_map(random):
    function = random_function(random)
    graph = from_function(function.finish(2)["main"])
    program = compile_graph(graph, CHIP, memory_bytes=MEMORY)
    again = Program.from_bytes(program.to_bytes())
    assert again.instructions == program.instructions
    assert [p.name for p in program.inputs] == [p.name for p in function.params]
    assert len(program.nodes) == len(fuse(graph).nodes) and "object at" not in str(program.meta)
    assert all(i.node < max(1, len(program.nodes)) for i in program.instructions)
    assert program.meta["macs"] == graph.macs()
    for a, b in itertools.combinations(program.buffers, 2):  # the map itself is a valid plan, in instructions
        if a.first < b.last and b.first < a.last:
            assert a.addr + a.size_bytes <= b.addr or b.addr + b.size_bytes <= a.addr


@settings(max_examples=20, **SLOW)
@given(RANDOMS)
def test_meta_says_where_each_activation_can_be_read(random):
    """Tensors are captured after the instruction meta names; the plan without views or sharing gives the reference."""
    function = random_function(random)
    graph, inputs = from_function(function.finish()["main"]), function.arrays_for_inputs()
    captured = []
    for options in (Options(), OFF):
        program = compile_graph(graph, CHIP, memory_bytes=MEMORY, options=options)
        values = {}
        due = {}
        for entry in program.meta["tensors"]:
            due.setdefault(entry["instructions"] - 1, []).append(entry)

        def watch(index, _instruction, memory, due=due, values=values):
            for entry in due.get(index, []):
                raw = np.ndarray(entry["shape"], entry["dtype"], memory.bytes, entry["addr"], entry["strides"])
                values[entry["name"]] = raw.copy()

        Machine(program, CHIP).run(inputs, watch=watch)
        captured.append(values)
    assert captured[1].keys() <= {t.name for t in graph.tensors}
    for name in captured[0].keys() & captured[1].keys():
        np.testing.assert_array_equal(captured[0][name], captured[1][name], err_msg=name)
