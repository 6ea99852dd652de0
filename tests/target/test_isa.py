"""Every instruction: bytes and text round trips, broken encodings, and the reference page."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.target.errors import ProgramError
from tvm_ergo.target.isa import MNEMONICS, OPCODES, Add, Engine, Halt, contiguous, decode, parse
from tvm_ergo.target.isa.fields import Choice, Flag, Int, Ints, Tensor, Tensors
from tvm_ergo.target.isa.operand import DType, Operand, overlap
from tvm_ergo.target.isa.reference import reference_page

PAGE = Path(__file__).parents[2] / "docs" / "isa.md"


@st.composite
def operands(draw):
    shape = draw(st.lists(st.integers(1, 2**32 - 1), min_size=1, max_size=6))
    dtype, addr = draw(st.sampled_from(DType)), draw(st.integers(0, 2**32 - 1))
    if draw(st.booleans()):
        shape = [min(d, 9) for d in shape]
        return contiguous(addr, dtype, shape)
    strides = draw(st.lists(st.integers(-(2**31) + 1, 2**31 - 1), min_size=len(shape), max_size=len(shape)))
    return Operand(addr, dtype, tuple(shape), tuple(strides))


def field_values(spec):
    """Any value the field can carry."""
    match spec:
        case Int():
            return st.integers(spec.low, spec.high)
        case Flag():
            return st.booleans()
        case Choice():
            return st.sampled_from(spec.enum)
        case Ints():
            low, high = (spec.count, spec.count) if spec.count is not None else (0, spec.most)
            return st.lists(field_values(spec.item), min_size=low, max_size=high).map(tuple)
        case Tensor():
            return operands()
        case Tensors():
            return st.lists(operands(), max_size=spec.most).map(tuple)
    raise AssertionError(f"no strategy for {spec}")


@st.composite
def instructions(draw, cls=None):
    """An instruction with random field values: encodable, not necessarily sensible."""
    cls = cls or draw(st.sampled_from(list(OPCODES.values())))
    values = {name: draw(field_values(spec)) for name, spec in cls.FIELDS.items()}
    waits = draw(st.dictionaries(st.sampled_from(Engine), st.integers(1, 2**32 - 1)))
    return cls(**values, waits=waits, node=draw(st.integers(0, 2**32 - 1)))


@pytest.mark.parametrize("cls", OPCODES.values(), ids=lambda cls: cls.MNEMONIC)
def test_bytes_and_text_round_trip(cls):
    @settings(max_examples=40, deadline=None)
    @given(instructions(cls))
    def round_trip(ins):
        data = ins.encode()
        assert decode(data) == (ins, len(data))
        assert decode(b"\0" * 7 + data + b"\xff", 7) == (ins, 7 + len(data))
        text = ins.to_text()
        assert "\n" not in text and parse(text) == ins and parse(text).to_text() == text
        assert parse(text).encode() == data and hash(parse(text)) == hash(ins)

    round_trip()


@settings(max_examples=100, deadline=None)
@given(instructions(), st.data())
def test_truncated_instructions_are_refused(ins, data):
    encoded = ins.encode()
    with pytest.raises(ProgramError):
        decode(encoded[: data.draw(st.integers(0, len(encoded) - 1))])
    longer = encoded[:2] + (len(encoded) + 1).to_bytes(2, "little") + encoded[4:] + b"\0"
    with pytest.raises(ProgramError, match="wrong length"):
        decode(longer)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), st.sampled_from(sorted(OPCODES)), st.booleans())
def test_any_bytes_decode_or_raise_program_error(body, opcode, right_length):
    length = 8 + len(body) if right_length else 300
    data = bytes([opcode, 0]) + length.to_bytes(2, "little") + bytes(4) + body
    try:
        ins, end = decode(data)
    except ProgramError:
        return
    assert ins.encode() == data and end == len(data)  # what is accepted is canonical: encoding gives the same bytes


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60), st.sampled_from(sorted(MNEMONICS)))
def test_any_text_parses_or_raises_program_error(text, mnemonic):
    try:
        parse(f"{mnemonic} {text}")
    except ProgramError:
        return
    assert mnemonic == "HALT"


def test_unknown_opcode_names_it():
    with pytest.raises(ProgramError, match="0xff"):
        decode(b"\xff\0\x08\0\0\0\0\0")


def test_opcodes_do_not_change():
    """Stored programs depend on these numbers."""
    assert {cls.MNEMONIC: code for code, cls in OPCODES.items()} == {
        "CONV": 1,
        "DEPTHWISE": 2,
        "CONV_TRANSPOSE": 3,
        "MATMUL": 4,
        "ADD": 16,
        "MUL": 17,
        "MAXMIN": 18,
        "TABLE": 19,
        "POOL": 20,
        "REDUCE": 21,
        "SOFTMAX": 22,
        "RESIZE": 23,
        "RESIZE_SCALED": 44,
        "COPY": 32,
        "FILL": 33,
        "RECEIVE": 36,
        "ACCUMULATE": 24,
        "REQUANTIZE": 25,
        "ENCODE": 34,
        "DECODE": 35,
        "CPU_CALL": 48,
        "WEIGHTED_MEAN": 5,
        "ADD_WIDE": 26,
        "RESCALE": 27,
        "CONV_16": 6,
        "ADD_16": 40,
        "MUL_16": 41,
        "RESCALE_16": 42,
        "TABLE_16": 43,
        "NORM": 28,
        "EXP_ROWS": 29,
        "ROTATE": 30,
        "GATHER": 31,
        "TAKE_ROWS": 37,
        "PUT_ROWS": 38,
        "SHIFT_ROWS": 39,
        "SPMV": 64,
        "BINARIZE": 74,
        "BINARY_POOL": 75,
        "XNOR": 72,
        "XNOR_SUM": 73,
        "HALT": 63,
    }


def test_layout_of_one_instruction():
    """The encoding itself, byte by byte, written down once by hand."""
    ins = Halt(waits={Engine.DMA: 2, Engine.TENSOR: 1}, node=5)
    assert ins.encode() == bytes([0x3F, 0b101, 16, 0, 5, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0])


@pytest.mark.parametrize(
    "field, value",
    [
        ("shift", 63),
        ("a_mult", 2**21),
        ("b_mult", -(2**21)),
        ("lo", -129),
        ("out_zp", 128),
        ("a_zp", 0.5),
        ("a", 3),
        ("node", 2**32),
        ("waits", {Engine.DMA: -1}),
    ],
)
def test_values_out_of_range_are_refused_at_construction(field, value):
    x = contiguous(0, "int8", (4,))
    good = dict(a=x, b=x, out=x, a_zp=0, b_zp=0, a_mult=1, b_mult=1, shift=0, out_zp=0, lo=-128, hi=127)
    Add(**good)
    with pytest.raises(ProgramError, match="ADD"):
        Add(**{**good, field: value})


@pytest.mark.parametrize(
    "bad",
    [
        dict(addr=-1),
        dict(addr=2**32),
        dict(shape=()),
        dict(shape=(1,) * 7),
        dict(shape=(0,)),
        dict(strides=(1, 1)),
        dict(dtype=9),
        dict(codec=7),
        dict(strides=(2**31,)),
    ],
)
def test_operands_out_of_range_are_refused(bad):
    good = dict(addr=0, dtype=DType.I8, shape=(4,), strides=(1,), codec=0)
    Operand(**good)
    with pytest.raises(ProgramError):
        Operand(**{**good, **bad})


@st.composite
def small_operands(draw):
    rank = draw(st.integers(1, 4))
    dtype = draw(st.sampled_from(DType))
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank)))
    strides = tuple(draw(st.lists(st.integers(-12, 12), min_size=rank, max_size=rank)))
    return Operand(draw(st.integers(300, 340)), dtype, shape, strides)


def slow_bytes(operand) -> list[int]:
    """Every byte address, one by one."""
    return [
        operand.addr + sum(i * s for i, s in zip(index, operand.strides)) + byte
        for index in np.ndindex(operand.shape)
        for byte in range(operand.dtype.itemsize)
    ]


@settings(max_examples=300, deadline=None)
@given(small_operands(), small_operands())
def test_operand_geometry_against_every_address(a, b):
    touched = slow_bytes(a)
    assert a.extent == (min(touched), max(touched) + 1)
    assert a.size_bytes == len(touched)
    assert overlap(a, b) == bool(set(touched) & set(slow_bytes(b)))
    if a.is_injective:
        assert len(set(touched)) == len(touched)
    if a.is_contiguous:
        assert (
            touched == list(range(a.addr, a.addr + a.size_bytes))
            and a.is_injective
            and a.inner_run_bytes == a.size_bytes
        )
    assert a.size_bytes % a.inner_run_bytes == 0
    low, high = a.extent
    assert set(np.flatnonzero(a.touched(low, high)) + low) == set(touched)


def test_interleaved_concat_members_do_not_overlap():
    left, right = (Operand(addr, DType.I8, (1, 4, 4, 8), (256, 64, 16, 1)) for addr in (0, 8))
    assert not overlap(left, right) and overlap(left, contiguous(7, "int8", (2,)))


def test_reference_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == reference_page(), (
        "run: python -m tvm_ergo.target.isa.reference > docs/isa.md"
    )
    for mnemonic in MNEMONICS:
        assert f"### {mnemonic}\n" in reference_page()
