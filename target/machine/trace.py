"""What a run costs: cycles, energy and bytes over time, per instruction, node and engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tvm_ergo.target.chip import Chip, Point
from tvm_ergo.target.isa import Engine
from tvm_ergo.target.isa.cost import Event
from tvm_ergo.target.machine import power
from tvm_ergo.target.machine.peak import WINDOW_S, Peak, peak_power
from tvm_ergo.target.machine.timeline import Timeline, simulate
from tvm_ergo.target.program import BufferKind, Node, Program
from tvm_ergo.target.sums import added

PLACES = {
    Event.LOCAL_READ_BYTE: "local buffers",
    Event.LOCAL_WRITE_BYTE: "local buffers",
    Event.LUT_READ: "local buffers",
    Event.SRAM_READ_BYTE: "memory reads",
    Event.SRAM_WRITE_BYTE: "memory writes",
    Event.INSTRUCTION: "control",
}
ARITHMETIC = "arithmetic"
"""Where an event takes its energy; what `PLACES` has not is arithmetic."""


@dataclass(frozen=True)
class TraceEntry:
    """One executed instruction. ``node`` indexes ``Program.nodes``; energy is dynamic only."""

    index: int
    mnemonic: str
    node: int
    engine: Engine
    start_cycle: int
    end_cycle: int
    events: dict[Event, int]
    energy_pj: float

    @property
    def cycles(self) -> int:
        return self.end_cycle - self.start_cycle


@dataclass(frozen=True)
class NodeTotal:
    """All instructions of one node: busy cycles (summed over engines), dynamic energy, events, and the span they lie
    in."""

    node: int
    name: str
    op: str
    layer: str
    cycles: int
    start_cycle: int
    end_cycle: int
    energy_pj: float
    events: dict[Event, int]

    @property
    def macs(self) -> int:
        return self.events.get(Event.MAC_8X8, 0)


class Trace:
    """The cost of one inference of ``program`` on ``chip`` at ``point``.

    Without ``timeline`` it is what is expected: exact for instructions whose cost depends on no data, which are all but
    SPMV; a run's trace has what that run took.
    timeline : or a function that gives it, called when it is first needed.
    """

    def __init__(
        self,
        program: Program,
        chip: Chip,
        point: Point | str | None = None,
        timeline: Callable[[], Timeline] | None = None,
    ):
        self.program, self.chip, self.point, self._timeline = program, chip, chip.point(point), timeline
        if timeline is None:
            self.timeline = simulate(program, chip)

    @cached_property
    def timeline(self) -> Timeline:
        return self._timeline()

    @cached_property
    def entries(self) -> tuple[TraceEntry, ...]:
        rows = zip(
            self.program.instructions, self.timeline.starts_cycles, self.timeline.ends_cycles, self.timeline.costs
        )
        return tuple(
            TraceEntry(
                i,
                ins.MNEMONIC,
                ins.node,
                ins.engine,
                start,
                end,
                cost.events,
                self.chip.energy_pj(cost.events, self.point),
            )
            for i, (ins, start, end, cost) in enumerate(rows)
        )

    # ---- time ------------------------------------------------------------------------------------------------------
    @property
    def cycles(self) -> int:
        return self.timeline.cycles

    @property
    def seconds(self) -> float:
        return self.cycles / self.point.clock_hz

    @property
    def inferences_per_s(self) -> float:
        """One inference at a time; infinite for a program that takes no cycle."""
        return 1 / self.seconds if self.cycles else float("inf")

    @cached_property
    def busy_cycles(self) -> dict[Engine, int]:
        """Cycles each engine that has instructions is busy."""
        busy: Counter = Counter()
        for entry in self.entries:
            busy[entry.engine] += entry.cycles
        return dict(sorted(busy.items()))

    @property
    def occupancy(self) -> dict[Engine, float]:
        """Busy share of the whole run, per engine, 0..1."""
        return {engine: busy / self.cycles if self.cycles else 0.0 for engine, busy in self.busy_cycles.items()}

    @property
    def macs(self) -> int:
        return self.events.get(Event.MAC_8X8, 0)

    @property
    def mac_utilisation(self) -> float:
        """MACs of the run / (cycles of the run * the tensor engine's peak), 0..1."""
        return self.macs / (self.cycles * self.chip.tensor.macs_per_cycle) if self.cycles else 0.0

    def entry_utilisation(self, entry: TraceEntry) -> float:
        """MACs of one instruction / (its cycles * the tensor engine's peak); 0 for the other engines."""
        return (
            entry.events.get(Event.MAC_8X8, 0) / (entry.cycles * self.chip.tensor.macs_per_cycle)
            if entry.cycles
            else 0.0
        )

    # ---- energy ----------------------------------------------------------------------------------------------------
    @cached_property
    def events(self) -> dict[Event, int]:
        """How often each event happens."""
        return _sum_events(self.entries)

    @cached_property
    def energy_by_event_pj(self) -> dict[Event, float]:
        """Dynamic energy per event class."""
        return {event: self.chip.energy_pj({event: count}, self.point) for event, count in self.events.items()}

    @cached_property
    def energy_by_engine_pj(self) -> dict[Engine, float]:
        """Dynamic energy per engine."""
        energy: Counter = Counter()
        for entry in self.entries:
            energy[entry.engine] += entry.energy_pj
        return dict(sorted(energy.items()))

    @property
    def dynamic_pj(self) -> float:
        return added(self.energy_by_engine_pj.values())

    @property
    def leakage_pj(self) -> float:
        """Static energy while the inference runs."""
        return self.chip.leakage_pj(self.cycles, self.point)

    @property
    def energy_pj(self) -> float:
        """Energy of one inference: dynamic and leakage."""
        return self.dynamic_pj + self.leakage_pj

    @cached_property
    def energy_split_pj(self) -> dict[Engine, dict[str, float]]:
        """Dynamic energy per engine and place: "arithmetic", "local buffers", "memory reads" and "memory writes" (of
        the unified memory), "control"."""
        split: dict[Engine, Counter] = {}
        for entry in self.entries:
            places = split.setdefault(entry.engine, Counter())
            for event, count in entry.events.items():
                places[PLACES.get(event, ARITHMETIC)] += self.chip.energy_pj({event: count}, self.point)
        return {engine: dict(places) for engine, places in sorted(split.items())}

    @cached_property
    def work(self) -> power.Work:
        """What average power at any point and rate follows from (`target.machine.power`)."""
        return power.work_of(self.program, self.chip, self.timeline)

    def leakage_by_part_pj(self, gating: bool = False) -> dict[str, float]:
        """Static energy while the inference runs, by engine name, "memory" and "always on"; with ``gating`` what is not
        switched off, and switching on."""
        return power.leakage_pj(self.work, self.chip, self.point, gating)

    def power_mw(self, frames_per_s: float, gating: bool = False) -> float:
        """Average power at a frame rate: the inferences' energy, and the power between them (idle_mw; with ``gating``
        what is not switched off).

        Errors: MachineError when the rate is not positive or higher than ``inferences_per_s``.
        """
        return power.average_power_mw(self.work, self.chip, self.point, frames_per_s=frames_per_s, gating=gating)

    def peak_power(self, window_s: float = WINDOW_S, frames_per_s: float | None = None, gating: bool = False) -> Peak:
        """The worst window of so many seconds; without a rate, inferences follow one another without a pause."""
        return peak_power([self], window_s=window_s, frames_per_s=frames_per_s, gating=gating)

    # ---- nodes and memory ------------------------------------------------------------------------------------------
    @cached_property
    def by_node(self) -> tuple[NodeTotal, ...]:
        """One total per node that has instructions, in order of first execution."""
        groups: dict[int, list[TraceEntry]] = {}
        for entry in self.entries:
            groups.setdefault(entry.node, []).append(entry)
        totals = []
        for number, entries in groups.items():
            node = self.program.nodes[number] if number < len(self.program.nodes) else Node("", "", "")
            totals.append(
                NodeTotal(
                    number,
                    node.name,
                    node.op,
                    node.layer,
                    sum(e.cycles for e in entries),
                    min(e.start_cycle for e in entries),
                    max(e.end_cycle for e in entries),
                    added(e.energy_pj for e in entries),
                    _sum_events(entries),
                )
            )
        return tuple(totals)

    @cached_property
    def bytes_over_time(self) -> dict[BufferKind, np.ndarray]:
        """Per kind, int64[instructions]: bytes of the memory map alive while each instruction runs."""
        count = len(self.program.instructions)
        steps = {kind: np.zeros(count + 1, np.int64) for kind in BufferKind}
        for buffer in self.program.buffers:
            steps[buffer.kind][min(buffer.first, count)] += buffer.size_bytes
            steps[buffer.kind][min(buffer.last, count)] -= buffer.size_bytes
        return {kind: step.cumsum()[:count] for kind, step in steps.items()}

    @property
    def peak_bytes(self) -> int:
        """The most bytes alive at once."""
        return int(sum(self.bytes_over_time.values()).max(initial=0))

    # ---- export ----------------------------------------------------------------------------------------------------
    def to_json(self) -> dict:
        """Plain dicts, lists, strings and numbers; units in the keys."""
        return {
            "chip": self.chip.name,
            "point": self.point.name,
            "clock_hz": self.point.clock_hz,
            "voltage_v": self.point.voltage_v,
            "cycles": self.cycles,
            "seconds": self.seconds,
            "inferences_per_s": self.inferences_per_s if self.cycles else None,
            "macs": self.macs,
            "mac_utilisation": self.mac_utilisation,
            "energy_pj": self.energy_pj,
            "dynamic_pj": self.dynamic_pj,
            "leakage_pj": self.leakage_pj,
            "idle_mw": self.chip.idle_mw,
            "energy_by_event_pj": {e.value: pj for e, pj in self.energy_by_event_pj.items()},
            "energy_by_engine_pj": {e.name: pj for e, pj in self.energy_by_engine_pj.items()},
            "energy_split_pj": {e.name: places for e, places in self.energy_split_pj.items()},
            "leakage_by_part_pj": self.leakage_by_part_pj(),
            "leakage_by_part_gated_pj": self.leakage_by_part_pj(gating=True),
            "events": _event_names(self.events),
            "busy_cycles": {e.name: c for e, c in self.busy_cycles.items()},
            "occupancy": {e.name: o for e, o in self.occupancy.items()},
            "peak_bytes": self.peak_bytes,
            "bytes_over_time": {kind.name.lower(): series.tolist() for kind, series in self.bytes_over_time.items()},
            "nodes": [
                {
                    "node": t.node,
                    "name": t.name,
                    "op": t.op,
                    "layer": t.layer,
                    "cycles": t.cycles,
                    "start_cycle": t.start_cycle,
                    "end_cycle": t.end_cycle,
                    "energy_pj": t.energy_pj,
                    "macs": t.macs,
                    "events": _event_names(t.events),
                }
                for t in self.by_node
            ],
            "instructions": [
                {
                    "index": e.index,
                    "mnemonic": e.mnemonic,
                    "node": e.node,
                    "engine": e.engine.name,
                    "start_cycle": e.start_cycle,
                    "end_cycle": e.end_cycle,
                    "energy_pj": e.energy_pj,
                    "events": _event_names(e.events),
                }
                for e in self.entries
            ],
        }

    def to_chrome(self) -> dict:
        """Chrome / Perfetto trace events: one thread per engine, complete events in microseconds, live bytes as a
        counter."""
        microseconds = 1e6 / self.point.clock_hz
        events = [
            {"name": "thread_name", "ph": "M", "pid": 0, "tid": int(engine), "args": {"name": engine.name}}
            for engine in self.busy_cycles
        ]
        for entry in self.entries:
            node = self.program.nodes[entry.node].name if entry.node < len(self.program.nodes) else ""
            events.append(
                {
                    "name": node or entry.mnemonic,
                    "cat": entry.mnemonic,
                    "ph": "X",
                    "pid": 0,
                    "tid": int(entry.engine),
                    "ts": entry.start_cycle * microseconds,
                    "dur": entry.cycles * microseconds,
                    "args": {
                        "instruction": entry.index,
                        "mnemonic": entry.mnemonic,
                        "cycles": entry.cycles,
                        "energy_pj": entry.energy_pj,
                        **_event_names(entry.events),
                    },
                }
            )
            events.append(
                {
                    "name": "live bytes",
                    "ph": "C",
                    "pid": 0,
                    "ts": entry.start_cycle * microseconds,
                    "args": {
                        kind.name.lower(): int(series[entry.index]) for kind, series in self.bytes_over_time.items()
                    },
                }
            )
        return {
            "traceEvents": events,
            "displayTimeUnit": "ns",
            "otherData": {"chip": self.chip.name, "point": self.point.name},
        }


def _sum_events(entries) -> dict[Event, int]:
    events: Counter = Counter()
    for entry in entries:
        events.update(entry.events)
    return dict(events)


def _event_names(events: dict[Event, int]) -> dict[str, int]:
    return {event.value: count for event, count in events.items()}
