"""Weights that stand coded in memory: a stream that the tensor engine decodes on its way into the weight buffer.

Such an operand is int8 of any shape with a codec of weights (`target/codecs/weights`): its first axis are the stream's
rows. Its strides are ``(S, steps << 4 | lanes - 1, 0, ...)``: the stream lies in the bytes ``[addr, addr + S)``, and
its busiest lane takes so many steps. So an instruction's cost follows from its operands alone; the machine checks that
the stream keeps what they say."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.weights import MAX_LANES, CodedWeights, decode
from tvm_ergo.target.codecs.weights_registry import weight_codec
from tvm_ergo.target.errors import MachineError, ProgramError
from tvm_ergo.target.events import Event
from tvm_ergo.target.isa.operand import DType, Operand

MOST_STEPS = (1 << 27) - 1


def coded_weights(addr: int, shape: tuple[int, ...], coded: CodedWeights) -> Operand:
    """The operand of weights int8[shape], of rank 2 or more, whose stream lies at ``addr``."""
    strides = (len(coded.data), coded.steps << 4 | coded.lanes - 1, *[0] * (len(shape) - 2))
    return Operand(addr, DType.I8, shape, strides, coded.codec)


@dataclass(frozen=True)
class WeightStream:
    """What reading a coded operand once takes. lanes : the stream's; steps : of the busiest one."""

    codec: Codec
    stored_bytes: int
    steps: int
    lanes: int

    def cycles(self, engine) -> int:
        """With as many decoders as the engine has; lanes beyond them wait."""
        return math.ceil(self.steps * weight_codec(self.codec).COST.cycles) * math.ceil(
            self.lanes / max(1, engine.weight_decoder_lanes)
        )

    @property
    def events(self) -> dict[Event, float]:
        """All lanes counted as busy as the busiest."""
        return {event: count * self.steps * self.lanes for event, count in weight_codec(self.codec).COST.events.items()}


def stream_of(operand: Operand) -> WeightStream | None:
    """None for weights that are not coded."""
    if not operand.codec.of_weights:
        return None
    return WeightStream(operand.codec, operand.strides[0], operand.strides[1] >> 4, (operand.strides[1] & 15) + 1)


def check_weights(instruction, name: str, operand: Operand) -> None:
    """Preconditions of a coded weight operand. Errors: ProgramError."""
    instruction.require(
        name in instruction.WEIGHTS,
        f"{name} cannot be coded weights",
        " or ".join(instruction.WEIGHTS) or "no operand of this instruction",
        operand.codec.name,
    )
    rank_fits = operand.rank >= 2
    size, work = operand.strides[:2] if rank_fits else (0, 0)
    lanes = (work & 15) + 1
    instruction.require(
        operand.dtype == DType.I8
        and rank_fits
        and size >= 1
        and work >> 4 >= 1
        and not any(operand.strides[2:])
        and lanes <= min(operand.shape[0], MAX_LANES),
        f"{name} is not a stream of weights",
        f"i8 of rank 2 or more with strides S,steps<<4|lanes-1,0,... (S and steps at least 1, lanes at most the first "
        f"axis and {MAX_LANES})",
        operand,
    )


def decoded(operand: Operand, stored: np.ndarray) -> np.ndarray:
    """int8[shape] of a coded operand, from its bytes uint8[S]. Errors: MachineError for a stream that no encoder wrote
    or that is another than the operand says."""
    rows = operand.shape[0]
    try:
        weights, info = decode(stored.tobytes(), (rows, operand.elements // rows))
    except ProgramError as error:
        raise MachineError(
            error.what,
            where=str(operand),
            required=error.required,
            available=error.available,
            remedy="the bytes were not written with this codec and shape",
        ) from None
    said = stream_of(operand)
    assert said is not None, "only coded operands come here"
    if (info.codec, info.steps, info.lanes) != (said.codec, said.steps, said.lanes) or weights.table.dtype != np.int8:
        raise MachineError(
            "a stream of weights is not what its operand says",
            where=str(operand),
            required=f"{said.codec.name}, {said.steps} steps, {said.lanes} lanes, int8",
            available=f"{info.codec.name}, {info.steps} steps, {info.lanes} lanes, {weights.table.dtype}",
        )
    return weights.values().reshape(operand.shape)
