"""Compressed tensors in Programs: equal to TVM on the CPU to the bit, whole and in bands, and the run says what
happened."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tvm import relax

from tvm_ergo.codegen.compile import compile_function, emit_program
from tvm_ergo.codegen.graph import from_function
from tvm_ergo.codegen.space import make_space_plan
from tvm_ergo.codegen.space.check import check
from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.target.chip import chip
from tvm_ergo.target.isa import Decode, Encode
from tvm_ergo.target.machine import Machine

CHIP = chip("ergo/1")
SLOW = {"deadline": None, "suppress_health_check": list(HealthCheck)}


def through_slots(height=13, tile_rows=4, slot_bytes=48, codec="BITPLANE"):
    """x -> table -> compress -> decompress -> table."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, height, 5, 6), "int8"))
    fields = dict(codec=codec, tile_rows=tile_rows, slot_bytes=slot_bytes, bound=255, out_zp=-10, name="kept")
    lut = relax.const(np.arange(-128, 128)[::-1].astype("int8"))
    with builder.function("main", [x]):
        with builder.dataflow():
            slots = builder.emit(dialect.Compress(**fields).call(builder.emit(dialect.Table().call(x, lut))))
            back = builder.emit(dialect.Decompress(**fields, shape=(1, height, 5, 6)).call(slots))
            out = builder.emit_output(dialect.Table().call(back, lut))
        builder.emit_func_output(out)
    return builder.get()


@settings(max_examples=25, **SLOW)
@given(
    height=st.integers(2, 17),
    tile_rows=st.integers(1, 6),
    slot_bytes=st.integers(4, 150),
    bands=st.lists(st.integers(1, 5), min_size=4, max_size=4),
    zeros=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_bands_of_rows_and_tiles(height, tile_rows, slot_bytes, bands, zeros, seed):
    """Decoding begins and ends inside tiles, encoding waits for whole ones."""
    mod = through_slots(height, tile_rows, slot_bytes)
    rng = np.random.default_rng(seed)
    x = np.where(rng.random((1, height, 5, 6)) < zeros, 9, rng.integers(-128, 128, (1, height, 5, 6))).astype(np.int8)
    graph = from_function(mod["main"])
    plan = make_space_plan(graph, dict(enumerate(bands)))
    assert check(plan) is None
    result = Machine(emit_program(plan, CHIP), CHIP, strict=True).run({"x": x})
    (expected,) = build_cpu(mod)(x)
    np.testing.assert_array_equal(next(iter(result.outputs.values())), expected)
    (count,) = result.compressed
    assert count.tiles == -(-height // tile_rows)
    assert (count.reduced == 0) <= np.array_equal(expected, x)


def test_the_run_counts_what_was_lost():
    program = compile_function(through_slots()["main"], CHIP)
    assert [type(i) for i in program.instructions if type(i) in (Encode, Decode)] == [Encode, Decode]
    machine = Machine(program, CHIP, strict=True)
    constant = machine.run({"x": np.full((1, 13, 5, 6), 9, np.int8)})
    (count,) = constant.compressed
    assert count.by_dropped == (4, 0, 0, 0, 0, 0, 0, 0, 0)
    half = np.full((1, 13, 5, 6), 9, np.int8)
    half[0, :4] = np.random.default_rng(0).integers(-128, 128, (4, 5, 6))
    (count,) = machine.run({"x": half}).compressed
    assert count.tiles == 4 and count.reduced == 1 and count.to_json()["by_dropped"][0] == 3


def test_bytes_behind_the_slots_stay_as_they_are():
    """Whatever the data, nothing is written outside the planned buffers."""
    program = compile_function(through_slots(slot_bytes=9)["main"], CHIP, memory_bytes=1 << 16)
    top = max(o.extent[1] for i in program.instructions for o in (*i.reads(), *i.writes()))
    rng = np.random.default_rng(0)
    machine = Machine(program, CHIP)
    for x in (
        rng.integers(-128, 128, (1, 13, 5, 6)),
        np.full((1, 13, 5, 6), 127),
        rng.choice([-128, 127], (1, 13, 5, 6)),
    ):
        machine.memory.bytes[top:] = 0x5A
        machine.run({"x": x.astype(np.int8)})
        assert (machine.memory.bytes[top:] == 0x5A).all()
