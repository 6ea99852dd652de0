"""Order in space: random graphs in random bands equal the untiled Program and TVM; a judge of labels finds planted
faults."""

import dataclasses
import itertools
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.codegen.compile import compile_function, emit_program
from tvm_ergo.codegen.graph import from_function
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.plan import make_plan
from tvm_ergo.codegen.space import make_space_plan
from tvm_ergo.codegen.space.again import computed_again, sites
from tvm_ergo.codegen.space.check import check
from tvm_ergo.codegen.space.order import ROWS, Needs, band_steps, tileable
from tvm_ergo.codegen.space.place import NEVER, Profiles, place, separations
from tvm_ergo.codegen.space.plan import macs_of
from tvm_ergo.codegen.space.prepare import prepared
from tvm_ergo.codegen.space.rolling import Shift, runs_of
from tvm_ergo.codegen.space.stages import Stage
from tvm_ergo.codegen.stream import streamed
from tvm_ergo.codegen.testing import RandomFunction
from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.target.machine import Machine
from tvm_ergo.target.program import Program

from .tall import CHIP, RANDOMS, SLOW, TallFunction, assert_same, random_bands, random_plan, run, tall, wide_chain  # noqa: F401


@settings(max_examples=60, **SLOW)
@given(RANDOMS)
def test_random_bands_equal_the_untiled_program(random):
    function = tall(random) if random.random() < 0.7 else RandomFunction(random, random.randint(1, 2)).grow(12)
    graph, inputs = from_function(function.finish(random.randint(1, 2))["main"]), function.arrays_for_inputs()
    plan = random_plan(random, graph)
    assert check(plan) is None
    expected = run(emit_program(make_plan(graph, 1 << 20), CHIP), inputs)
    assert_same(run(emit_program(plan, CHIP), inputs).values(), expected.values())


@settings(max_examples=12, **SLOW)
@given(RANDOMS)
def test_random_bands_equal_tvm_on_the_cpu(random):
    function = tall(random)
    mod, inputs = function.finish(random.randint(1, 2)), function.arrays_for_inputs()
    plan = random_plan(random, from_function(mod["main"]))
    assert_same(run(emit_program(plan, CHIP), inputs).values(), build_cpu(mod)(*inputs.values()))


@settings(max_examples=20, **SLOW)
@given(RANDOMS)
def test_every_switch_off(random):
    switches = [f.name for f in dataclasses.fields(Options) if f.type == "bool"]
    options = Options(**{name: random.random() < 0.5 for name in switches})
    function = tall(random)
    graph, inputs = from_function(function.finish()["main"]), function.arrays_for_inputs()
    expected = run(emit_program(make_plan(graph, 1 << 20), CHIP), inputs)
    plan = random_plan(random, graph, options)
    assert check(plan) is None
    assert_same(run(emit_program(plan, CHIP), inputs).values(), expected.values())


@settings(max_examples=20, **SLOW)
@given(RANDOMS)
def test_tensors_in_meta_are_what_the_untiled_program_has(random):
    function = tall(random)
    graph, inputs = from_function(function.finish()["main"]), function.arrays_for_inputs()
    seen = [
        _intermediates(program, inputs)
        for program in (
            emit_program(make_plan(graph, 1 << 20, Options(in_place=False)), CHIP),
            emit_program(random_plan(random, graph), CHIP),
        )
    ]
    for name, value in seen[1].items():
        np.testing.assert_array_equal(value, seen[0][name], err_msg=name)


def _intermediates(program, inputs) -> dict[str, np.ndarray]:
    from tvm_ergo.target.isa import DType, Operand

    found = {}

    def watch(index, instruction, memory):
        for t in program.meta["tensors"]:
            if t["instructions"] == index + 1:
                found[t["name"]] = memory.view(
                    Operand(t["addr"], DType.of(t["dtype"]), tuple(t["shape"]), tuple(t["strides"]))
                ).copy()

    Machine(program, CHIP).run(inputs, watch=watch)
    return found


@settings(max_examples=30, **SLOW)
@given(RANDOMS)
def test_no_row_is_computed_twice_and_producers_come_first(random):
    graph = from_function(tall(random).finish()["main"])
    needs, done = Needs(graph), {}
    for step in band_steps(graph, random_bands(random, graph, needs), needs):
        begin, end = step.region[ROWS] if needs.bandable[step.node.id] else (0, 1)
        assert done.get(step.node.id, 0) == begin < end
        for t, box in zip(step.node.inputs, needs.inputs(step.node, begin, end), strict=True):
            if t in graph.producer and all(b < e for b, e in box):
                producer = graph.producer[t]
                assert done.get(producer.id, 0) >= (box[ROWS][1] if needs.bandable[producer.id] else 1)
        done[step.node.id] = end
    assert set(done) == {n.id for n in graph.nodes}


def test_the_judge_finds_planted_faults(wide_chain):
    _, graph, _ = wide_chain
    plan = make_space_plan(graph, dict.fromkeys(range(len(graph.nodes)), 1), stages={2: Stage((0, 1), columns=4)})
    assert check(plan) is None
    faults = 0
    for i in range(len(plan.offsets)):  # one buffer moved onto another
        offsets = plan.offsets.copy()
        offsets[i] = offsets[(i + 1) % len(offsets)]
        faults += check(dataclasses.replace(plan, offsets=offsets)) is not None
    assert faults >= len(plan.offsets) - 1
    at = next(k for k, s in enumerate(plan.steps) if isinstance(s, Shift))  # a shift that moves nothing
    steps = list(plan.steps)
    steps[at] = dataclasses.replace(steps[at], runs=())
    assert check(dataclasses.replace(plan, rolled=dataclasses.replace(plan.rolled, steps=tuple(steps)))) is not None


