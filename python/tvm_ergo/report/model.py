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
    kind: str  # input | output | constant | activation | compressed | scratch | state
    address_bytes: int
    size_bytes: int
    raw_bytes: int  # what a compressed tensor would take; else size_bytes
    first: int  # instruction index, half open
    last: int
    start_us: float
    end_us: float


class KindRow(Row):
    """The share of the unified memory that one kind of content takes."""

    kind: str
    peak_bytes: int  # the most at one time; the kinds' peaks are at different times
    buffers: int


class TensorRow(Row):
    """A tensor's life in the memory: at most ``held_bytes`` of its ``whole_bytes``, from instruction ``first`` until
    before ``last``."""

    name: str
    kind: str  # as in BufferRow
    held_bytes: int
    whole_bytes: int
    first: int
    last: int
    codec: str | None  # of a compressed tensor
    bits_mean: float | None  # coded bits per value on the calibration data
    bits_worst: float | None  # of its worst sample
    max_error: int | None  # steps; what the slots certify for any data


class WeightsRow(Row):
    """The constant weights of a layer, as they stand in the memory."""

    name: str
    layers: list[str]  # that read them
    shape: list[int]
    density: float  # share that is not zero, 0..1
    distinct: int  # different values
    entropy_bits: float  # per weight, order 0
    bits_per_weight: float  # as they stand, everything counted
    dense_bytes: int
    coded_bytes: int  # dense_bytes where they are plain
    codec: str | None  # None: plain
    panels: int  # streams, each readable by itself
    lanes: int  # decoders that share a stream
    steps: int  # decoder cycles of reading all once


class SubproblemRow(Row):
    """Layers between two cuts of the graph, and the way chosen to carry them out."""

    layers: list[str]
    how: str  # whole | rows | tiles
    decisions: list[str]  # which layers in which rows or tiles
    peak_bytes: int
    whole_bytes: int  # peak of the same layers run whole
    cycles: int  # as the search counts them: without the overlap of engines
    energy_uj: float  # dynamic
    mac_overhead: float
    ways: int  # ways there were to choose from


class PlanReport(Row):
    """What was decided about the activations' memory."""

    limit_bytes: int  # unified memory planned for
    live_bytes: int  # the most alive at one time
    activation_bytes: int  # the most that addresses reach
    whole_bytes: int  # live bytes of whole layers that share nothing
    least_bytes: int  # no order in time or space goes below, uncompressed
    least_reason: str
    order: str
    in_space: bool  # False: every layer runs whole
    mac_overhead: float
    copied_bytes: int  # moved in rolling buffers
    subproblems: list[SubproblemRow]


class InputRow(Row):
    """What becomes of an input: a resident one is in the memory as a whole when the chip starts and released as it is
    read; a streamed one is received row by row."""

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
    kinds: list[KindRow]
    plan: PlanReport | None
    tensors: list[TensorRow]
    weights: list[WeightsRow] = []
    decoding_cycles: int = 0  # by which instructions take longer as their weights are coded
    layers: list[LayerRow]
    buffers: list[BufferRow]
    memory_over_time: list[MemoryRow]

    @property
    def placed_activation_bytes(self) -> int:
        """What the addresses of activations reach: the live bytes and the gaps between them."""
        return self.plan.activation_bytes if self.plan else self.peak_activation_bytes


class HostRow(Row):
    """An operator that runs on the host CPU, and what to do about it."""

    name: str
    op: str
    reason: str
    remedy: str


class PortRow(Row):
    """An input or output of the network as its user gives and gets it, or a state that it keeps from one run to the
    next."""

    name: str
    direction: str  # input | output | state
    dtype: str
    shape: tuple[int, ...]
    scale: float | None  # of integers: real = scale * (q - zero_point); None where the model does not say
    zero_point: int | None


class PostRow(Row):
    """Post-processing on the chip's CPU (`tvm_ergo.post`). outputs : what each output's integers mean. cycles,
    energy_uj : the most it can take, part of the whole's. scratch_bytes : of the activation memory."""

    name: str
    options: dict[str, object]
    outputs: dict[str, str]
    cycles: int
    energy_uj: float
    constant_bytes: int
    scratch_bytes: int


