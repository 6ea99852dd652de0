"""What a report holds: plain, validated values, from which the terminal tables, the JSON and the HTML page are made."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LayerRow(Row):
    """One source layer: everything its instructions cost."""

    name: str
    op: str
    engine: str
    instructions: int
    cycles: int
    macs: int
    utilisation: float  # MACs done / MACs the engine could have done in these cycles, 0..1
    energy_uj: float  # dynamic only; leakage belongs to time, not to layers
    read_bytes: int
    write_bytes: int


class BufferRow(Row):
    """A buffer's place and life in the unified memory."""

    name: str
    kind: str  # input | output | constant | activation | scratch
    address_bytes: int
    size_bytes: int
    first: int  # instruction index, half open
    last: int
    start_us: float
    end_us: float


class InputRow(Row):
    """What becomes of an input: a resident one is in the memory as a whole when the chip starts and released as it is read; a streamed one is
    received row by row."""

    name: str
    size_bytes: int  # of the whole input
    streamed: bool
    held_bytes: int  # the most of it in the memory at one time, margins that were added to it included
    start_us: float  # in the memory from here
    end_us: float  # until here: then all of its bytes belong to others


class MemoryRow(Row):
    """Live bytes while one instruction runs."""

    time_us: float
    constant_bytes: int
    activation_bytes: int  # activations, inputs, outputs, scratch


class ProgramReport(Row):
    """One chip program of the network (a network with host operators in its middle has several)."""

    symbol: str
    instructions: int
    cycles: int
    energy_uj: float
    memory_bytes: int  # highest address used
    constant_bytes: int
    peak_activation_bytes: int  # live bytes at the worst instant, frame included
    inputs: list[InputRow]
    layers: list[LayerRow]
    buffers: list[BufferRow]
    memory_over_time: list[MemoryRow]


class HostRow(Row):
    """An operator that runs on the host CPU, and what to do about it."""

    name: str
    op: str
    reason: str
    remedy: str


class PowerRow(Row):
    """Average power at a frame rate: energy of the work, plus leakage and idle for the rest of the second."""

    frames_per_s: float
    power_mw: float | None  # None: the chip is too slow for this rate at this operating point


class LayerError(Row):
    """How far a layer's dequantized output is from the float network's, on the same input."""

    name: str
    op: str
    sqnr_db: float | None  # None: no error at all
    rmse: float
    max_error: float
    float_min: float
    float_max: float
    scale: float


class Report(Row):
    """Cost of one inference on the emulated chip. Energy in microjoules, time at the chip's operating point."""

    model: str
    chip: str
    point: str
    clock_hz: float
    voltage_v: float
    chip_memory_bytes: int
    cycles: int
    latency_ms: float
    inferences_per_s: float
    energy_uj: float  # dynamic + leakage
    leakage_uj: float
    energy_by_event_uj: dict[str, float]
    energy_by_engine_uj: dict[str, float]
    macs: int
    power: list[PowerRow]
    programs: list[ProgramReport]
    host: list[HostRow]
    errors: list[LayerError] = []

    @property
    def peak_activation_bytes(self) -> int:
        return max((p.peak_activation_bytes for p in self.programs), default=0)

    @property
    def inputs(self) -> list[InputRow]:
        """Those of the network: of its first program, and streamed ones."""
        return [row for i, program in enumerate(self.programs) for row in program.inputs if i == 0 or row.streamed]

    @property
    def streamed(self) -> bool:
        """Whether an input is received row by row."""
        return any(row.streamed for row in self.inputs)

    @property
    def constant_bytes(self) -> int:
        return sum(p.constant_bytes for p in self.programs)  # all parts' constants are there at once

    @property
    def memory_bytes(self) -> int:
        return max((p.memory_bytes for p in self.programs), default=0)
