"""What instructions cost: events (priced by the chip's energy table) and cycles, and the pieces several of them
share."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvm_ergo.target.events import Event
from tvm_ergo.target.isa.operand import DType, Operand
from tvm_ergo.target.isa.weights import stream_of


@dataclass(frozen=True)
class Cost:
    """What one instruction takes: ``cycles`` its engine is busy, and how often each event happens."""

    cycles: int
    events: dict[Event, int]


def ceil_div(a: int, b: int) -> int:
    """``ceil(a / b)`` of integers."""
    return -(-a // b)


def requantizations(out: Operand) -> int:
    """Elements of a tensor-engine result that pass through the requantizer: none of raw int32 accumulators."""
    return 0 if out.dtype == DType.I32 else out.elements


def engine_cost(engine, compute_cycles: int, read_bytes: int, write_bytes: int, events: dict[Event, int]) -> Cost:
    """The cost of an instruction whose memory traffic overlaps its arithmetic (double-buffered ports).

    ``engine`` gives issue_cycles, read_bytes_per_cycle and write_bytes_per_cycle. Cycles = issue + the largest of
    compute, reading and writing. Contention of several engines for one memory bank is not modelled: each has its own
    port width."""
    cycles = max(
        compute_cycles,
        ceil_div(read_bytes, engine.read_bytes_per_cycle),
        ceil_div(write_bytes, engine.write_bytes_per_cycle),
    )
    counted = {**events, Event.SRAM_READ_BYTE: read_bytes, Event.SRAM_WRITE_BYTE: write_bytes, Event.INSTRUCTION: 1}
    return Cost(engine.issue_cycles + cycles, {event: int(n) for event, n in counted.items() if n})


def weight_reading(array, weights: Operand, filled_bytes: int) -> tuple[int, int, dict[Event, int]]:
    """``(bytes read, decoder cycles, decoder events)`` for filling the weight buffer with so many bytes, whole readings
    of the operand.

    Plain weights are read as they are; of coded ones the stream is read and decoded as often, beside the arithmetic.
    """
    stream = stream_of(weights)
    if stream is None:
        return filled_bytes, 0, {}
    times = ceil_div(filled_bytes, weights.elements)
    return (
        times * stream.stored_bytes,
        times * stream.cycles(array),
        {event: math.ceil(times * count) for event, count in stream.events.items()},
    )


def plus(a: dict[Event, int], b: dict[Event, int]) -> dict[Event, int]:
    """Both counts together."""
    return {event: a.get(event, 0) + b.get(event, 0) for event in (*a, *b)}


@dataclass(frozen=True)
class MatrixWork:
    """A convolution or matrix product as the tensor array sees it, ``repeat`` times over (groups, batches).

    pixels x channels results, each a sum of ``depth`` products taken ``steps`` cycles; the bytes are those of one
    repetition.
    halo_bytes : input bytes two neighbouring bands of output rows share.
    """

    pixels: int
    channels: int
    depth: int
    steps: int
    input_bytes: int
    weight_bytes: int
    halo_bytes: int = 0
    repeat: int = 1

    def cycles(self, array) -> int:
        """Each cycle: input_lanes products for each of output_lanes channels and pixel_lanes pixels; partial lanes are
        lost."""
        return (
            self.repeat
            * self.steps
            * ceil_div(self.channels, array.output_lanes)
            * ceil_div(self.pixels, array.pixel_lanes)
        )

    def weight_chunks(self, array) -> int:
        """Pieces the reduction is cut into so that one piece of one channel tile's weights fits the weight buffer."""
        return ceil_div(self.depth * min(array.output_lanes, self.channels), array.weight_buffer_bytes)

    def traffic(self, array) -> tuple[int, int]:
        """(input, weight) bytes read from the unified memory, all repetitions: the better of two loop orders.

        *Weights outside*: a channel tile's weights stay in the weight buffer while all pixels pass; inputs are read
        once if they fit the input buffer, else once per channel tile. When the tile's weights do not fit, they are read
        again for every ``accumulator_buffer`` full of pixels, whose partial sums wait there. *Pixels outside*: a band
        of inputs stays in the input buffer while all channel tiles pass; inputs are read once plus the rows
        neighbouring bands share; weights once if all fit the weight buffer, else once per band."""
        tiles, chunks = ceil_div(self.channels, array.output_lanes), self.weight_chunks(array)
        waiting = (
            ceil_div(self.pixels, max(1, array.accumulator_buffer_bytes // (4 * array.output_lanes)))
            if chunks > 1
            else 1
        )
        weights_outside = (
            self.input_bytes * (1 if self.input_bytes <= array.input_buffer_bytes else tiles),
            self.weight_bytes * waiting,
        )
        bands = max(ceil_div(self.input_bytes, array.input_buffer_bytes), waiting)
        pixels_outside = (
            self.input_bytes + self.halo_bytes * (bands - 1),
            self.weight_bytes * (1 if self.weight_bytes <= array.weight_buffer_bytes else bands),
        )
        inputs, weights = min(weights_outside, pixels_outside, key=sum)
        return inputs * self.repeat, weights * self.repeat

    def cost(self, array, parameter_bytes: int, weights: Operand, out: Operand) -> Cost:
        """Cycles and events. parameter_bytes : biases, multipliers, shifts, read once. weights : where they may stand
        coded. out : the result, written once.

        Per product one MAC_8X8 and one ACC_ADD_32. Every cycle's inputs leave the input buffer once for all output
        lanes and its weights the weight buffer once for all pixel lanes; idle lanes read nothing. Sums stay in the
        array's registers, except between weight chunks, when they pass through the accumulator buffer."""
        macs = self.repeat * self.pixels * self.channels * self.depth
        results = self.repeat * self.pixels * self.channels
        inputs, filled = self.traffic(array)
        read, decode_cycles, decode_events = weight_reading(array, weights, filled)
        local_reads = (
            self.repeat
            * self.depth
            * (
                self.pixels * ceil_div(self.channels, array.output_lanes)
                + self.channels * ceil_div(self.pixels, array.pixel_lanes)
            )
        )
        spilled = 4 * results * (self.weight_chunks(array) - 1)
        events = {
            Event.MAC_8X8: macs,
            Event.ACC_ADD_32: macs,
            Event.REQUANT: requantizations(out),
            Event.LOCAL_READ_BYTE: local_reads + spilled,
            Event.LOCAL_WRITE_BYTE: inputs + filled + spilled,
        }
        return engine_cost(
            array,
            max(self.cycles(array), decode_cycles),
            inputs + read + parameter_bytes,
            out.size_bytes,
            plus(events, decode_events),
        )
