"""Power gating as the tuner counts on it: what a part takes by itself, and less than which it takes in no network.

A part's engines are switched on and off as those of a Program of its own; in a network an engine may stay on from one
part to the next, so that a network takes at most `waking_pj` a part less than the sum. Memory leaks by the banks of the
part alone; what is switched on of it for an inference, and kept between two, is known of a network only
(`figures.Budget`, `figures.of_network`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tvm_ergo.target.chip import Chip, Point
from tvm_ergo.target.isa import Engine, Event
from tvm_ergo.target.machine.power import GATED_ENGINES, Work, energy_pj, leaked_pj
from tvm_ergo.target.sums import added


def banks_of(size_bytes: float, chip: Chip) -> int:
    return int(-(-size_bytes // chip.bank_bytes))


def part_pj(
    cycles: int,
    events: Mapping[Event, float],
    busy: Mapping[Engine, Sequence[tuple[int, int]]],
    memory_bytes: int,
    chip: Chip,
) -> dict[str, float]:
    """Energy of a part by the name of the operating point. busy : when each engine works, ``(start, end)`` in order."""
    banks = banks_of(memory_bytes, chip)
    spans = {engine: np.array(found, np.int64) for engine, found in busy.items() if found}
    work = Work(
        cycles, added(chip.energy[event].pj * count for event, count in events.items()), (spans,), banks, banks
    )  # kept: no bank is switched on
    return {point.name: energy_pj(work, chip, point, gating=True) for point in chip.points}


def least_pj(
    cycles: float,
    events: Mapping[Event, float],
    busy_cycles: Sequence[float],
    memory_bytes: int,
    chip: Chip,
    point: Point,
) -> float:
    """What no part of these counts is below in a network, if it takes so many cycles: engines leak while they work,
    banks and what is never off all the time.
    busy_cycles : by the number of the engine."""
    parts = chip.gating
    engines = added(parts.part_mw(engine.name.lower()) * float(busy_cycles[engine]) for engine in GATED_ENGINES)
    always = (parts.always_on_mw + banks_of(memory_bytes, chip) * parts.bank_mw) * cycles
    return chip.energy_pj(events, point) + leaked_pj(engines + always, chip, point)


def waking_pj(chip: Chip, point: Point) -> float:
    """Of switching every engine on once."""
    parts, squared = chip.gating, (point.voltage_v / chip.reference_v) ** 2
    return added(
        parts.wake_pj(name) * squared + leaked_pj(parts.part_mw(name) * parts.wake_cycles, chip, point)
        for name in (e.name.lower() for e in GATED_ENGINES)
    )
