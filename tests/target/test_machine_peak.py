"""The worst window: against windows tried at every cycle, and sums over single cycles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.target.errors import MachineError
from tvm_ergo.target.machine import Trace, power
from tvm_ergo.target.machine.peak import Spans, most_in_window, peak_power

from .test_machine_trace import CHIP, programs, small


def by_cycle(spans, period):
    """pJ in each cycle of the period, one span and one cycle after another."""
    energy = np.zeros(period)
    for begin, end, pj in zip(spans.begins, spans.ends, spans.pj):
        for cycle in range(int(begin), int(end)):
            energy[cycle % period] += pj / (end - begin)
    return energy


def slow_most(spans, window, period):
    energy = by_cycle(spans, period)
    return max(sum(energy[(begin + i) % period] for i in range(window)) for begin in range(period))


SPAN = st.tuples(st.integers(-8, 40), st.integers(1, 30), st.floats(0, 100))


@settings(max_examples=150, deadline=None)
@given(st.lists(SPAN, min_size=1, max_size=8), st.integers(1, 60), st.integers(1, 40))
def test_most_in_a_window_equals_trying_every_begin(rows, window, period):
    spans = Spans(
        np.array([r[0] for r in rows], float),
        np.array([r[0] + r[1] for r in rows], float),
        np.array([r[2] for r in rows]),
    )
    most, begin = most_in_window(spans, window, period)
    assert most == pytest.approx(slow_most(spans, window, period), abs=1e-6)
    energy = by_cycle(spans, period)
    assert sum(energy[(round(begin) + i) % period] for i in range(window)) == pytest.approx(most, abs=1e-6)


def test_a_window_shorter_than_a_cycle():
    spans = Spans(np.array([0.0, 4.0]), np.array([4.0, 5.0]), np.array([8.0, 7.0]))
    assert most_in_window(spans, 0.5, 10) == pytest.approx((3.5, 4.0))
    assert most_in_window(spans, 25, 10)[0] == pytest.approx(2 * 15 + 15)


@settings(max_examples=40, deadline=None)
@given(programs(), st.sampled_from([p.name for p in CHIP.points]), st.integers(1, 3000))
def test_a_trace_against_its_entries(compiled, point, window):
    trace = Trace(compiled, CHIP, point)
    hz = trace.point.clock_hz
    energy = np.full(trace.cycles, CHIP.leakage_pj(1, point))
    for entry in trace.entries:
        for cycle in range(entry.start_cycle, entry.end_cycle):
            energy[cycle] += entry.energy_pj / entry.cycles
    turns = np.concatenate([energy] * (window // trace.cycles + 2))
    total = np.concatenate([[0.0], np.cumsum(turns)])
    worst = max(total[begin + window] - total[begin] for begin in range(trace.cycles))
    found = trace.peak_power(window / hz)
    assert found.power_mw == pytest.approx(worst * 1e-9 * hz / window, rel=1e-4)
    assert 0 <= found.begin_s <= trace.seconds


@settings(max_examples=40, deadline=None)
@given(programs(), st.sampled_from([p.name for p in CHIP.points]), st.booleans(), st.floats(0.01, 1))
def test_the_mean_of_a_whole_period_is_the_average(compiled, point, gating, share):
    trace = Trace(compiled, CHIP, point)
    rate = share * trace.inferences_per_s
    average = trace.power_mw(rate, gating)
    assert trace.peak_power(1 / rate, rate, gating).power_mw == pytest.approx(average, rel=1e-4)
    assert trace.peak_power(1e-6, rate, gating).power_mw >= average * (1 - 1e-4)


def test_programs_one_after_another():
    trace = Trace(small(), CHIP)
    both = peak_power([trace, trace], window_s=2 * trace.seconds)
    assert both.power_mw == pytest.approx(trace.energy_pj * 1e-9 / trace.seconds, rel=1e-4)
    assert both.power_mw == pytest.approx(
        power.energy_pj(power.together([trace.work] * 2), CHIP) * 1e-9 / (2 * trace.seconds)
    )


def test_windows_and_rates_that_are_refused():
    trace = Trace(small(), CHIP)
    for window in (0, -1, float("nan"), float("inf")):
        with pytest.raises(MachineError, match="window"):
            trace.peak_power(window)
    with pytest.raises(MachineError, match="frames per second"):
        trace.peak_power(frames_per_s=2 * trace.inferences_per_s)
