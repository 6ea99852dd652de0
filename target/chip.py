"""A chip as data: memory, engines, clock and voltage points, energy per event. Every number carries its source.

Chip files are JSON; a number is ``{"value": 4096, "source": "..."}`` (a bare number is accepted in a user's own file)
and an energy is ``{"pj": 0.1, "source": "...", "scaling": "..."}`` at ``reference_v``. Dynamic energy scales with the
square of the voltage, leakage power linearly with the voltage (constant leakage current: a simplification, stated in
the files)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path

from tvm_ergo.target.errors import TargetError
from tvm_ergo.target.isa.cost import Event
from tvm_ergo.target.limits import parsed_json, read_bytes
from tvm_ergo.target.sums import added

CHIPS_FOLDER = Path(__file__).parent / "chips"
ALIASES = {"ergo": "ergo/1"}
SIZE_UNITS = {"": 1, "b": 1, "kb": 1000, "kib": 1024, "mb": 10**6, "mib": 1 << 20, "gb": 10**9, "gib": 1 << 30}
UNSOURCED = "given in a chip file without a source"


@dataclass(frozen=True)
class TensorEngine:
    """An output-stationary array: input_lanes x output_lanes x pixel_lanes multipliers, one 8x8 MAC each per cycle."""

    input_lanes: int  # input channels (reduction) per cycle
    output_lanes: int  # output channels per cycle
    pixel_lanes: int  # output pixels per cycle
    depthwise_taps: int  # kernel taps per channel and pixel per cycle in depthwise mode
    input_buffer_bytes: int
    weight_buffer_bytes: int
    accumulator_buffer_bytes: int  # int32 partial sums of output_lanes channels
    read_bytes_per_cycle: int  # unified memory to engine
    write_bytes_per_cycle: int
    issue_cycles: int  # fixed start-up and drain of one instruction
    weight_decoder_lanes: int = (
        0  # decoders of coded weights between the memory and the weight buffer, one step each per cycle; 0: none
    )
    # look-ups of the output stage per cycle (`target/isa/output_table`); 0: it has no table, and activations run on the
    # vector engine
    output_table_lanes: int = 0
    zero_gating: float = (
        0.0  # share of a product's and its sum's energy saved where an operand is zero (`target/machine/zeros`)
    )

    @property
    def macs_per_cycle(self) -> int:
        return self.input_lanes * self.output_lanes * self.pixel_lanes


@dataclass(frozen=True)
class VectorEngine:
    """SIMD lanes for elementwise work."""

    lanes: int  # elements per cycle and pass
    table_lanes: int  # table look-ups per cycle
    divide_lanes: int  # divisions per cycle (pipelined)
    read_bytes_per_cycle: int
    write_bytes_per_cycle: int
    issue_cycles: int


@dataclass(frozen=True)
class SparseEngine:
    """Processing elements that each take one nonzero weight a cycle, for nonzero inputs only (`target/sparse`)."""

    elements: int  # processing elements
    queue: int  # nonzero inputs an element may be behind
    ahead: int  # columns an element looks up ahead
    sums: int  # int32 sums of an element: output channels it can compute
    read_bytes_per_cycle: int  # unified memory to engine
    write_bytes_per_cycle: int
    issue_cycles: int


@dataclass(frozen=True)
class BinaryEngine:
    """XNOR gates and popcounts: input_lanes x output_lanes x pixel_lanes products of signs each cycle."""

    input_lanes: int  # bits of a word: products of one sum per cycle, a multiple of 8
    output_lanes: int  # output channels per cycle
    pixel_lanes: int  # output pixels per cycle
    input_buffer_bytes: int
    weight_buffer_bytes: int
    accumulator_buffer_bytes: int  # int32 partial sums of output_lanes channels
    read_bytes_per_cycle: int  # unified memory to engine
    write_bytes_per_cycle: int
    issue_cycles: int


@dataclass(frozen=True)
class DataMover:
    """Strided copies inside the unified memory."""

    bytes_per_cycle: int
    issue_cycles: int


@dataclass(frozen=True)
class Cpu:
    """The small CPU that runs library functions."""

    bytes_per_cycle: int
    issue_cycles: int  # interrupt, call and return


@dataclass(frozen=True)
class Gating:
    """Leakage by part at the reference voltage, and what can be switched off. What ``leakage_mw`` has beyond these
    parts is the memory's.

    ``..._wake_pj``: energy of switching a part on again, at the reference voltage.
    """

    tensor_mw: float
    vector_mw: float
    dma_mw: float
    cpu_mw: float
    sparse_mw: float
    always_on_mw: float  # clock, wake-up logic, memory ports: never off
    bank_mw: float  # one bank of the unified memory
    retention: float  # share of a bank's leakage while it keeps its content and is not read, 0..1
    wake_cycles: int  # a part is switched on so long before it is needed, and leaks
    tensor_wake_pj: float
    vector_wake_pj: float
    dma_wake_pj: float
    cpu_wake_pj: float
    sparse_wake_pj: float
    bank_wake_pj: float

    def part_mw(self, part: str) -> float:
        """part : "tensor", "vector", "dma", "cpu", "sparse", "bank" or "always_on"."""
        return getattr(self, f"{part}_mw")

    def wake_pj(self, part: str) -> float:
        """As `part_mw`; what is always on is never switched on."""
        return getattr(self, f"{part}_wake_pj")

    @property
    def logic_mw(self) -> float:
        """All but the memory."""
        return self.tensor_mw + self.vector_mw + self.dma_mw + self.cpu_mw + self.sparse_mw + self.always_on_mw


@dataclass(frozen=True)
class Sleep:
    """A state of the whole chip between inferences (`target/machine/sleep`). Its powers hold whatever the operating
    point: the clock and the engines' supply are off.

    power_mw : all but the memory: a timer, the regulator. bank_share : share of a bank's leakage (`Gating.bank_mw`)
    while it keeps its content; 0: nothing is kept, constants are loaded again. enter_us, wake_us : from the last
    instruction into the state, and from the timer to the first instruction. enter_uj, wake_uj : energy of these, all
    told. load_bytes_per_s, load_pj : of loading a byte of constants again."""

    name: str
    power_mw: float
    bank_share: float
    enter_us: float
    enter_uj: float
    wake_us: float
    wake_uj: float
    load_bytes_per_s: float
    load_pj: float

    @property
    def keeps(self) -> bool:
        """Whether the memory's content can be kept."""
        return self.bank_share > 0


