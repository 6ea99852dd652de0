"""The sparse engine's instruction: a matrix of few nonzero values times vectors that are partly zero (EIE: Han et al.,
ISCA 2016)."""

from __future__ import annotations

from collections.abc import Callable

from tvm_ergo.target.codecs.eie import MOST_ENTRY_BITS, MOST_ROWS
from tvm_ergo.target.codecs.eie_sections import LINE_BITS, MOST_LENGTH_BITS
from tvm_ergo.target.errors import MachineError, ProgramError
from tvm_ergo.target.isa.base import Engine, Instruction, instruction
from tvm_ergo.target.isa.cost import Cost, Event, ceil_div, engine_cost, requantizations
from tvm_ergo.target.isa.fields import I8, U8, U32, Int, Tensor
from tvm_ergo.target.isa.operand import DType
from tvm_ergo.target.isa.tensor import HI, I8_ONLY, I32_ONLY, LO, OUT_ZP, PARAMETER_BYTES, RESULT
from tvm_ergo.target.sparse.events import LINE_BYTES, events
from tvm_ergo.target.sparse.timing import LATENCY_CYCLES, Activity, Timing

PER_MILLE = 1000
UNEVEN = 1.03
"""Expected work of the slowest processing element by the mean: 1.01 to 1.035 on the layers of benchmarks/eie.py."""


@instruction(0x40, Engine.SPARSE, "SPMV")
class Spmv(Instruction):
    """Matrix times each row of ``x``, int32 sums, per-channel requantization: the dense 1x1 convolution of the stored
    matrix, bit for bit.

    The matrix lies in ``w`` as `target/codecs/eie.py` says, for as many processing elements as the chip has. Inputs
    equal to in_zp are skipped. What a run takes depends on how many others there are; entries, entry_bits,
    columns_per_word and expected serve only to tell it beforehand."""

    DEPENDS_ON_DATA = True

    x = Tensor("M C", I8_ONLY, "input vectors, one a row")
    w = Tensor("B", (DType.U8,), "the stored matrix [O, C], dense bytes")
    bias = Tensor("O", I32_ONLY, "bias at scale s_in * s_w[o]")
    mult = Tensor("O", I32_ONLY, "requantization multipliers, each in 0..2**24-1")
    shift = Tensor("O", I8_ONLY, "requantization right shifts, each in 0..62")
    out = Tensor("M O", RESULT, "output vectors; int32: the accumulators, not requantized", out=True)
    in_zp = I8("input zero point: the input that is skipped")
    out_zp, lo, hi = OUT_ZP, LO, HI
    entries = U32("entries of the matrix, padding included")
    entry_bits = U8("bits of an entry", 1, MOST_ENTRY_BITS)
    columns_per_word = U8("columns whose lengths a pointer word holds; 0: pointers in two banks", 0, MOST_LENGTH_BITS)
    expected = Int("u16", 0, PER_MILLE, "inputs expected to differ from in_zp, per mille")

    def check_rules(self, dims):
        self.check_clip()
        self.require(self.w.is_contiguous, "the stored matrix is not contiguous")
        self.require(dims["O"] <= MOST_ROWS, "too many output channels", f"at most {MOST_ROWS}", dims["O"])
        most = 8 * dims["B"] // self.entry_bits
        self.require(self.entries <= most, "more entries than the stored matrix has room for", most, self.entries)

    def _prepared(self, memory):
        from tvm_ergo.target.machine.kernels import PreparedSparse

        def unpack():
            shape = self.out.shape[1], self.x.shape[1]
            parameters = (memory.view(operand).copy() for operand in (self.bias, self.mult, self.shift))
            try:
                return PreparedSparse(
                    memory.view(self.w).tobytes(), shape, *parameters, **self.values("in_zp", "out_zp", "lo", "hi")
                )
            except ProgramError as error:
                raise MachineError(
                    error.what, where=str(self.w), remedy="check address, length and shape of the stored matrix"
                ) from None

        return memory.prepared(self, [self.w, self.bias, self.mult, self.shift], unpack)

    def execute(self, memory) -> None:
        self._prepared(memory)(memory.view(self.x), memory.view(self.out))

    def spent(self, memory, chip) -> Callable[[], Cost]:
        prepared, engine = self._prepared(memory), chip.sparse
        if prepared.matrix.format.pes != engine.elements:
            raise MachineError(
                "the matrix is stored for another number of processing elements",
                where=str(self.w),
                required=f"{engine.elements}",
                available=f"{prepared.matrix.format.pes}",
                remedy="compile for this chip",
            )
        active = memory.view(self.x) != self.in_zp
        timing = Timing(engine.queue, engine.ahead, row_gap=False)
        return lambda: self._cost(chip, [prepared.work.run(row, timing) for row in active])

    def cost(self, chip) -> Cost:
        """A run: for each vector, biases into the sums and requantized sums out of them (one a cycle and processing
        element) and the engine's cycles (`target/sparse/timing.py`); beside that the memory's port. Beforehand:
        ``expected`` of the columns, their mean share of the entries, the slowest element 3 % above the mean."""
        pes, inputs = chip.sparse.elements, self.x.shape[1]
        share = self.expected / PER_MILLE
        columns, entries = (
            ceil_div(inputs * self.expected, PER_MILLE),
            ceil_div(self.entries * self.expected, PER_MILLE),
        )
        per_line = LINE_BITS // self.entry_bits
        line_columns = 1 + per_line * pes * inputs / max(1, self.entries)  # columns that meet one line
        lines = round(ceil_div(self.entries, per_line) * (1 - (1 - share) ** line_columns))
        words = (
            round(ceil_div(inputs, self.columns_per_word) * (1 - (1 - share) ** self.columns_per_word))
            if self.columns_per_word
            else columns
        )
        cycles = round(max(columns, UNEVEN * entries / pes)) + LATENCY_CYCLES
        return self._cost(
            chip,
            [
                Activity(
                    cycles,
                    columns,
                    entries,
                    entries,
                    words * pes,
                    words * pes * (8 if self.columns_per_word else 4),
                    lines,
                )
            ]
            * self.x.shape[0],
        )

    def _cost(self, chip, activities: list[Activity]) -> Cost:
        engine, (rows, outputs) = chip.sparse, self.out.shape
        slots = ceil_div(outputs, engine.elements)
        if slots > engine.sums:
            raise MachineError(
                f"{outputs} output channels",
                where=self.to_text(),
                available=f"{engine.elements * engine.sums} sums on {chip.name}",
                remedy="compile for this chip",
            )
        counted: dict[Event, int] = {Event.REQUANT: requantizations(self.out)}
        for activity in activities:
            for event, count in events(activity, engine.elements).items():
                counted[event] = counted.get(event, 0) + count
        reads = (
            sum(a.pointer_bytes + a.line_reads * LINE_BYTES for a in activities)
            + self.x.size_bytes
            + PARAMETER_BYTES * outputs
        )
        cycles = sum(a.cycles for a in activities) + 2 * slots * rows
        return engine_cost(engine, cycles, reads, self.out.size_bytes, counted)
