"""Codecs taken into instructions: the same values as with ENCODE and DECODE and as on the CPU, whole and in bands;
nothing plain is left."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tvm_ergo.codegen.compile import compile_function, emit_program
from tvm_ergo.codegen.fuse import Coded, fuse
from tvm_ergo.codegen.graph import from_function
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.space import make_space_plan
from tvm_ergo.codegen.space.check import check
from tvm_ergo.codegen.testing import RandomFunction, shape_of
from tvm_ergo.relay_passes.compile.insert_compression import Decision, InsertCompression
from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.target.chip import chip
from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.slots import HEADER_BYTES, SLOT_CODECS, lossless_slot_bytes
from tvm_ergo.target.isa import Decode, Encode
from tvm_ergo.target.machine import Machine
from tvm_ergo.target.program import Program

CHIP = chip("ergo/1")
SLOW = {"deadline": None, "suppress_health_check": list(HealthCheck)}
KINDS = ("conv2d", "depthwise", "depthwise", "pool", "add", "add", "mul", "table", "concat")


class OneZeroPoint(RandomFunction):
    """All tensors have one zero point, as far as ops choose it: so most codecs can be taken in."""

    def _shape(self):
        return (1, self.random.randint(4, 14), self.random.randint(2, 5), self.random.randint(1, 4))

    def zero_point(self) -> int:
        return -9


def compressed(random: Random):
    """A random module with most of its tensors in slots of single rows, its inputs, and whether nothing can be lost."""
    function = OneZeroPoint(random).grow(random.randint(3, 10), KINDS)
    exact = random.random() < 0.5
    decisions = {}
    for var in function.values[1:]:
        if len(shape_of(var)) == 4 and shape_of(var)[0] == 1 and random.random() < 0.8:
            most = lossless_slot_bytes((1, *shape_of(var)[2:]))
            decisions[var.name] = Decision(
                random.choice([c.name for c in SLOT_CODECS]),
                1,
                most if exact else random.randint(HEADER_BYTES, most),
                -9,
                keep_plain=random.random() < 0.3,
                one_copy=random.random() < 0.7,
            )
    decisions = {n: d if not d.keep_plain else Decision(d.codec, 1, d.slot_bytes, -9) for n, d in decisions.items()}
    mod = function.finish(random.randint(1, 2))
    return mod, InsertCompression(decisions)(mod), function.arrays_for_inputs(), exact


def run(program, inputs):
    return list(Machine(program, CHIP, strict=True).run(inputs).outputs.values())


def assert_same(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a.reshape(b.shape), b)


@settings(max_examples=80, **SLOW)
@given(st.randoms(use_true_random=False))
def test_fused_equals_separate(random):
    mod, changed, inputs, exact = compressed(random)
    separate = run(compile_function(changed["main"], CHIP, options=Options(fuse_coding=False)), inputs)
    program = compile_function(changed["main"], CHIP)
    assert_same(run(program, inputs), separate)
    assert Program.from_bytes(program.to_bytes()).instructions == program.instructions
    assert Program.from_text(program.to_text()).instructions == program.instructions
    if exact:
        assert_same(separate, run(compile_function(mod["main"], CHIP), inputs))
    graph = fuse(from_function(changed["main"]))
    graph.validate()
    plan = make_space_plan(graph, {n.id: random.randint(1, 4) for n in graph.nodes if random.random() < 0.9})
    assert check(plan) is None
    assert_same(run(emit_program(plan, CHIP), inputs), separate)


@settings(max_examples=10, **SLOW)
@given(st.randoms(use_true_random=False))
def test_fused_equals_tvm_on_the_cpu(random):
    _, changed, inputs, _ = compressed(random)
    assert_same(run(compile_function(changed["main"], CHIP), inputs), build_cpu(changed)(*inputs.values()))


def chain(codec="BITPLANE", zero_point=-9, slot_bytes=30):
    """Three convolutions; what lies between them in slots."""
    function = OneZeroPoint(Random(3))
    function.values = function.params = [type(function.params[0])("x", function.params[0].ty)]
    function._window = lambda shape, dilated=True: (
        (3, 3),
        {"strides": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1)},
    )
    function.pick = lambda rank=None: function.values[-1]
    for kind in ("conv2d", "depthwise", "conv2d"):
        getattr(function, kind)()
    inner = [v.name for v in function.values[1:-1]]
    mod = InsertCompression({n: Decision(codec, 1, slot_bytes, zero_point, keep_plain=False) for n in inner})(
        function.finish()
    )
    return mod, function.arrays_for_inputs()


@pytest.mark.parametrize("codec", [c.name for c in SLOT_CODECS])
def test_a_chain_has_no_plain_tensor_left(codec):
    mod, inputs = chain(codec)
    graph = fuse(from_function(mod["main"]))
    assert [type(n.op) for n in graph.nodes] == [Coded] * 3 and graph.nodes[1].op.expands and graph.nodes[1].op.shrinks
    program = compile_function(mod["main"], CHIP)
    operands = [o for i in program.instructions for o in (*i.reads(), *i.writes()) if o.codec != Codec.RAW]
    assert {o.codec for o in operands} == {Codec[codec]} and len(operands) == 4
    assert not any(isinstance(i, (Encode, Decode)) for i in program.instructions)
    result = Machine(program, CHIP, strict=True).run(inputs)
    assert sum(c.tiles for c in result.compressed) == 2 * graph.tensors[0].shape[1]
    assert_same(list(result.outputs.values()), build_cpu(mod)(*inputs.values()))


def test_another_zero_point_is_not_taken_in():
    mod, inputs = chain(zero_point=5)
    program = compile_function(mod["main"], CHIP)
    assert sum(isinstance(i, (Encode, Decode)) for i in program.instructions) == 4
    assert_same(run(program, inputs), build_cpu(mod)(*inputs.values()))


def test_costs_count_slots_and_coders():
    """Against the same instructions on plain tensors: the arithmetic's events alike, fewer bytes over the port, the
    codec's events on top."""
    from tvm_ergo.target.codecs.registry import CODECS
    from tvm_ergo.target.events import Event

    mod, _ = chain(slot_bytes=7)
    coded = compile_function(mod["main"], CHIP).instructions[0]
    from dataclasses import replace

    from tvm_ergo.target.isa import contiguous

    plain = replace(coded, out=contiguous(0, "int8", coded.out.shape))
    with_, without = coded.cost(CHIP), plain.cost(CHIP)
    saved = without.events[Event.SRAM_WRITE_BYTE] - with_.events[Event.SRAM_WRITE_BYTE]
    assert (
        saved == coded.out.elements - 7 * coded.out.shape[1]
        and with_.events[Event.MAC_8X8] == without.events[Event.MAC_8X8]
    )
    assert with_.events[Event.ALU_8] == CODECS[Codec.BITPLANE].COST.events[Event.ALU_8] * coded.out.elements
    assert with_.cycles >= without.cycles