@dataclass(frozen=True)
class Point:
    """One clock and voltage setting."""

    name: str
    clock_hz: float
    voltage_v: float


@dataclass(frozen=True)
class Energy:
    """pJ of one event at the chip's reference voltage, where the number is from, and how it came to this process."""

    pj: float
    source: str
    scaling: str


@dataclass(frozen=True)
class Chip:
    """Everything the compiler and the emulator know about a chip.

    process_nm : feature size. memory_bytes : the unified memory. bank_bytes : one bank of it. points : settings, the
    first is the default. reference_v : voltage of ``energy`` and ``leakage_mw``. leakage_mw : static power while
    running.
    idle_mw : total power between inferences with the memory retained, nothing switched off. gating : what can be
    (`target/machine/power`); None: nothing, as in chip files older than it. sleep : states between inferences
    (`target/machine/sleep`); empty: none, as in older files. binary : the engine for packed
    signs; None: none, as in older files. sources : text per number, by path in the file."""

    name: str
    process_nm: float
    memory_bytes: int
    bank_bytes: int
    tensor: TensorEngine
    vector: VectorEngine
    sparse: SparseEngine
    dma: DataMover
    cpu: Cpu
    points: tuple[Point, ...]
    reference_v: float
    leakage_mw: float
    idle_mw: float
    energy: dict[Event, Energy]
    sources: dict[str, str]
    gating: Gating | None = None
    sleep: tuple[Sleep, ...] = ()
    binary: BinaryEngine | None = None

    def __hash__(self) -> int:
        return hash((self.name, self.memory_bytes))

    def with_memory(self, memory_bytes: int | str) -> Chip:
        """The same chip with another size of unified memory, in bytes or as in "64KiB"; its leakage stays that of the
        chip as it is made. Errors: TargetError outside 1 to 2**32 bytes."""
        if isinstance(memory_bytes, str):
            memory_bytes = bytes_of(memory_bytes)
        memory_bytes = (
            int(memory_bytes)
            if isinstance(memory_bytes, Integral) and not isinstance(memory_bytes, bool)
            else memory_bytes
        )
        if not isinstance(memory_bytes, int) or isinstance(memory_bytes, bool) or not 1 <= memory_bytes <= 2**32:
            raise TargetError(
                f"a unified memory of {memory_bytes!r} bytes", where=self.name, required="1 to 2**32 bytes, an integer"
            )
        return replace(self, memory_bytes=memory_bytes, sources={**self.sources, "memory_bytes": "set by the user"})

    def point(self, name: str | Point | None = None) -> Point:
        """The setting called ``name``; None gives the default (the first). Errors: TargetError."""
        if isinstance(name, Point):
            return name
        for point in self.points:
            if name is None or point.name == name:
                return point
        raise TargetError(
            f"chip {self.name} has no operating point {name!r}",
            available=", ".join(p.name for p in self.points),
            remedy="give one of these, or leave the point out for the first",
        )

    def energy_pj(self, events: dict[Event, int], point: Point | str | None = None) -> float:
        """Dynamic energy of counted events at a point: sum(count * pJ) * (V / reference_v)**2."""
        voltage = self.point(point).voltage_v
        return (
            added(count * self.energy[event].pj for event, count in events.items()) * (voltage / self.reference_v) ** 2
        )

    def leakage_pj(self, cycles: float, point: Point | str | None = None) -> float:
        """Static energy of ``cycles`` at a point: leakage_mw * V / reference_v over cycles / clock (1 mW s = 1e9
        pJ)."""
        point = self.point(point)
        return self.leakage_mw * (point.voltage_v / self.reference_v) * (cycles / point.clock_hz) * 1e9

    def to_json(self) -> dict:
        """The chip file's content; ``Chip.from_json`` reads it back to an equal chip."""
        from tvm_ergo.target.chip_file import chip_to_json

        return chip_to_json(self)

    @classmethod
    def from_json(cls, data: dict, where: str = "chip") -> Chip:
        """Errors: TargetError naming the key and what was expected."""
        from tvm_ergo.target.chip_file import chip_from_json

        return chip_from_json(data, where)


