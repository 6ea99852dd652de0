"""Coded weights in plans: random nets, codecs, lanes, tiles, bands and stages give what plain weights give, on the
strict machine."""

from __future__ import annotations

import random as rnd
from unittest import mock

import numpy as np
import pytest

from tvm_ergo.codegen.compile import compile_graph, emit_program
from tvm_ergo.codegen.graph import from_function
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.plan import Step, make_plan, place_constants
from tvm_ergo.codegen.weights.coding import Coding, stream
from tvm_ergo.codegen.weights.panels import Panels, group_runs
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.chip import chip
from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.weights import decode
from tvm_ergo.target.machine import Machine
from tvm_ergo.target.program import BufferKind, Program

from ..tall import SPATIAL, TallFunction, random_plan
from ..test_programs import OFF, tiles
from .nets import SparseFunction, conv_graph, randomly_coded

CHIP = chip("ergo/1")
WEIGHTED = ("conv2d", "conv2d", "depthwise", "conv2d_transpose", "matmul", "add", "table", "concat")


class TallSparse(SparseFunction, TallFunction):
    pass


@pytest.fixture(autouse=True)
def _always_coded():
    """Constants of random nets are too small to gain: they are coded all the same."""
    with mock.patch.object(Panels, "worthwhile", staticmethod(lambda coded, plain: True)):
        yield


def run(program, inputs):
    return Machine(program, CHIP, strict=True).run(inputs).outputs


def assert_same(actual, expected):
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value)


def coded_operands_of(program) -> int:
    return sum(operand.codec.of_weights for i in program.instructions for operand in i.reads())


def test_whole_layers_and_tiles_equal_plain_weights():
    seen = 0
    for seed in range(40):
        random = rnd.Random(seed)
        function = SparseFunction(random, 2).grow(8, WEIGHTED)
        plain, inputs = from_function(function.finish(random.randint(1, 2))["main"]), function.arrays_for_inputs()
        graph, expected = randomly_coded(plain, random), run(compile_graph(plain, CHIP), inputs)
        whole = compile_graph(graph, CHIP)
        assert_same(run(Program.from_bytes(whole.to_bytes()), inputs), expected)
        steps = [Step(node, box) for node in graph.nodes for box in tiles(random, graph, node)]
        tiled = emit_program(make_plan(graph, 1 << 22, random.choice([Options(), OFF]), steps), CHIP)
        assert_same(run(tiled, inputs), expected)
        seen += coded_operands_of(whole)
    assert seen > 50


def test_bands_and_stages_equal_plain_weights():
    seen = 0
    for seed in range(30):
        random = rnd.Random(seed)
        function = TallSparse(random).grow(10, (*SPATIAL, "conv2d", "depthwise"))
        plain, inputs = from_function(function.finish(random.randint(1, 2))["main"]), function.arrays_for_inputs()
        graph = randomly_coded(plain, random)
        program = emit_program(random_plan(random, graph), CHIP)
        assert_same(run(program, inputs), run(compile_graph(plain, CHIP), inputs))
        seen += coded_operands_of(program)
    assert seen > 50


def test_each_slice_is_a_panel_of_its_own():
    graph = conv_graph(channels=24, coding=Coding(Codec.HUFFMAN, 4))
    node, (w,) = graph.nodes[0], [t for t in graph.tensors if t.name == "conv.w"]
    full = graph.tensors[node.outputs[0]].region
    steps = [
        Step(node, (*full[:1], rows, full[2], channels))
        for channels in ((0, 10), (10, 24))
        for rows in ((0, 2), (2, full[1][1]))
    ]
    panels = Panels(graph, steps).of[w.id]
    assert [box[0] for box in panels] == [(0, 10), (10, 24)]
    for box, panel in panels.items():
        rows = slice(*box[0])
        np.testing.assert_array_equal(
            decode(panel.coded.data)[0].values(), w.data[rows].reshape(rows.stop - rows.start, -1)
        )
        assert (
            Panels(graph, steps).content(w.id)[panel.offset : panel.offset + len(panel.coded.data)] == panel.coded.data
        )
    assert list(Panels(graph).of[w.id]) == [w.region]


def test_the_planner_counts_coded_bytes():
    graph = conv_graph(channels=64, coding=Coding(Codec.CABAC, 1))
    plain = conv_graph(channels=64, coding=None)
    (w,) = [t for t in graph.tensors if t.name == "conv.w"]
    coded, dense = make_plan(graph, 1 << 22), make_plan(plain, 1 << 22)
    saved = w.size_bytes - len(stream(w, w.region).data)
    assert saved > 1000 and abs(dense.constant_bytes - coded.constant_bytes - saved) < 16
    program, before = emit_program(coded, CHIP), emit_program(dense, CHIP)
    assert sum(len(content) for _, content in before.data) - sum(len(content) for _, content in program.data) == saved
    (buffer,) = [b for b in program.buffers if b.name == "conv.w"]
    assert buffer.kind == BufferKind.CONSTANT and buffer.size_bytes == w.size_bytes - saved
    assert make_plan(graph, coded.memory_bytes).memory_bytes == coded.memory_bytes < dense.memory_bytes


def test_panels_that_are_not_smaller_stay_plain():
    with mock.patch.object(Panels, "worthwhile", staticmethod(lambda coded, plain: coded < plain)):
        graph = conv_graph(
            channels=16, coding=Coding(Codec.HUFFMAN, 1), values=lambda rng, shape: rng.integers(-128, 128, shape)
        )
        assert (
            not Panels(graph).of
            and make_plan(graph, 1 << 22).constant_bytes == make_plan(conv_graph(16, None), 1 << 22).constant_bytes
        )
        few = conv_graph(channels=16, coding=Coding(Codec.HUFFMAN, 1))
        node = few.nodes[0]
        ones = [Step(node, (*few.tensors[node.outputs[0]].region[:3], (c, c + 1))) for c in range(16)]
        assert (
            Panels(few).of
            and place_constants(few, make_plan(few, 1 << 22).views, 4, ones)[1]
            <= place_constants(conv_graph(16, None), make_plan(few, 1 << 22).views, 4)[1]
        )


def test_equal_streams_share_a_place():
    graph = conv_graph(channels=16, coding=Coding(Codec.RUNS, 2), layers=2)
    assert len({t.digest for t in graph.tensors if t.name.endswith(".w")}) == 1
    plan = make_plan(graph, 1 << 22)
    assert len({plan.constants[t.id] for t in graph.tensors if t.name.endswith(".w")}) == 1


@pytest.mark.parametrize(
    "run_, per_group, pieces",
    [((0, 8), 4, [(0, 8)]), ((1, 3), 4, [(1, 3)]), ((1, 11), 4, [(1, 4), (4, 8), (8, 11)]), ((4, 6), 4, [(4, 6)])],
)
def test_runs_of_groups(run_, per_group, pieces):
    assert group_runs(*run_, per_group) == pieces


def test_weights_computed_at_run_time_are_never_coded():
    random = rnd.Random(0)
    function = SparseFunction(random, 1)
    x = function.params[0]
    function.emit(dialect.MatMul(transpose_b=True, a_zp=0, b_zp=0, **function.scale(9000), **function.clip()), x, x)
    graph = randomly_coded(from_function(function.finish()["main"]), random)
    assert not Panels(graph).of and not any(t.coding for t in graph.tensors)
