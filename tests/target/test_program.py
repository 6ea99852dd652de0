"""Programs as bytes and text: round trips, every kind of damage, and validation."""

import hashlib
import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.target.errors import ProgramError
from tvm_ergo.target.isa import Copy, DType, Engine, Fill, Halt, Operand, contiguous
from tvm_ergo.target.program import HEAD, MAGIC, Buffer, BufferKind, Node, Port, Program
from tvm_ergo.target.program_text import strip_data

from .isa_samples import samples
from .test_isa import instructions, operands

u64 = st.integers(0, 2**64 - 1)
ports = st.lists(st.builds(Port, st.text(), operands()), max_size=3)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
programs = st.builds(
    Program,
    chip_name=st.text(),
    instructions=st.lists(instructions(), max_size=4),
    memory_bytes=u64,
    data=st.lists(st.tuples(u64, st.binary(max_size=300)), max_size=3),
    inputs=st.lists(st.builds(Port, st.text(), operands(), st.booleans()), max_size=3),
    outputs=ports,
    nodes=st.lists(st.builds(Node, st.text(), st.text(), st.text()), max_size=3),
    buffers=st.lists(st.builds(Buffer, st.text(), u64, u64, u64, u64, st.sampled_from(BufferKind)), max_size=3),
    meta=st.dictionaries(st.text(), json_values, max_size=3),
)


def small_program() -> Program:
    """Two engines, a wait, and one of everything else."""
    x, y, table = contiguous(0, "int8", (4, 8)), contiguous(64, "int8", (4, 8)), contiguous(128, "int32", (3,))
    return Program(
        chip_name="ergo/1",
        memory_bytes=256,
        data=[(128, bytes(range(12)))],
        inputs=[Port("x", x)],
        outputs=[Port("y", y), Port("t", table)],
        instructions=[
            Fill(out=contiguous(32, "int8", (8,)), value=-1),
            Copy(src=x, out=y, node=1),
            Halt(waits={Engine.DMA: 2}),
        ],
        nodes=[Node("fill", "fill", ""), Node("copy", "copy", "Conv_0")],
        buffers=[Buffer("x", 0, 32, 0, 2, "input"), Buffer("y", 64, 32, 1, 3, "output")],
        meta={"source": "net.onnx", "scales": [0.1, 2]},
    )


@settings(max_examples=150, deadline=None)
@given(programs)
def test_bytes_and_text_round_trip(program):
    assert Program.from_bytes(program.to_bytes()) == program
    text = program.to_text()
    assert Program.from_text(text) == program
    assert Program.from_text(text).to_text() == text
    assert Program.from_text(text.replace("\n", "\r\n")) == program


def test_every_instruction_kind_in_one_program():
    small = small_program()
    stream = Port("stream", contiguous(0, "int8", (1, 4, 5, 100)), streamed=True)
    program = replace(
        small, instructions=list(samples().values()), memory_bytes=1 << 16, inputs=[stream, *small.inputs]
    )
    program.validate()
    assert Program.from_bytes(program.to_bytes()) == Program.from_text(program.to_text()) == program


def test_every_flipped_bit_is_found():
    data = small_program().to_bytes()
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            with pytest.raises(ProgramError):
                Program.from_bytes(bytes(damaged))


def test_every_truncation_is_found():
    data = small_program().to_bytes()
    for length in range(len(data)):
        with pytest.raises(ProgramError, match="truncated|not an Ergo program"):
            Program.from_bytes(data[:length])


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda d: d + b"\0", "trailing bytes"),
        (lambda d: b"ONNX" + d[4:], "not an Ergo program"),
        (lambda d: d[:4] + b"\x07" + d[5:], "version 7"),
        (lambda d: d[:-1] + bytes([d[-1] ^ 1]), "checksum"),
        (lambda d: d[:-1], "truncated"),
        (lambda d: b"", "not an Ergo program"),
    ],
)
def test_damage_is_named(damage, message):
    with pytest.raises(ProgramError, match=message):
        Program.from_bytes(damage(small_program().to_bytes()))


def sealed(payload: bytes) -> bytes:
    """A program file with a right checksum around any payload."""
    digest = hashlib.sha256(MAGIC + struct.pack("<HHQ", 1, 0, len(payload)) + payload).digest()
    return HEAD.pack(MAGIC, 1, 0, digest, len(payload)) + payload


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_forged_payload_raises_nothing_but_program_error(data):
    """Right checksum, wrong content: the field checks hold on their own."""
    payload = bytearray(small_program().to_bytes()[HEAD.size :])
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    del payload[data.draw(st.integers(len(payload) - 3, len(payload))) :]
    try:
        program = Program.from_bytes(sealed(bytes(payload)))
        program.validate()
    except ProgramError:
        return
    assert Program.from_bytes(program.to_bytes()) == program