class PowerRow(Row):
    """Average power at a frame rate: energy of the work, plus leakage and idle for the rest of the second."""

    frames_per_s: float
    power_mw: float | None  # None: the chip is too slow for this rate at this operating point
    gated_mw: float | None = (
        None  # with what the chip can switch off switched off; None too where its file names nothing
    )


class SleepRow(Row):
    """A way to spend the pauses at a frame rate (`target.machine.sleep`). average_mw, mj_per_day : of everything; None
    where the state cannot be used, and why_not says why. ready_us : from an event to the first instruction."""

    frames_per_s: float
    state: str
    chosen: bool  # least average power
    average_mw: float | None
    mj_per_day: float | None
    pause_mw: float
    kept_bytes: int  # constants and states that survive the pause
    kept_banks: int  # that hold them
    ready_us: float
    why_not: str


class BatteryRow(Row):
    """How long a cell lasts. Self-discharge, the converter's loss and the rest of the device are not counted."""

    cell: str
    frames_per_s: float
    state: str
    joule: float
    days: float


class PartRow(Row):
    """Energy of one inference in one part of the chip: an engine, the unified memory (its leakage: its accesses stand
    with the engines), what is always on."""

    part: str
    arithmetic_uj: float
    local_uj: float  # local buffers
    read_uj: float  # out of the unified memory
    write_uj: float
    control_uj: float  # fetch and decoding of instructions
    leakage_uj: float
    gated_leakage_uj: float  # with gating: what leaks on, and switching on


class PeakRow(Row):
    """The worst window, inferences following one another without a pause."""

    window_us: float
    power_mw: float
    begin_us: float  # in the inference
    layer: str  # that takes most in it


class ZeroRow(Row):
    """Products with a zero operand in one run, and what an array that isolates its multipliers from zeros saves; every
    other figure counts all products in full."""

    share: float  # of the tensor engine's products, 0..1
    saved_uj: float  # at the report's operating point
    sample: str  # the input


class PointRow(Row):
    """The same inference at one operating point."""

    point: str
    clock_hz: float
    voltage_v: float
    latency_ms: float
    energy_uj: float
    gated_energy_uj: float
    inferences_per_s_per_w: float
    peak_mw: float
    power: list[PowerRow]
    zeros_saved_uj: float | None = None  # by isolating zero operands, in the run of `Report.zeros`


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


class AccuracyRow(Row):
    """What compiling a float network lost: ``outputs`` and ``tensors`` are losses by name (`tvm_ergo.accuracy`),
    tensors each alone in 8 bits."""

    outputs: dict[str, float]
    samples: int
    seconds: float
    warn_above: float
    tensors: dict[str, float] = {}
    in_float: list[str] = []
    remedies: list[str] = []
    unseen: list[str] = []
    text: str = ""

    @property
    def warned(self) -> bool:
        """Whether compiling warned: too much is lost, or calibration showed little of an output."""
        return self.loss > self.warn_above or bool(self.unseen)

    @property
    def loss(self) -> float:
        return max(self.outputs.values(), default=0.0)


class EntryRow(Row):
    """A further Program of the network, in the same memory: for fewer tokens, or for one token more of a text."""

    name: str
    takes: str
    cycles: int
    latency_us: float
    energy_uj: float  # dynamic + leakage, of one run
    tokens: int  # of one run
    peak_bytes: int  # constants of all Programs, what is kept between runs, its activations


class Report(Row):
    """Cost of one inference on the emulated chip. Energy in microjoules, time at the chip's operating point."""

    schema_version: int = 1
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
    ports: list[PortRow] = []
    parts: list[PartRow] = []
    peak: PeakRow | None = None
    points: list[PointRow] = []
    gates: bool = False  # whether the chip can switch parts off
    zeros: ZeroRow | None = None
    accuracy: AccuracyRow | None = None
    post: PostRow | None = None
    entries: list[EntryRow] = []
    sleep: list[SleepRow] = []
    battery: list[BatteryRow] = []

    @property
    def peak_activation_bytes(self) -> int:
        return max((p.peak_activation_bytes for p in self.programs), default=0)

    @property
    def placed_activation_bytes(self) -> int:
        return max((p.placed_activation_bytes for p in self.programs), default=0)

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