def test_the_plan_prints(wide_chain):
    plan = make_space_plan(
        wide_chain[1], dict.fromkeys(range(len(wide_chain[1].nodes)), 1), stages={2: Stage((0, 1), columns=4)}
    )
    text = str(plan)
    assert "plan in space" in text and " shift " in text and text.count("\n") >= len(plan.steps)
    assert macs_of(plan) > wide_chain[1].macs()


@settings(max_examples=60, **SLOW)
@given(st.integers(0, 40), st.integers(1, 40), st.integers(1, 12), st.booleans(), RANDOMS)
def test_moved_runs_hold_every_written_byte_and_never_overlap_themselves(begin, length, distance, masked, random):
    written = np.array([random.random() < 0.6 for _ in range(100)]) if masked else None
    moved = []
    for r in runs_of(begin, begin + length, distance, written):
        piece = [r.begin + k * r.pitch + b for k in range(r.count) for b in range(r.length)]
        assert not {p - distance for p in piece} & set(piece)
        moved += piece
    wanted = [b for b in range(begin, begin + length) if written is None or written[b]]
    assert sorted(moved) == wanted == sorted(set(moved))
    assert moved == sorted(moved)


@settings(max_examples=60, **SLOW)
@given(st.integers(1, 6), st.integers(1, 8), RANDOMS)
def test_placement_against_brute_force(count, times, random):
    low = np.array([[random.randint(0, 4) for _ in range(times)] for _ in range(count)])
    high = low + np.array([[random.choice([0, 0, 1, 3, 5]) for _ in range(times)] for _ in range(count)])
    offsets = place(Profiles.of(low, high))
    bytes_at = [
        [(i, set(range(x + a, x + b))) for i, (x, a, b) in enumerate(zip(offsets, low[:, t], high[:, t], strict=True))]
        for t in range(times)
    ]
    for alive in bytes_at:
        for (_, p), (_, q) in itertools.combinations(alive, 2):
            assert not p & q
    above = separations(low, high)
    for i, j in itertools.permutations(range(count), 2):
        distances = [high[j, t] - low[i, t] for t in range(times) if low[i, t] < high[i, t] and low[j, t] < high[j, t]]
        assert above[i, j] == max(distances, default=NEVER)


@settings(max_examples=25, **SLOW)
@given(RANDOMS)
def test_streams_running_sums_and_nodes_computed_again_change_no_value(random):
    function = tall(random)
    resident, inputs = from_function(function.finish(random.randint(1, 2))["main"]), function.arrays_for_inputs()
    graph = prepared(streamed(resident))
    graph = computed_again(graph, [site for site in sites(graph) if random.random() < 0.8])
    graph.validate()
    expected = run(emit_program(make_plan(resident, 1 << 20), CHIP), inputs)
    for plan in (random_plan(random, graph), make_plan(graph, 1 << 20)):
        program = emit_program(plan, CHIP)
        assert Program.from_bytes(program.to_bytes()) == program == Program.from_text(program.to_text())
        assert_same(run(program, inputs).values(), expected.values())


@settings(max_examples=15, **SLOW)
@given(RANDOMS)
def test_windows_that_lie_in_the_padding_run_in_rows(random):
    """1x1 and 3x3 kernels with more padding than kernel: with its padding apart the layer can be cut, and nothing
    changes."""
    function = TallFunction(random)
    function.overpadded()
    resident, inputs = (
        from_function(function.grow(2, ("conv2d", "table", "add")).finish()["main"]),
        function.arrays_for_inputs(),
    )
    graph = prepared(resident)
    assert all(tileable(graph, node) for node in graph.nodes if isinstance(node.op, dialect.Conv2d))
    expected = run(emit_program(make_plan(resident, 1 << 20), CHIP), inputs)
    for plan in (random_plan(random, graph), make_space_plan(graph, dict.fromkeys(range(len(graph.nodes)), 1))):
        assert check(plan) is None
        assert_same(run(emit_program(plan, CHIP), inputs).values(), expected.values())


def test_a_stream_is_never_in_memory_as_a_whole():
    graph = streamed(from_function(TallFunction(Random(3)).grow(1, ("conv2d",)).finish()["main"]))
    plan = make_space_plan(graph, dict.fromkeys(range(len(graph.nodes)), 1))
    assert graph.streams and check(plan) is None
    for t in graph.streams:
        rows = graph.consumers[t][0].outputs[0]
        assert int((plan.rolled.high - plan.rolled.low)[plan.row[rows]].max()) < graph.tensors[t].size_bytes


def test_layers_of_which_no_window_sees_any_input_run():
    """1x1, stride 4, padding 1, one column wide: every output is the bias, requantized."""
    function = TallFunction(Random(2))
    x = function.pick(4)
    one = function.emit(dialect.Slice((0, 0, 0, 0), (1, int(x.ty.shape[1]), 1, int(x.ty.shape[3])), (1, 1, 1, 1)), x)
    op = dialect.Conv2d(strides=(1, 4), padding=(0, 1, 0, 0), in_zp=3, **function.clip())
    channels = int(x.ty.shape[3])
    function.emit(op, one, function.constant((2, 1, 1, channels)), *function._channel_vectors(2, channels))
    mod = function.finish()
    inputs = function.arrays_for_inputs()
    program = compile_function(mod["main"], CHIP)
    assert_same(run(program, inputs).values(), build_cpu(mod)(*inputs.values()))
