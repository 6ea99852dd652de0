"""What a network can be had for, as plain values: the Pareto front of memory, time and energy, one series for each way
the frame comes in."""

from __future__ import annotations

from collections.abc import Sequence

from tvm_ergo.codegen.explore import Point
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.space.bound import Bound
from tvm_ergo.report.model import Row
from tvm_ergo.target.chip import Chip

PJ_PER_UJ = 1e6


class FrontPoint(Row):
    """One plan, lowered and priced; no other of its series is better in bytes, cycles and energy."""

    how: str  # "whole layers", or what it was chosen for
    memory_bytes: int  # of the unified memory, constants + activations: what to give as the limit
    constant_bytes: int  # weights, biases, tables
    activation_bytes: int  # frame or its rows included
    cycles: int
    latency_ms: float
    energy_uj: float  # dynamic + leakage
    mac_overhead: float  # 1.0: nothing is computed twice
    weights: str  # plain, or how they are coded
    compressed: int  # tensors that wait compressed


class Series(Row):
    """The points of one way the frame comes in, by rising bytes."""

    name: str  # resident | streamed, with ", compressed" where tensors wait compressed
    bound_bytes: (
        int | None
    )  # activation bytes that no order in time or space goes below; None where tensors wait compressed
    bound_reason: str
    points: list[FrontPoint]


class Front(Row):
    """The Pareto fronts of one network on one chip."""

    schema_version: int = 1
    model: str
    chip: str
    point: str
    clock_hz: float
    chip_memory_bytes: int
    weights: str  # auto | dense | coded
    # what the objective memory allows itself, times the network's multiply-accumulates; a limit may need more
    mac_overhead_of_least_memory: float
    series: list[Series]
    notes: list[str] = []  # what was looked for and not found


def series_of(name: str, points: Sequence[Point], bound: Bound | None, clock_hz: float) -> Series:
    return Series(
        name=name,
        bound_bytes=bound.size_bytes if bound else None,
        bound_reason=bound.reason if bound else "",
        points=[
            FrontPoint(
                how=p.how,
                memory_bytes=p.memory_bytes,
                constant_bytes=p.constant_bytes,
                activation_bytes=p.activation_bytes,
                cycles=p.cycles,
                latency_ms=p.cycles / clock_hz * 1e3,
                energy_uj=p.energy_pj / PJ_PER_UJ,
                mac_overhead=p.mac_overhead,
                weights=p.weights,
                compressed=p.compressed,
            )
            for p in points
        ],
    )


def front_of(
    model: str, chip: Chip, point: str | None, weights: str, series: list[Series], notes: list[str] | None = None
) -> Front:
    at = chip.point(point)
    return Front(
        model=model,
        chip=chip.name,
        point=at.name,
        clock_hz=at.clock_hz,
        chip_memory_bytes=chip.memory_bytes,
        weights=weights,
        mac_overhead_of_least_memory=Options().mac_overhead,
        series=series,
        notes=notes or [],
    )


FRONT_HEADER = ("memory, bytes", "constants", "activations", "cycles", "ms", "uJ", "MACs", "chosen for", "weights")


def front_cells(point: FrontPoint) -> tuple[str, ...]:
    """A point's cells under `FRONT_HEADER`."""
    waiting = f", {point.compressed} tensors wait compressed" if point.compressed else ""
    return (
        f"{point.memory_bytes:,}",
        f"{point.constant_bytes:,}",
        f"{point.activation_bytes:,}",
        f"{point.cycles:,}",
        f"{point.latency_ms:,.3f}",
        f"{point.energy_uj:,.2f}",
        f"{point.mac_overhead:.2f}x",
        point.how + waiting,
        point.weights,
    )


def front_caption(front: Front, series: Series) -> str:
    """What to know of one series, in a sentence or two."""
    said = ["memory: what to give 'compile' as --memory"]
    if series.points and max(p.mac_overhead for p in series.points) > front.mac_overhead_of_least_memory:
        said.append(
            f"--objective memory computes at most {front.mac_overhead_of_least_memory:g} times the "
            f"multiply-accumulates: points above that are reached by --memory alone"
        )
    if series.bound_bytes is not None:
        said.append(
            f"no order in time or space goes below {series.bound_bytes:,} activation bytes: {series.bound_reason}"
        )
    return "; ".join(said)