def bytes_of(text: str) -> int:
    """``"64KiB"`` -> 65536 bytes. kB = 1000, KiB = 1024. Errors: TargetError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:e\d{1,3})?)\s*([kmg]?i?b?)\s*", text, re.IGNORECASE)
    number = float(match[1]) if match else 0.0
    if not match or match[2].lower() not in SIZE_UNITS or not number < 1e30:
        raise TargetError(f"{text[:80]!r} is not a size of a unified memory; write for instance 65536, 64KiB or 1.5MB")
    return int(number * SIZE_UNITS[match[2].lower()])


def chip(name: str) -> Chip:
    """A chip that ships with the product: "ergo" (= "ergo/1"), "ergo/1", "ergo/2". Errors: TargetError."""
    known = chip_names()
    name = ALIASES.get(name, name)
    if name not in known:
        raise TargetError(
            f"unknown chip {name!r}",
            available=", ".join([*ALIASES, *known]),
            remedy="load_chip(path) reads a chip file of your own",
        )
    return load_chip(CHIPS_FOLDER / f"{name.replace('/', '')}.json")


def chip_names() -> list[str]:
    """Names of the chips that ship with the product."""
    return [f"{path.stem[:-1]}/{path.stem[-1]}" for path in sorted(CHIPS_FOLDER.glob("*.json"))]


def load_chip(path) -> Chip:
    """Read a chip file. Errors: TargetError (not readable, not JSON, key missing, unknown, or of the wrong kind)."""
    try:
        data = parsed_json(read_bytes(path), constants=True)
    except (OSError, ValueError) as error:
        raise TargetError(
            f"cannot read chip file: {getattr(error, 'strerror', None) or error}",
            where=str(path),
            required="a JSON file as written by Chip.to_json",
            remedy="`tvm-ergo targets ergo/1 --json mine.json` writes one to start from",
        ) from None
    return Chip.from_json(data, str(path))
