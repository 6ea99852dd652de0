"""Which codec a constant takes: free ones cost no cycle, the smallest ones fewest bytes, and only weight operands are
coded."""

from __future__ import annotations

import random as rnd
from dataclasses import replace

import numpy as np
import pytest

from tvm_ergo.codegen.compile import compile_graph
from tvm_ergo.codegen.graph import from_function
from tvm_ergo.codegen.weights.apply import codable, coded
from tvm_ergo.codegen.weights.choose import PYTHON_BYTES, Candidates
from tvm_ergo.codegen.weights.coding import Coding, stream
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.chip import chip
from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.weights_native import library
from tvm_ergo.target.machine import Machine
from tvm_ergo.target.machine.trace import Trace

from .nets import SparseFunction, conv_graph

CHIP = chip("ergo/1")


def decided(graph, choices):
    return coded(graph, {c.digest: c.chosen.coding for c in choices if c.chosen.coding is not None})


def cycles(graph):
    return Trace(compile_graph(graph, CHIP), CHIP).cycles


def dense_pixels(rng, shape):
    """Like quantized dense weights: a bell of 8 bits."""
    return np.clip(np.rint(rng.normal(0, 25, shape)), -127, 127)


@pytest.mark.parametrize("channels", [16, 64, 128])
@pytest.mark.parametrize("values", [None, dense_pixels])
def test_free_costs_no_cycle_and_least_no_byte(channels, values):
    graph = conv_graph(channels, None, values, layers=2)
    candidates = Candidates(graph, CHIP)
    free, least, bounded = candidates.free(), candidates.least(), candidates.least(4)
    plain = cycles(graph)
    assert cycles(decided(graph, free)) <= plain
    for f, b, l in zip(free, bounded, least, strict=True):
        assert (
            l.chosen.size_bytes <= b.chosen.size_bytes <= f.chosen.size_bytes <= f.plain.size_bytes == 9 * channels**2
        )
        assert f.chosen.cycles <= f.plain.cycles and b.chosen.cycles <= 4 * b.plain.cycles
    assert cycles(decided(graph, bounded)) <= 4 * plain
    smallest = min(
        len(stream(t, t.region, Coding(codec, 16)).data)
        for t in graph.tensors
        if t.name == "conv.w"
        for codec in (
            Codec.PACKED,
            Codec.HUFFMAN,
            Codec.HUFFMAN_RUNS,
            Codec.RUNS,
            *((Codec.CABAC,) if library() or t.size_bytes <= PYTHON_BYTES else ()),
        )
    )
    assert (
        least[0].chosen.size_bytes == min(smallest, least[0].plain.size_bytes)
        or smallest > 0.95 * least[0].plain.size_bytes
    )


def test_figures_are_those_of_the_instructions():
    graph = conv_graph(64, None)
    (least,) = Candidates(graph, CHIP).least()
    program = compile_graph(decided(graph, [least]), CHIP)
    conv = program.instructions[0]
    assert (
        conv.w.codec == least.chosen.coding.codec
        and conv.cost(CHIP).cycles == least.chosen.cycles
        and conv.w.strides[0] == least.chosen.size_bytes
    )
    assert least.chosen.energy_pj == pytest.approx(CHIP.energy_pj(conv.cost(CHIP).events))


def test_by_energy():
    graph = conv_graph(128, None)
    (choice,) = Candidates(graph, CHIP).free(by_energy=True)
    leaked = CHIP.leakage_pj
    assert choice.chosen.energy_pj + leaked(choice.chosen.cycles) <= choice.plain.energy_pj + leaked(
        choice.plain.cycles
    )


def test_a_chip_without_decoders_codes_nothing():
    bare = replace(CHIP, tensor=replace(CHIP.tensor, weight_decoder_lanes=0))
    assert Candidates(conv_graph(64, None), bare).free() == Candidates(conv_graph(64, None), bare).least() == []


def test_only_weight_operands():
    random = rnd.Random(1)
    function = SparseFunction(random, 1)
    shape = tuple(int(d) for d in function.params[0].ty.shape.values)
    shared = function.constant((shape[3], shape[3]))
    x = function.params[0]
    fields = dict(transpose_b=False, a_zp=0, b_zp=0, **function.scale(9000), **function.clip())
    function.emit(dialect.MatMul(**fields), x, shared)
    alone = from_function(function.finish()["main"])
    assert len(codable(alone, 1)) == 1
    function.emit(dialect.MatMul(**fields), shared, shared)
    assert codable(from_function(function.finish()["main"]), 1) == {}


def test_random_nets_stay_exact_and_never_grow():
    for seed in range(12):
        random = rnd.Random(seed)
        function = SparseFunction(random, 1).grow(6, ("conv2d", "depthwise", "matmul", "add"))
        graph, inputs = from_function(function.finish()["main"]), function.arrays_for_inputs()
        choices = Candidates(graph, CHIP).least()
        plain, small = compile_graph(graph, CHIP), compile_graph(decided(graph, choices), CHIP)
        assert small.meta["constant_bytes"] <= plain.meta["constant_bytes"]
        for name, value in Machine(plain, CHIP).run(inputs).outputs.items():
            np.testing.assert_array_equal(Machine(small, CHIP, strict=True).run(inputs).outputs[name], value)
