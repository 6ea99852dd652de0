"""The output stage's table: results equal the instruction followed by TABLE, cost, bytes, preconditions."""

from dataclasses import replace

import numpy as np
import pytest

from tvm_ergo.target.chip import Chip, chip
from tvm_ergo.target.errors import ProgramError, TargetError
from tvm_ergo.target.isa import OPCODES, DType, Event, Operand, contiguous, decode, parse

from .isa_samples import TestMemory, fill_parameters, samples

CHIP = chip("ergo/1")
PLACE = 0xE000  # above all samples
WITH_TABLE = {name: ins for name, ins in samples().items() if ins.OUTPUT_TABLE}


def with_table(ins, per_channel=False):
    shape = (ins.out.shape[-1], 256) if per_channel else (256,)
    return replace(ins, table=(contiguous(PLACE, DType.I8, shape),))


def test_the_engines_that_have_one():
    assert {cls.MNEMONIC for cls in OPCODES.values() if cls.OUTPUT_TABLE} == {
        "CONV",
        "DEPTHWISE",
        "CONV_TRANSPOSE",
        "MATMUL",
        "ADD",
        "MUL",
        "POOL",
    }
    assert {type(ins) for ins in WITH_TABLE.values()} == {cls for cls in OPCODES.values() if cls.OUTPUT_TABLE}


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("name", WITH_TABLE)
def test_results_go_through_the_table(name, per_channel):
    plain, ins = WITH_TABLE[name], with_table(WITH_TABLE[name], per_channel)
    ins.check()
    memory, expected = TestMemory(3), TestMemory(3)
    for m in (memory, expected):
        fill_parameters(plain, m, 3)
    ins.execute(memory)
    plain.execute(expected)
    lut = expected.view(ins.table[0]).copy()
    out = expected.view(plain.out)
    for index in np.ndindex(*out.shape):  # one result at a time
        row = lut[index[-1]] if per_channel else lut
        out[index] = row[int(out[index]) + 128]
    np.testing.assert_array_equal(memory.bytes, expected.bytes)


@pytest.mark.parametrize("name", WITH_TABLE)
def test_bytes_and_text_without_a_table_are_as_ever(name):
    plain, ins = WITH_TABLE[name], with_table(WITH_TABLE[name])
    assert "table" not in plain.to_text() and len(ins.encode()) == len(plain.encode()) + 1 + 16 + 1
    for made in (plain, ins):
        assert decode(made.encode())[0] == made == parse(made.to_text())
    spelled_out = plain.encode() + b"\0\0"  # no table, zero point 0: one way to write an instruction, not two
    with pytest.raises(ProgramError, match="wrong length"):
        decode(spelled_out[:2] + len(spelled_out).to_bytes(2, "little") + spelled_out[4:])


@pytest.mark.parametrize("name", WITH_TABLE)
def test_cost(name):
    plain, ins = WITH_TABLE[name], with_table(WITH_TABLE[name])
    before, after = plain.cost(CHIP), ins.cost(CHIP)
    difference = {event: after.events.get(event, 0) - before.events.get(event, 0) for event in after.events}
    assert {e: n for e, n in difference.items() if n} == {
        Event.LUT_READ: ins.out.elements,
        Event.SRAM_READ_BYTE: 256,
        Event.LOCAL_WRITE_BYTE: 256,
    }
    assert (
        before.cycles <= after.cycles <= before.cycles + 256 // 128
    )  # loading the table shares the port with the operands
    slow = replace(CHIP, tensor=replace(CHIP.tensor, output_table_lanes=1), vector=replace(CHIP.vector, table_lanes=1))
    assert ins.cost(slow).cycles >= ins.out.elements


@pytest.mark.parametrize(
    "change, message",
    [
        ({"table": (contiguous(PLACE, DType.U8, (256,)),)}, "int8"),
        ({"table": (contiguous(PLACE, DType.I8, (255,)),)}, "wrong form"),
        ({"table": (contiguous(PLACE, DType.I8, (5, 256)),)}, "wrong form"),
        ({"table_zp": 4}, "not there"),
    ],
)
def test_wrong_tables_are_refused(change, message):
    with pytest.raises(ProgramError, match=message):
        replace(WITH_TABLE["conv"], **change).check()


def test_accumulators_have_no_table():
    conv = WITH_TABLE["conv"]
    wide = Operand(PLACE, DType.I32, conv.out.shape, contiguous(0, DType.I32, conv.out.shape).strides)
    replace(conv, out=wide).check()
    with pytest.raises(ProgramError, match="int8 results"):
        replace(conv, out=wide, table=(contiguous(PLACE + 4096, DType.I8, (256,)),)).check()
    with pytest.raises(ProgramError, match="at most 1"):
        replace(conv, table=(conv.x, conv.x))


def test_chip_files_without_output_tables():
    data = CHIP.to_json()
    assert Chip.from_json(data).tensor.output_table_lanes == 64
    del data["tensor"]["output_table_lanes"]
    assert Chip.from_json(data).tensor.output_table_lanes == 0
    data["vector"]["table_lanes"] = 0
    with pytest.raises(TargetError, match="table_lanes"):
        Chip.from_json(data)
