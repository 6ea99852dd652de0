"""Peak power: the most energy in any window of a given length, over the length.

An instruction's energy is spread evenly over its cycles (one that takes none: over one cycle), so energy over time is
piecewise linear, and so is the energy in a window by where it begins: the most is where the window begins or ends at a
corner. Inferences follow one another, at a frame rate or without a pause (the worst case), so time is a circle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tvm_ergo.target.errors import MachineError
from tvm_ergo.target.machine.power import (
    ALWAYS_ON,
    MEMORY,
    PJ_PER_S_IN_MW,
    average_power_mw,
    idle_mw,
    leakage_pj,
    on_spans,
    together,
)
from tvm_ergo.target.sums import added

if TYPE_CHECKING:
    from tvm_ergo.target.machine.trace import Trace

WINDOW_S = 100e-6
"""Assumption: what a small converter's output capacitor and the battery behind it do not smooth any more."""


@dataclass(frozen=True, eq=False)
class Spans:
    """Things that take energy evenly over time. begins, ends : float64[n], in any unit of time, ends > begins; pj :
    float64[n]."""

    begins: np.ndarray
    ends: np.ndarray
    pj: np.ndarray

    @staticmethod
    def joined(parts: Sequence[Spans]) -> Spans:
        return Spans(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("begins", "ends", "pj")))

    def moved(self, offset: float) -> Spans:
        return Spans(self.begins + offset, self.ends + offset, self.pj)


def most_in_window(spans: Spans, window: float, period: float) -> tuple[float, float]:
    """``(pJ, begin)``: the most energy in a window, where ``spans`` repeat every ``period``, and where in the period it
    begins.

    Errors: MachineError for a window or period that is not positive and finite.
    """
    if not 0 < window < float("inf") or not 0 < period < float("inf"):
        raise MachineError(f"a window of {window!r} in a period of {period!r}", required="positive, finite lengths")
    whole, rest = divmod(window, period)
    times, power = _power_steps(spans, period)
    corners = np.append(times, period)
    total = np.concatenate([[0.0], np.cumsum(power * np.diff(corners))])

    def until(t):
        turns = np.floor(t / period)
        return turns * total[-1] + np.interp(t - turns * period, corners, total)

    begins = np.concatenate([corners, (corners - rest) % period])
    energy = until(begins + rest) - until(begins)
    worst = int(energy.argmax())
    return float(whole * total[-1] + energy[worst]), float(begins[worst])


def _power_steps(spans: Spans, period: float) -> tuple[np.ndarray, np.ndarray]:
    """Corners in [0, period) and the power from each to the next, all spans folded onto the circle."""
    level = spans.pj / (spans.ends - spans.begins)
    begins, ends = spans.begins % period, spans.ends % period
    constant = (
        level * (np.floor(spans.ends / period) - np.floor(spans.begins / period))
    ).sum()  # power at time 0 of what goes round
    times, where = np.unique(np.concatenate([[0.0], begins, ends]), return_inverse=True)
    change = np.zeros(times.size)
    np.add.at(change, where.ravel(), np.concatenate([[constant], level, -level]))
    return times, np.cumsum(change)


@dataclass(frozen=True)
class Peak:
    """power_mw : the most average power in a window of ``window_s`` seconds; begin_s : where in the period it
    begins."""

    power_mw: float
    window_s: float
    begin_s: float


def peak_power(
    traces: Sequence[Trace], *, window_s: float = WINDOW_S, frames_per_s: float | None = None, gating: bool = False
) -> Peak:
    """Of a network whose programs run one after another. frames_per_s : None: inferences follow one another without a
    pause.

    Errors: MachineError for a window that is not positive, or a rate that is not, or is more than the chip can run.
    """
    at, chip = traces[0].point, traces[0].chip
    work = together(trace.work for trace in traces)
    period = float(max(work.cycles, 1))
    spans = _spans(traces, gating)
    if frames_per_s is not None:
        average_power_mw(work, chip, at, frames_per_s=frames_per_s)  # refuses what cannot be reached
        period = max(period, at.clock_hz / frames_per_s)
        pause = period - work.cycles
        if pause > 0:
            spans = Spans.joined(
                [spans, _span(work.cycles, period, idle_mw(work, chip, gating) * pause / at.clock_hz / PJ_PER_S_IN_MW)]
            )
    if not 0 < window_s < float("inf"):
        raise MachineError(f"a window of {window_s!r} s", required="a positive, finite length")
    pj, begin = most_in_window(spans, window_s * at.clock_hz, period)
    return Peak(pj / window_s * PJ_PER_S_IN_MW, window_s, begin / at.clock_hz)


def _spans(traces: Sequence[Trace], gating: bool) -> Spans:
    """Everything that takes energy in an inference, in cycles from its start."""
    parts, offset = [], 0
    for trace in traces:
        begins = np.array([entry.start_cycle for entry in trace.entries], np.float64)
        ends = np.maximum([entry.end_cycle for entry in trace.entries], begins + 1)
        parts.append(Spans(begins + offset, ends + offset, np.array([entry.energy_pj for entry in trace.entries])))
        parts += [part.moved(offset) for part in _leaking(trace, gating)]
        offset += trace.cycles
    return Spans.joined(parts)


def _leaking(trace: Trace, gating: bool) -> list[Spans]:
    """Leakage over time, and what switching on takes, in the cycles before a part is needed."""
    chip, work, at = trace.chip, trace.work, trace.point
    leaked = leakage_pj(work, chip, at, gating)
    if not gating or chip.gating is None:
        return [_span(0, max(trace.cycles, 1), added(leaked.values()))]
    parts, wake = chip.gating, max(chip.gating.wake_cycles, 1)
    found = [_span(0, max(trace.cycles, 1), leaked[MEMORY] + leaked[ALWAYS_ON])]
    for engine, busy in work.busy[0].items():
        on = on_spans(busy, engine, chip, at)
        wake_pj = parts.wake_pj(engine.name.lower()) * (at.voltage_v / chip.reference_v) ** 2
        length = on[:, 1] - on[:, 0]
        share = (leaked[engine.name] - wake_pj * len(on)) / max(float(length.sum()), 1.0)
        found.append(Spans(on[:, 0], on[:, 1], share * length))
        found.append(Spans(on[:, 0], on[:, 0] + wake, np.full(len(on), wake_pj)))
    return found


def _span(begin: float, end: float, pj: float) -> Spans:
    return Spans(np.array([float(begin)]), np.array([float(end)]), np.array([float(pj)]))
