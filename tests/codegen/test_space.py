"""Order in space: random graphs in random bands equal the untiled Program and TVM; a judge of labels finds planted faults."""

import dataclasses
import itertools
import re
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tvm import relax
from tvm_ergo.codegen.compile import compile_function, compile_graph, emit_program
from tvm_ergo.codegen.graph import from_function
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.plan import make_plan
from tvm_ergo.codegen.planned import described, remade
from tvm_ergo.codegen.space import Objective, SpacePlan, choose, make_space_plan
from tvm_ergo.codegen.space.again import computed_again, sites
from tvm_ergo.codegen.space.check import check
from tvm_ergo.codegen.space.order import ROWS, Needs, band_steps, tileable
from tvm_ergo.codegen.space.place import NEVER, Profiles, place, separations
from tvm_ergo.codegen.space.plan import macs_of, tighter
from tvm_ergo.codegen.space.rolling import Shift, runs_of
from tvm_ergo.codegen.space.paths import Paths
from tvm_ergo.codegen.space.prepare import prepared
from tvm_ergo.codegen.space.segments import linear_cuts
from tvm_ergo.codegen.space.stages import Stage, widened
from tvm_ergo.codegen.stream import streamed
from tvm_ergo.codegen.testing import RandomFunction
from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.target.chip import chip
from tvm_ergo.target.errors import OutOfMemoryError
from tvm_ergo.target.machine import Machine
from tvm_ergo.target.program import Program

CHIP = chip("ergo/1")
SLOW = {"deadline": None, "suppress_health_check": list(HealthCheck)}
RANDOMS = st.randoms(use_true_random=False)
SPATIAL = ("conv2d", "overpadded", "depthwise", "depthwise", "pool", "add", "add", "mul", "table", "concat", "pad", "reduce", "excite", "compress", "compress")


class TallFunction(RandomFunction):
    """Pictures of enough rows that buffers roll."""

    def _shape(self):
        return (1, self.random.randint(8, 24), self.random.randint(2, 5), self.random.randint(1, 4))


    def excite(self) -> None:
        """Scales a picture by what its average says."""
        x = self.pick(4)
        count = x.ty.shape[1] * x.ty.shape[2]
        if int(x.ty.shape[0]) > 1 or (mean := self.emit(dialect.ReduceSum((1, 2), True, self.zero_point(), **self.scale(70 * int(count)), **self.clip()), x)) is None:
            return
        gate = self.emit(dialect.Table(), mean, self.constant((256,)))
        self.emit(dialect.Mul(a_zp=self.zero_point(), b_zp=self.zero_point(), **self.scale(8000), **self.clip()), x, gate)


def tall(random: Random, ops: int = 10) -> TallFunction:
    return TallFunction(random).grow(ops, SPATIAL)


def random_bands(random: Random, graph, needs: Needs) -> dict[int, int]:
    return {n.id: random.choice([1, 1, 2, random.randint(1, needs.height(n))]) for n in graph.nodes
            if needs.bandable[n.id] and random.random() < 0.9}


def random_stages(random: Random, graph) -> dict[int, Stage]:
    """Some nodes with some of what they read, in tiles of any size."""
    stages, taken = {}, set()
    for last in reversed(graph.nodes):
        if last.id in taken or not tileable(graph, last) or random.random() < 0.4:
            continue
        nodes = [last]
        for _ in range(random.randint(1, 5)):
            more = [n for n in widened(graph, lambda n: tileable(graph, n), nodes) if n.id not in taken and n.id not in stages]
            nodes += random.sample(more, random.randint(0, len(more)))
        inner = tuple(sorted(n.id for n in nodes[1:]))
        taken.update(inner)
        stages[last.id] = Stage(inner, random.choice([0, 1, 2, 3]), random.choice([0, 0, 1, 2]))
    return stages


def random_plan(random: Random, graph, options=Options()):
    needs = Needs(graph)
    bands = random_bands(random, graph, needs)
    barriers = {n.id for n in graph.nodes if random.random() < 0.15}
    stages = random_stages(random, graph) if random.random() < 0.7 else {}
    return make_space_plan(graph, bands, options, barriers=barriers, stages=stages, needs=needs, slack=random.choice([0, 0, 0.3]), random_orders=2)


def run(program, inputs):
    return Machine(program, CHIP, strict=True).run(inputs).outputs


def assert_same(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a.reshape(b.shape), b)


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
    seen = [_intermediates(program, inputs) for program in
            (emit_program(make_plan(graph, 1 << 20, Options(in_place=False)), CHIP), emit_program(random_plan(random, graph), CHIP))]
    for name, value in seen[1].items():
        np.testing.assert_array_equal(value, seen[0][name], err_msg=name)


def _intermediates(program, inputs) -> dict[str, np.ndarray]:
    from tvm_ergo.target.isa import DType, Operand

    found = {}

    def watch(index, instruction, memory):
        for t in program.meta["tensors"]:
            if t["instructions"] == index + 1:
                found[t["name"]] = memory.view(Operand(t["addr"], DType.of(t["dtype"]), tuple(t["shape"]), tuple(t["strides"]))).copy()

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


