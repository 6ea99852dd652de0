"""InsertCompression: modules stay valid, equal to the original without loss and to the CPU with it; slots wait as long
as they can."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import tvm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tvm import relax

from tvm_ergo.codegen.compile import compile_function, emit_program
from tvm_ergo.codegen.graph import from_function
from tvm_ergo.codegen.space import make_space_plan
from tvm_ergo.codegen.space.check import check
from tvm_ergo.codegen.testing import RandomFunction, shape_of
from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.compile.insert_compression import Decision, InsertCompression
from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.relay_passes.dialect import from_call, is_ergo_call
from tvm_ergo.target.chip import chip
from tvm_ergo.target.codecs.slots import HEADER_BYTES, SLOT_CODECS, lossless_slot_bytes
from tvm_ergo.target.errors import ModelError
from tvm_ergo.target.machine import Machine

CHIP = chip("ergo/1")
SLOW = {"deadline": None, "suppress_health_check": list(HealthCheck)}
RANDOMS = st.randoms(use_true_random=False)


class TallFunction(RandomFunction):
    def _shape(self):
        return (1, self.random.randint(4, 14), self.random.randint(2, 5), self.random.randint(1, 4))


def random_function(random: Random) -> RandomFunction:
    return (TallFunction if random.random() < 0.7 else RandomFunction)(random, random.randint(1, 2)).grow(
        random.randint(2, 12)
    )


def random_decisions(random: Random, function: RandomFunction, lossless: bool) -> dict[str, Decision]:
    found = {}
    for var in function.values:
        shape = shape_of(var)
        if len(shape) == 4 and shape[0] == 1 and random.random() < 0.6:
            rows = random.randint(1, shape[1])
            most = lossless_slot_bytes((rows, *shape[2:]))
            found[var.name] = Decision(
                random.choice([c.name for c in SLOT_CODECS]),
                rows,
                most if lossless else random.randint(HEADER_BYTES, most),
                function.zero_point(),
            )
    return found


def run(program, inputs):
    return list(Machine(program, CHIP, strict=True).run(inputs).outputs.values())


def assert_same(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a.reshape(b.shape), b)


@settings(max_examples=60, **SLOW)
@given(RANDOMS)
def test_without_loss_nothing_changes(random):
    """Slots that hold any tile: the strict machine gives what it gives without compression."""
    function = random_function(random)
    mod, inputs = relax.transform.Normalize()(function.finish(random.randint(1, 3))), function.arrays_for_inputs()
    changed = InsertCompression(random_decisions(random, function, True), near=random.randint(0, 3))(mod)
    relax.analysis.well_formed(changed)
    assert_same(run(compile_function(changed["main"], CHIP), inputs), run(compile_function(mod["main"], CHIP), inputs))


@settings(max_examples=20, **SLOW)
@given(RANDOMS)
def test_with_loss_the_machine_equals_tvm_on_the_cpu(random):
    """Slots of any size, whole layers and random bands: the same values on the chip and on the CPU, fall-backs
    included."""
    function = random_function(random)
    mod, inputs = relax.transform.Normalize()(function.finish(random.randint(1, 3))), function.arrays_for_inputs()
    changed = InsertCompression(random_decisions(random, function, False), near=random.randint(0, 2))(mod)
    expected = build_cpu(changed)(*inputs.values())
    assert_same(run(compile_function(changed["main"], CHIP), inputs), expected)
    graph = from_function(changed["main"])
    plan = make_space_plan(graph, {n.id: random.randint(1, 4) for n in graph.nodes if random.random() < 0.8})
    assert check(plan) is None
    assert_same(run(emit_program(plan, CHIP), inputs), expected)


class Written:
    """A function written op by op, with names."""

    def __init__(self, *inputs: tuple[str, tuple]):
        self.builder = relax.BlockBuilder()
        self.params = [relax.Var(name, relax.TensorType(shape, "int8")) for name, shape in inputs]
        self.bindings = []

    def add(self, name: str, op, *args):
        call = op.call(*args)
        var = relax.DataflowVar(name, call.ty)
        self.bindings.append(relax.VarBinding(var, call))
        return var

    def table(self, name: str, x):
        return self.add(name, dialect.Table(), x, relax.const(np.roll(np.arange(-128, 128), 3).astype("int8")))

    def finish(self, value) -> tvm.IRModule:
        result = relax.Var("result", value.ty)
        block = relax.DataflowBlock([*self.bindings, relax.VarBinding(result, value)])
        return tvm.IRModule(
            {
                "main": relax.Function(self.params, relax.SeqExpr([block], result), result.ty).with_attr(
                    "global_symbol", "main"
                )
            }
        )


def listing(mod) -> list[str]:
    """``name = op(arguments)`` of each binding."""
    lines = []
    for block in mod["main"].body.blocks:
        for b in block.bindings:
            if is_ergo_call(b.value):
                args = ", ".join(a.name for a in b.value.args if isinstance(a, relax.Var))
                lines.append(f"{b.var.name} = {from_call(b.value).op_name}({args})")
    return lines


def exact(shape, tile_rows=2):
    return Decision("BITMASK", tile_rows, lossless_slot_bytes((tile_rows, *shape[2:])))


def same_values(mod, changed, *shapes):
    arrays = [np.random.default_rng(i).integers(-128, 128, s).astype("int8") for i, s in enumerate(shapes)]
    assert_same(build_cpu(changed)(*arrays), build_cpu(mod)(*arrays))


SHAPE = (1, 8, 3, 4)


def test_near_readers_share_late_ones_expand():
    f = Written(("x", SHAPE))
    a = f.table("a", f.params[0])
    b = f.table("b", a)
    c = f.table("c", f.table("c0", b))
    d = f.add("d", dialect.Maximum(), c, a)
    e = f.add("e", dialect.Minimum(), d, a)
    g = f.table("g", f.table("g0", e))
    mod = f.finish(f.add("h", dialect.Maximum(), g, a))
    changed = InsertCompression({"a": exact(SHAPE)})(mod)
    assert listing(changed) == [
        "a = table(x)",
        "a_slots = compress(a)",
        "b = table(a)",
        "c0 = table(b)",
        "c = table(c0)",
        "a_expanded = decompress(a_slots)",
        "d = maximum(c, a_expanded)",
        "e = minimum(d, a_expanded)",
        "g0 = table(e)",
        "g = table(g0)",
        "a_expanded2 = decompress(a_slots)",
        "h = maximum(g, a_expanded2)",
    ]
    same_values(mod, changed, SHAPE)


def test_a_tensor_that_only_its_neighbour_reads_is_left_alone():
    f = Written(("x", SHAPE))
    mod = f.finish(f.table("b", f.table("a", f.params[0])))
    changed = InsertCompression({"a": exact(SHAPE), "b": exact(SHAPE)})(mod)
    assert listing(changed) == ["a = table(x)", "b = table(a)"]


def test_concat_of_channels_waits_for_its_reader():
    f = Written(("x", SHAPE))
    a, b = f.table("a", f.params[0]), f.table("b", f.params[0])
    joined = f.add("joined", dialect.Concat(axis=3), a, b)
    y = f.table("y3", f.table("y2", f.table("y", f.params[0])))
    mod = f.finish(f.add("out", dialect.Concat(axis=3), f.table("z", joined), y))
    changed = InsertCompression({"a": exact(SHAPE), "b": exact(SHAPE, 3)})(mod)
    lines = listing(changed)
    assert (
        lines.index("y3 = table(y2)")
        < lines.index("a_expanded = decompress(a_slots)")
        < lines.index("joined_moved = concat(a_expanded, b_expanded)")
        < lines.index("z = table(joined_moved)")
    )
    same_values(mod, changed, SHAPE)


@pytest.mark.parametrize("begin, end, on_slots", [(2, 6, True), (4, 8, True), (0, 7, False), (1, 4, False)])
def test_rows_on_tile_bounds_are_cut_out_of_the_slots(begin, end, on_slots):
    f = Written(("x", SHAPE))
    a = f.table("a", f.params[0])
    cut = f.add("cut", dialect.Slice(begin=(0, begin, 0, 0), end=(1, end, 3, 4), strides=(1, 1, 1, 1)), a)
    y = f.table("y2", f.table("y", f.params[0]))
    mod = f.finish(f.add("out", dialect.Concat(axis=1), y, f.table("z", cut)))
    changed = InsertCompression({"a": exact(SHAPE)})(mod)
    assert ("cut_slots = slice(a_slots)" in listing(changed)) == on_slots
    same_values(mod, changed, SHAPE)


def test_rows_are_joined_in_the_slots():
    shape = (1, 5, 3, 4)
    f = Written(("x", SHAPE), ("y", shape))
    a, b = f.table("a", f.params[0]), f.table("b", f.params[1])
    joined = f.add("joined", dialect.Concat(axis=1), a, b)
    late = f.table("late", f.table("early", f.params[0]))
    mod = f.finish(f.add("out", dialect.Concat(axis=1), late, f.table("z", joined)))
    changed = InsertCompression({"a": exact(SHAPE), "b": exact(shape)})(mod)
    assert "joined_slots = concat(a_slots, b_slots)" in listing(changed)
    assert [line for line in listing(changed) if "decompress" in line] == ["joined_expanded = decompress(joined_slots)"]
    same_values(mod, changed, SHAPE, shape)


def test_parameters_wait_too():
    f = Written(("x", SHAPE), ("skip", SHAPE))
    y = f.table("y2", f.table("y", f.params[0]))
    mod = f.finish(f.add("out", dialect.Maximum(), y, f.params[1]))
    changed = InsertCompression({"skip": exact(SHAPE)})(mod)
    assert (
        listing(changed)[0] == "skip_slots = compress(skip)"
        and listing(changed)[-1] == "out = maximum(y2, skip_expanded)"
    )
    same_values(mod, changed, SHAPE, SHAPE)


def test_names_that_cannot_be():
    f = Written(("x", (1, 4)))
    mod = f.finish(f.table("a", f.params[0]))
    for name in ("a", "nobody"):
        with pytest.raises(ModelError, match="cannot be compressed"):
            InsertCompression({name: Decision("BITMASK", 1, 9)})(mod)
