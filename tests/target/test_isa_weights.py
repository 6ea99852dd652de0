"""Coded weights as operands: preconditions, the same results as plain ones, what they cost, and streams that lie."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tvm_ergo.target.chip import Chip, chip
from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.weights import WeightCodes, encode
from tvm_ergo.target.codecs.weights_registry import WEIGHT_CODECS
from tvm_ergo.target.errors import MachineError, ProgramError, TargetError
from tvm_ergo.target.events import Event
from tvm_ergo.target.isa import Add, Conv, ConvTranspose, Depthwise, DType, Halt, MatMul, Operand, contiguous
from tvm_ergo.target.isa.cost import MatrixWork
from tvm_ergo.target.isa.fields import format_operand, parse_operand
from tvm_ergo.target.isa.weights import coded_weights, stream_of
from tvm_ergo.target.machine import Machine
from tvm_ergo.target.program import Port, Program

from .weight_samples import KINDS, sample

CHIP = chip("ergo/1")
RNG = np.random.default_rng(0)
X, OUT, BIAS, MULT, SHIFT, WEIGHTS = 8192, 12288, 0, 256, 512, 1024


def i8(addr, *shape):
    return contiguous(addr, DType.I8, shape)


def weights(kind: str, shape) -> np.ndarray:
    return sample(kind, shape[0], int(np.prod(shape[1:])), 3).reshape(shape)


def operand_and_bytes(w: np.ndarray, codec: Codec, lanes: int) -> tuple[Operand, bytes]:
    if codec == Codec.RAW:
        return i8(WEIGHTS, *w.shape), w.tobytes()
    coded = encode(WeightCodes.of(w), codec, lanes)
    return coded_weights(WEIGHTS, w.shape, coded), coded.data


def instruction(op: str, w: Operand):
    """One instruction of the tensor engine that reads the weights."""
    window = dict(strides=(1, 1), padding=(1, 1, 1, 1), dilation=(1, 1))
    fields = dict(out_zp=-3, lo=-120, hi=127)
    vectors = dict(
        bias=contiguous(BIAS, DType.I32, (8,)),
        mult=contiguous(MULT, DType.I32, (8,)),
        shift=i8(SHIFT, 8),
        in_zp=4,
        w_zp=0,
        **fields,
    )
    if op == "conv":
        return Conv(x=i8(X, 1, 6, 6, 12), w=w, out=i8(OUT, 1, 6, 6, 8), groups=2, **window, **vectors)
    if op == "depthwise":
        return Depthwise(x=i8(X, 1, 6, 6, 8), w=w, out=i8(OUT, 1, 6, 6, 8), **window, **vectors)
    if op == "transpose":
        return ConvTranspose(
            x=i8(X, 1, 6, 6, 6), w=w, out=i8(OUT, 1, 6, 6, 8), output_padding=(0, 0), **window, **vectors
        )
    return MatMul(
        a=i8(X, 3, 5, 12),
        b=w,
        out=i8(OUT, 3, 5, 8),
        transpose_b=False,
        a_zp=4,
        b_zp=0,
        mult=9_000_000,
        shift=30,
        **fields,
    )


SHAPES = {"conv": (8, 3, 3, 6), "depthwise": (3, 3, 8), "transpose": (8, 3, 3, 6), "matmul": (12, 8)}


def program(op: str, w: np.ndarray, codec: Codec, lanes: int = 4) -> Program:
    operand, stored = operand_and_bytes(w, codec, lanes)
    one = instruction(op, operand)
    x = one.reads()[0]
    vectors = [
        (BIAS, np.arange(-4, 4, dtype=np.int32).tobytes()),
        (MULT, np.full(8, 12_345_678, np.int32).tobytes()),
        (SHIFT, np.full(8, 32, np.int8).tobytes()),
    ]
    return Program(
        chip_name="ergo/1",
        instructions=[one, Halt()],
        data=[*(vectors if op != "matmul" else []), (WEIGHTS, stored)],
        inputs=[Port("x", x)],
        outputs=[Port("y", one.writes()[0])],
        memory_bytes=1 << 14,
    )


@pytest.mark.parametrize("op", SHAPES)
@pytest.mark.parametrize("codec", WEIGHT_CODECS)
@pytest.mark.parametrize("kind", KINDS)
def test_same_results_as_plain_weights(op, codec, kind):
    w = weights(kind, SHAPES[op])
    plain, coded = program(op, w, Codec.RAW), program(op, w, codec)
    x = {"x": RNG.integers(-128, 128, plain.inputs[0].operand.shape).astype(np.int8)}
    machine = Machine(coded, strict=True)
    for _ in range(2):
        np.testing.assert_array_equal(machine.run(x).outputs["y"], Machine(plain).run(x).outputs["y"])
    assert (
        Program.from_bytes(coded.to_bytes()).instructions == coded.instructions
        and Program.from_text(coded.to_text()).instructions == coded.instructions
    )


def test_decoded_once_while_constant(monkeypatch):
    import tvm_ergo.target.machine.memory as memory

    calls, decoded = [], memory.decoded
    monkeypatch.setattr(memory, "decoded", lambda *a: calls.append(1) or decoded(*a))
    machine = Machine(program("matmul", weights("pruned", (12, 8)), Codec.CABAC))
    for _ in range(3):
        machine.run({"x": np.zeros((3, 5, 12), np.int8)})
    assert len(calls) == 1


@pytest.mark.parametrize("damage", ["bytes", "steps", "lanes", "codec", "int16"])
def test_streams_that_are_not_what_the_operand_says(damage):
    w = weights("pruned", SHAPES["conv"])
    good = program("conv", w, Codec.RUNS)
    operand, (addr, stored) = good.instructions[0].w, good.data[-1]
    if damage == "bytes":
        stored = stored[:1] + b"\0" + stored[2:]
    elif damage == "int16":
        coded = encode(WeightCodes.of(w.astype(np.int16)), Codec.RUNS, 4)
        operand, stored = coded_weights(WEIGHTS, w.shape, coded), coded.data
    else:
        change = {
            "steps": dict(strides=(operand.strides[0], operand.strides[1] + 16, 0, 0)),
            "lanes": dict(strides=(operand.strides[0], operand.strides[1] - 1, 0, 0)),
            "codec": dict(codec=Codec.HUFFMAN),
        }[damage]
        operand = replace(operand, **change)
    bad = replace(
        good, instructions=[replace(good.instructions[0], w=operand), Halt()], data=[*good.data[:-1], (addr, stored)]
    )
    with pytest.raises(MachineError, match="coded weights is broken|not what its operand says"):
        Machine(bad).run({"x": np.zeros((1, 6, 6, 12), np.int8)})


def test_preconditions():
    w, _ = operand_and_bytes(weights("pruned", SHAPES["conv"]), Codec.HUFFMAN, 4)
    instruction("conv", w).check()
    for wrong in (
        dict(strides=(0, 16, 0, 0)),
        dict(strides=(9, 15, 0, 0)),
        dict(strides=(9, 16, 1, 0)),
        dict(strides=(9, 16 + 15, 0, 0)),
    ):
        with pytest.raises(ProgramError, match="not a stream of weights"):
            instruction("conv", replace(w, **wrong)).check()
    with pytest.raises(ProgramError, match="x cannot be coded weights"):
        replace(instruction("conv", w), x=replace(i8(X, 1, 6, 6, 12), codec=Codec.RUNS, strides=(9, 16, 0, 0))).check()
    a = Operand(0, DType.I8, (4, 4), (9, 16), Codec.RUNS)
    with pytest.raises(ProgramError, match="no operand of this instruction"):
        Add(
            a=a, b=i8(64, 4, 4), out=i8(96, 4, 4), a_zp=0, b_zp=0, a_mult=1, b_mult=1, shift=0, out_zp=0, lo=0, hi=1
        ).check()
    with pytest.raises(ProgramError, match="w cannot be compressed"):
        instruction("conv", replace(i8(WEIGHTS, *SHAPES["conv"]), codec=Codec.BITMASK)).check()


def test_only_the_stream_is_touched():
    operand, stored = operand_and_bytes(weights("pruned", SHAPES["conv"]), Codec.CABAC, 1)
    assert operand.extent == (WEIGHTS, WEIGHTS + len(stored)) and operand.touched(WEIGHTS, WEIGHTS + len(stored)).all()
    assert parse_operand(format_operand(operand)) == operand
    said = stream_of(operand)
    assert (said.stored_bytes, said.lanes, said.codec) == (len(stored), 1, Codec.CABAC) and stream_of(
        i8(0, 2, 2)
    ) is None


@pytest.mark.parametrize("op", SHAPES)
def test_cost_reads_the_stream_and_waits_for_the_decoder(op):
    w = weights("pruned", SHAPES[op])
    plain = instruction(op, operand_and_bytes(w, Codec.RAW, 1)[0]).cost(CHIP)
    for codec in WEIGHT_CODECS:
        operand, stored = operand_and_bytes(w, codec, 1)
        coded, stream = instruction(op, operand).cost(CHIP), stream_of(operand)
        times = round(
            (plain.events[Event.SRAM_READ_BYTE] - coded.events[Event.SRAM_READ_BYTE]) / (w.size - len(stored))
        )
        assert times >= 1 and plain.events[Event.SRAM_READ_BYTE] - coded.events[Event.SRAM_READ_BYTE] == times * (
            w.size - len(stored)
        )
        assert (
            coded.cycles == max(plain.cycles, CHIP.tensor.issue_cycles + times * stream.steps)
            or codec == Codec.PACKED
            and coded.cycles <= plain.cycles
        )
        assert coded.events[Event.LUT_READ] > 0 and coded.events[Event.MAC_8X8] == plain.events[Event.MAC_8X8]
        assert coded.events[Event.LOCAL_WRITE_BYTE] >= plain.events[Event.LOCAL_WRITE_BYTE]


def test_a_dense_layer_gets_faster_by_what_is_not_read():
    w = weights("pruned", (512, 1, 1, 1024))
    vectors = dict(
        bias=contiguous(0, DType.I32, (512,)),
        mult=contiguous(2048, DType.I32, (512,)),
        shift=i8(4096, 512),
        in_zp=0,
        w_zp=0,
        out_zp=0,
        lo=-128,
        hi=127,
    )

    def cycles(operand):
        return (
            Conv(
                x=i8(1 << 20, 1, 1, 1, 1024),
                w=operand,
                out=i8(1 << 21, 1, 1, 1, 512),
                strides=(1, 1),
                padding=(0, 0, 0, 0),
                dilation=(1, 1),
                groups=1,
                **vectors,
            )
            .cost(CHIP)
            .cycles
        )

    fast = coded_weights(8192, w.shape, encode(WeightCodes.of(weights("long runs", w.shape)), Codec.RUNS, 16))
    slow = coded_weights(8192, w.shape, encode(WeightCodes.of(w), Codec.CABAC, 1))
    assert cycles(fast) < 0.6 * cycles(i8(8192, *w.shape)) < cycles(slow)


def test_lanes_beyond_the_decoders_wait():
    operand, _ = operand_and_bytes(weights("dense", (16, 4, 4, 8)), Codec.HUFFMAN, 16)
    few, none = (replace(CHIP.tensor, weight_decoder_lanes=lanes) for lanes in (4, 0))
    stream = stream_of(operand)
    assert (stream.cycles(CHIP.tensor), stream.cycles(few), stream.cycles(none)) == (128, 512, 2048)


def test_weight_chunks_are_read_and_decoded_again():
    work = MatrixWork(pixels=4096, channels=32, depth=4096, steps=256, input_bytes=1 << 22, weight_bytes=32 * 4096)
    w = weights("pruned", (32, 4096))
    operand, stored = operand_and_bytes(w, Codec.RUNS, 16)
    out = i8(0, 4096, 32)
    plain, coded = (work.cost(CHIP.tensor, 0, o, out).events[Event.SRAM_READ_BYTE] for o in (i8(0, *w.shape), operand))
    times = work.traffic(CHIP.tensor)[1] // w.size
    assert times > 1 and plain - coded == times * (w.size - len(stored))


def test_chip_files_without_decoders():
    data = CHIP.to_json()
    assert Chip.from_json(data) == CHIP and CHIP.tensor.weight_decoder_lanes == 16
    del data["tensor"]["weight_decoder_lanes"]
    assert Chip.from_json(data).tensor.weight_decoder_lanes == 0
    data["tensor"]["weight_decoder_lanes"] = -1
    with pytest.raises(TargetError, match="weight_decoder_lanes"):
        Chip.from_json(data)