def chain(rows=32, width=8, wide=16, blocks=2) -> RandomFunction:
    """Expand, depthwise, project, add: the network this exists for, seeded."""
    function = RandomFunction(Random(7))
    function.params = [relax.Var("x", relax.TensorType((1, rows, width, 4), "int8"))]
    function.values = list(function.params)
    from tvm_ergo.relay_passes import dialect

    def conv(x, out):
        channels = int(x.ty.shape.values[3])
        weights = function.constant((out, 1, 1, channels))
        return function.emit(dialect.Conv2d(out_zp=0), x, weights, *function._channel_vectors(out, channels))

    function.emit = lambda op, *args: _emit(function, op, *args)
    for _ in range(blocks):
        source = function.values[-1]
        x = conv(source, wide)
        weights = function.constant((3, 3, wide))
        x = function.emit(dialect.DepthwiseConv2d(padding=(1, 1, 1, 1)), x, weights, *function._channel_vectors(wide, 9))
        x = conv(x, 4)
        function.emit(dialect.Add(a_zp=0, b_zp=0, a_mult=2**20, b_mult=2**20, shift=20), source, x)
    return function


def _emit(function, op, *args):
    var = relax.DataflowVar(f"{op.op_name}_{len(function.bindings)}", op.call(*args).ty)
    function.bindings.append(relax.VarBinding(var, op.call(*args)))
    function.values.append(var)
    return var


@pytest.fixture(scope="module")
def wide_chain():
    function = chain()
    mod = function.finish()
    return mod, from_function(mod["main"]), function.arrays_for_inputs()


def test_wide_tensors_never_exist_as_a_whole(wide_chain):
    mod, graph, inputs = wide_chain
    program = compile_function(mod["main"], CHIP, objective=Objective.MEMORY)
    whole = compile_function(mod["main"], CHIP)
    frame, wide = 32 * 8 * 4, 32 * 8 * 16
    assert whole.meta["activation_bytes"] >= frame + 2 * wide and whole.meta["space"] is None
    assert program.meta["activation_bytes"] < frame + wide / 2
    space = program.meta["space"]
    assert 1.0 <= space["mac_overhead"] <= 1.35 and space["groups"] and (space["rolling"] or space["stages"])
    assert not set(space["rolling"]) & {t["name"] for t in program.meta["tensors"]}
    assert_same(run(program, inputs).values(), build_cpu(mod)(*inputs.values()))


def test_every_limit_between_least_and_whole_is_met(wide_chain):
    _, graph, inputs = wide_chain
    whole, least = make_plan(graph, 1 << 20).memory_bytes, choose(graph, CHIP, 1 << 20, Options(), Objective.MEMORY).memory_bytes
    expected = run(compile_graph(graph, CHIP), inputs)
    cycles = []
    for limit in np.linspace(least, whole, 6).astype(int).tolist():
        program = compile_graph(graph, CHIP, memory_bytes=limit)
        assert program.meta["peak_bytes"] <= limit == program.memory_bytes
        assert_same(run(program, inputs).values(), expected.values())
        cycles.append(len(program.instructions))
    assert cycles[0] > cycles[-1] == len(graph.nodes) + 1


@settings(max_examples=15, **SLOW)
@given(RANDOMS)
def test_random_graphs_meet_random_limits_exactly(random):
    """Least memory, then limits from it up to whole layers, for time and for energy, inputs resident or streamed."""
    function = tall(random, random.randint(4, 10)) if random.random() < 0.8 else RandomFunction(random, random.randint(1, 2)).grow(10)
    resident, inputs = from_function(function.finish(random.randint(1, 2))["main"]), function.arrays_for_inputs()
    graph = streamed(resident) if random.random() < 0.5 else resident
    expected = run(emit_program(make_plan(resident, 1 << 20), CHIP), inputs)
    whole, least = choose(graph, CHIP, 1 << 20), choose(graph, CHIP, 1 << 20, Options(), Objective.MEMORY)
    assert least.memory_bytes <= whole.memory_bytes
    plans = [(1 << 20, least)]
    for limit in (least.memory_bytes, random.randint(least.memory_bytes, whole.memory_bytes)):
        objective = random.choice([Objective.LATENCY, Objective.ENERGY])
        plans.append((limit, choose(graph, CHIP, limit, Options(), objective)))
    for limit, plan in plans:
        assert plan.memory_bytes <= limit and (not isinstance(plan, SpacePlan) or check(plan) is None)
        assert_same(run(emit_program(plan, CHIP, limit), inputs).values(), expected.values())


