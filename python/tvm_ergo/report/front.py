"""What a network can be had for, as plain values: the Pareto front of memory, time and energy, one series for each way the frame comes in."""

from __future__ import annotations

from collections.abc import Sequence

from tvm_ergo.codegen.explore import Point
from tvm_ergo.codegen.space.bound import Bound
from tvm_ergo.report.model import Row
from tvm_ergo.target.chip import Chip

PJ_PER_UJ = 1e6


class FrontPoint(Row):
    """One plan, lowered and priced; no other of its series is better in bytes, cycles and energy."""

    how: str  # "whole layers", or what it was chosen for
    memory_bytes: int  # of the unified memory: constants + activations
    activation_bytes: int  # frame or its rows included
    cycles: int
    latency_ms: float
    energy_uj: float  # dynamic + leakage
    mac_overhead: float  # 1.0: nothing is computed twice


class Series(Row):
    """The points of one way the frame comes in, by rising bytes."""

    name: str  # resident | streamed
    bound_bytes: int  # activation bytes that no order in time or space goes below
    bound_reason: str
    points: list[FrontPoint]


class Front(Row):
    """The Pareto fronts of one network on one chip."""

    model: str
    chip: str
    point: str
    clock_hz: float
    chip_memory_bytes: int
    constant_bytes: int
    series: list[Series]


def series_of(name: str, points: Sequence[Point], bound: Bound, clock_hz: float) -> Series:
    return Series(name=name, bound_bytes=bound.size_bytes, bound_reason=bound.reason, points=[
        FrontPoint(how=p.how, memory_bytes=p.memory_bytes, activation_bytes=p.activation_bytes, cycles=p.cycles, latency_ms=p.cycles / clock_hz * 1e3,
                   energy_uj=p.energy_pj / PJ_PER_UJ, mac_overhead=p.mac_overhead) for p in points])


def front_of(model: str, chip: Chip, point: str | None, constant_bytes: int, series: list[Series]) -> Front:
    at = chip.point(point)
    return Front(model=model, chip=chip.name, point=at.name, clock_hz=at.clock_hz, chip_memory_bytes=chip.memory_bytes, constant_bytes=constant_bytes,
                 series=series)