@pytest.mark.parametrize(
    "old, new, message",
    [
        (".program 2", ".program 9", "version 9"),
        (".memory 256\n", "", "no .memory"),
        ("value=-1", "value=x", "line .*FILL.value"),
        ("FILL", "FULL", "unknown instruction"),
        (".data 128 12", ".data 128 13", "wrong length"),
        ("AAECAw", "*AECAw", "not base64"),
        (".node", ".knot", "unknown directive"),
        ('"input"', '"imput"', "unknown buffer kind"),
        (" value=-1", "", "lacks value"),
        ("value=-1", "value=-1 value=2", "cannot read"),
        ("DMA:2", "DMX:2", "unknown engine"),
        ('"net.onnx"', "net.onnx", "cannot read"),
        ("i8@0x0[4,8]", "i9@0x0[4,8]", "unknown element type"),
        ("i8@0x0[4,8]", "i8@0x0[4,,8]", "is not an integer|cannot read"),
    ],
)
def test_damaged_text_is_named(old, new, message):
    text = small_program().to_text()
    assert old in text
    with pytest.raises(ProgramError, match=message):
        Program.from_text(text.replace(old, new, 1))


def test_comments_and_blank_lines():
    text = small_program().to_text()
    assert Program.from_text("# made by hand\n\n" + text.replace("HALT", "\n  # end\nHALT")) == small_program()


def test_stripped_text_keeps_everything_but_the_bytes():
    text = small_program().to_text()
    assert strip_data(text).split("\n") == [line for line in text.split("\n") if "AAECAw" not in line]
    empty = replace(small_program(), data=[])
    assert strip_data(empty.to_text()) == empty.to_text()


HALT, FILL = Halt(), Fill(out=contiguous(0, "int8", (8,)), value=0)
INVALID = {
    "outside": (dict(memory_bytes=95), "outside the unified memory"),
    "operand outside": (
        dict(instructions=[Fill(out=contiguous(255, "int8", (2,)), value=0), HALT]),
        "outside the unified memory",
    ),
    "below zero": (
        dict(instructions=[Fill(out=Operand(3, DType.I8, (8,), (-1,)), value=0), HALT]),
        "outside the unified memory",
    ),
    "data outside": (dict(data=[(250, bytes(12))]), "outside the unified memory"),
    "data overlaps": (dict(data=[(8, bytes(4)), (0, bytes(9))]), "overlap"),
    "waits for later": (dict(instructions=[FILL, replace(FILL, waits={Engine.DMA: 2}), HALT]), "wait for ever"),
    "waits for itself": (dict(instructions=[replace(FILL, waits={Engine.DMA: 1}), HALT]), "wait for ever"),
    "waits for nobody": (dict(instructions=[replace(FILL, waits={Engine.SPARSE: 1}), HALT]), "wait for ever"),
    "no halt": (dict(instructions=[FILL]), "HALT"),
    "early halt": (dict(instructions=[HALT, FILL, HALT]), "HALT"),
    "empty": (dict(instructions=[], buffers=[]), "no instructions"),
    "node": (dict(instructions=[replace(FILL, node=2), HALT]), "node table"),
    "precondition": (dict(instructions=[replace(FILL, value=300), HALT]), "does not fit"),
    "port names": (dict(outputs=[Port("y", contiguous(0, "int8", (1,)))] * 2), "same name"),
    "port outside": (dict(inputs=[Port("x", contiguous(256, "int8", (1,)))]), "outside the unified memory"),
    "lifetime": (dict(buffers=[Buffer("x", 0, 32, 0, 4, "input")]), "lifetime"),
    "lifetime order": (dict(buffers=[Buffer("x", 0, 32, 2, 1, "input")]), "lifetime"),
    "buffer outside": (dict(buffers=[Buffer("x", 250, 32, 0, 1, "input")]), "outside the unified memory"),
    "no memory": (dict(memory_bytes=0), "memory of 0"),
}


@pytest.mark.parametrize("case", INVALID)
def test_invalid_programs_are_refused(case):
    changes, message = INVALID[case]
    small_program().validate()
    with pytest.raises(ProgramError, match=message):
        replace(small_program(), **{"buffers": [], **changes}).validate()


def test_values_beyond_every_width_are_refused():
    text = small_program().to_text()
    for old, new in (
        (".memory 256", f".memory {2**64}"),
        (".data 128", ".data -1"),
        (".memory 256", ".memory " + "9" * 5000),
        ("@0x40", "@0x" + "f" * 5000),
    ):
        assert old in text
        with pytest.raises(ProgramError):
            Program.from_text(text.replace(old, new))
    with pytest.raises(ProgramError, match="not Unicode"):
        replace(small_program(), chip_name="\ud800").to_bytes()


@pytest.mark.parametrize("meta", [{"x": float("nan")}, {"x": object()}, [1]])
def test_meta_must_be_json(meta):
    with pytest.raises(ProgramError, match="meta"):
        replace(small_program(), meta=meta)


def test_data_that_is_not_ascii_is_our_error():
    text = Program("ergo/1", [Halt()], [(0, bytes(48))], [], [], 64).to_text()
    with pytest.raises(ProgramError, match="base64"):
        Program.from_text(text.replace("AAAA", "AAAé", 1))