def test_what_cannot_fit_names_the_best_peak(wide_chain):
    _, graph, _ = wide_chain
    least = choose(graph, CHIP, 1 << 20, Options(), Objective.MEMORY)
    with pytest.raises(OutOfMemoryError) as caught:
        compile_graph(graph, CHIP, memory_bytes=least.constant_bytes + 1000)
    text = str(caught.value)
    reached = int(re.search(r"a peak of (\d+) bytes", text)[1])  # without the limit of multiply-accumulates that `least` has
    assert least.constant_bytes + 1000 < reached <= least.memory_bytes and "rows and tiles" in text and "goes below 1024: the inputs" in text
    with pytest.raises(OutOfMemoryError, match="constants alone exceed"):
        compile_graph(graph, CHIP, memory_bytes=least.constant_bytes - 1)


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
    plan = make_space_plan(wide_chain[1], dict.fromkeys(range(len(wide_chain[1].nodes)), 1), stages={2: Stage((0, 1), columns=4)})
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
    bytes_at = [[(i, set(range(x + a, x + b))) for i, (x, a, b) in enumerate(zip(offsets, low[:, t], high[:, t], strict=True))]
                for t in range(times)]
    for alive in bytes_at:
        for (_, p), (_, q) in itertools.combinations(alive, 2):
            assert not p & q
    above = separations(low, high)
    for i, j in itertools.permutations(range(count), 2):
        distances = [high[j, t] - low[i, t] for t in range(times) if low[i, t] < high[i, t] and low[j, t] < high[j, t]]
        assert above[i, j] == max(distances, default=NEVER)


@settings(max_examples=20, **SLOW)
@given(RANDOMS)
def test_paths_end_at_the_last_node_and_cuts_are_crossed_by_one_tensor(random):
    graph = from_function(tall(random, 8).finish()["main"])
    paths = Paths(graph, CHIP)
    path = paths.smallest()
    assert path.parts[-1][0].last_node == graph.nodes[-1].id and [s.first for s, _ in path.parts[1:]] == [s.last + 1 for s, _ in path.parts[:-1]]
    assert check(paths.plan(path)) is None
    for cut in linear_cuts(graph)[:-1]:
        before, behind = graph.nodes[:cut + 1], graph.nodes[cut + 1:]
        made, later = ({t for node in nodes for t in node.outputs} for nodes in (before, behind))
        read = {t for node in behind for t in node.inputs if graph.tensors[t].data is None}
        crossing = (read - later) | (made & set(graph.outputs))
        assert crossing <= set(graph.nodes[cut].outputs)


def test_the_largest_of_the_segments_peaks_is_the_plans(wide_chain):
    paths = Paths(wide_chain[1], CHIP)
    path = paths.smallest()
    plan = tighter(paths.plan(path))  # segments share the tensors at their cuts, so that together they may need a little more
    assert plan.live_bytes <= path.peak_bytes == max(way.peak_bytes for _, way in path.parts) <= plan.activation_bytes <= 1.05 * path.peak_bytes
    assert all(way.tight for _, way in path.parts if way.peak_bytes == path.peak_bytes)


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
    """1x1 and 3x3 kernels with more padding than kernel: with its padding apart the layer can be cut, and nothing changes."""
    function = TallFunction(random)
    function.overpadded()
    resident, inputs = from_function(function.grow(2, ("conv2d", "table", "add")).finish()["main"]), function.arrays_for_inputs()
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


def test_the_least_memory_meets_a_limit_that_takes_more_multiply_accumulates_than_it_may_spend(wide_chain):
    _, graph, _ = wide_chain
    least = choose(graph, CHIP, 1 << 20, Options(mac_overhead=1.0), Objective.MEMORY)
    tight = tighter(Paths(graph, CHIP).plan(Paths(graph, CHIP).smallest()))
    assert tight.memory_bytes < least.memory_bytes
    plan = choose(graph, CHIP, tight.memory_bytes, Options(mac_overhead=1.0), Objective.MEMORY)
    assert plan.memory_bytes <= tight.memory_bytes and check(plan) is None


def test_a_described_plan_is_made_again_of_the_graph_as_it_was_before_the_search():
    """Plans of rows are of the prepared graph, which may have more nodes."""
    function = TallFunction(Random(5)).grow(2, ("conv2d",))
    x = function.pick(4)
    function.emit(dialect.ReduceSum((1, 2), True, 0, **function.scale(200), **function.clip()), x)
    graph = from_function(function.finish()["main"])
    plan = tighter(Paths(prepared(graph), CHIP).plan(Paths(prepared(graph), CHIP).smallest()))
    again = remade(graph, described(plan))
    assert len(plan.graph.nodes) > len(graph.nodes) and again.memory_bytes == plan.memory_bytes and str(again) == str(plan)


def test_a_refusal_names_whole_layers_where_rows_and_tiles_need_more():
    """Averages over a large input run early or late: whole layers take another order, the search in space keeps the given one."""
    function = TallFunction(Random(1))
    x = function.pick(4)
    for _ in range(2):
        function.emit(dialect.Table(), x, function.constant((256,)))
    function.emit(dialect.ReduceSum((1, 2), True, 0, **function.scale(200), **function.clip()), x)
    graph = from_function(function.finish(3)["main"])
    with pytest.raises(OutOfMemoryError) as caught:
        choose(graph, CHIP, 1)
    peak = int(re.search(r"a peak of (\d+) bytes", str(caught.value))[1])
    assert peak <= make_plan(graph, 1 << 30).memory_bytes and choose(graph, CHIP, peak).memory_bytes == peak
    with pytest.raises(OutOfMemoryError):
        choose(graph, CHIP, peak - 1)


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
