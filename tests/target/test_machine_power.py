"""Average power: against sums over single cycles, and against the trace."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.target.chip import Chip, chip
from tvm_ergo.target.errors import MachineError
from tvm_ergo.target.isa import DType, Engine, Fill, Halt, contiguous
from tvm_ergo.target.machine import Trace, power
from tvm_ergo.target.program import Program

CHIP = chip("ergo/1")
POINTS = st.sampled_from([p.name for p in CHIP.points])


@st.composite
def busy(draw, longest=30_000):
    """Spans of an engine: int64[n, 2]."""
    steps = draw(st.lists(st.tuples(st.integers(0, longest), st.integers(1, 400)), min_size=1, max_size=6))
    at, spans = 0, []
    for gap, length in steps:
        spans.append((at + gap, at + gap + length))
        at = spans[-1][1]
    return np.array(spans, np.int64)


def works(cycles=200_000):
    return st.builds(
        lambda parts, pj, banks, kept: power.Work(cycles, pj, (parts,), banks, min(kept, banks)),
        st.dictionaries(st.sampled_from(power.GATED_ENGINES), busy()),
        st.floats(0, 1e9),
        st.integers(0, 300),
        st.integers(0, 300),
    )


@settings(max_examples=100, deadline=None)
@given(busy(), st.sampled_from(power.GATED_ENGINES), POINTS)
def test_an_engine_is_switched_off_exactly_where_it_pays(spans, engine, name):
    """Slow: every pause, cycle by cycle: on for all of it, or off until it has to be on again."""
    at, parts = CHIP.point(name), CHIP.gating
    per_cycle = parts.part_mw(engine.name.lower()) * 1e9 * at.voltage_v / CHIP.reference_v / at.clock_hz
    wake = parts.wake_pj(engine.name.lower()) * (at.voltage_v / CHIP.reference_v) ** 2
    expected = wake + per_cycle * (parts.wake_cycles + sum(int(end - begin) for begin, end in spans))
    for pause in spans[1:, 0] - spans[:-1, 1]:
        expected += min(pause * per_cycle, wake + parts.wake_cycles * per_cycle)
    work = power.Work(int(spans[-1, 1]), 0.0, ({engine: spans},), 0, 0)
    assert power.leakage_pj(work, CHIP, name, gating=True)[engine.name] == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(works(), POINTS, st.floats(0.5, 400))
def test_power_is_the_energy_of_a_second(work, name, rate):
    at, parts = CHIP.point(name), CHIP.gating
    seconds = work.cycles / at.clock_hz
    dynamic = work.dynamic_pj * (at.voltage_v / 0.9) ** 2
    plain = (dynamic * 1e-9 + CHIP.leakage_mw * at.voltage_v / 0.9 * seconds) * rate + CHIP.idle_mw * (
        1 - rate * seconds
    )
    assert power.average_power_mw(work, CHIP, name, frames_per_s=rate) == pytest.approx(plain, rel=1e-4)
    gated = power.leakage_pj(work, CHIP, name, gating=True)
    assert gated["memory"] == pytest.approx(
        work.banks * parts.bank_mw * at.voltage_v / 0.9 * seconds * 1e9
        + (work.banks - work.kept_banks) * parts.bank_wake_pj * (at.voltage_v / 0.9) ** 2
    )
    between = CHIP.idle_mw - CHIP.leakage_mw + parts.always_on_mw + work.kept_banks * parts.bank_mw / 2
    assert power.idle_mw(work, CHIP, gating=True) == pytest.approx(between)
    assert power.average_power_mw(work, CHIP, name, frames_per_s=rate, gating=True) == pytest.approx(
        (dynamic + sum(gated.values())) * rate * 1e-9 + between * (1 - rate * seconds)
    )


@settings(max_examples=60, deadline=None)
@given(works(), st.floats(1, 4000), st.floats(0, 50), st.booleans())
def test_feasible_points_are_those_within_rate_and_budget(work, rate, budget, gating):
    expected = []
    for point in CHIP.points:
        try:
            expected.append((power.average_power_mw(work, CHIP, point, frames_per_s=rate, gating=gating), point.name))
        except MachineError:
            continue
    found = power.feasible_points(work, CHIP, rate, budget, gating)
    assert sorted((row.power_mw, row.point.name) for row in found) == sorted(
        row for row in expected if row[0] <= budget
    )
    assert [row.power_mw for row in found] == sorted(row.power_mw for row in found)
    assert len(power.feasible_points(work, CHIP, rate, gating=gating)) == len(expected)
    for row in power.every_point(work, CHIP, rate, gating):
        assert row.energy_pj == power.energy_pj(work, CHIP, row.point, gating) and row.latency_s == pytest.approx(
            1 / row.inferences_per_s
        )
        assert (
            row.inferences_per_s_per_w
            == pytest.approx(row.inferences_per_s / (row.energy_pj * 1e-12 * row.inferences_per_s))
            or not row.energy_pj
        )


@settings(max_examples=30, deadline=None)
@given(works())
def test_programs_of_one_network_add_up(work):
    twice = power.together([work, work])
    assert power.energy_pj(twice, CHIP, "low") == pytest.approx(2 * power.energy_pj(work, CHIP, "low"))
    assert power.energy_pj(twice, CHIP, "low", gating=True) == pytest.approx(
        2 * power.energy_pj(work, CHIP, "low", gating=True)
        - (work.banks - work.kept_banks) * CHIP.gating.bank_wake_pj * (0.65 / 0.9) ** 2
    )
    assert power.idle_mw(twice, CHIP, gating=True) == power.idle_mw(work, CHIP, gating=True)


def test_work_of_a_program_and_of_figures_alone():
    fills = [Fill(out=contiguous(address, DType.I8, (size,)), value=1) for address, size in ((0, 5000), (70_000, 10))]
    program = Program(
        chip_name="ergo/1",
        instructions=[*fills, Halt()],
        data=[(100, b"x" * 32768)],
        inputs=[],
        outputs=[],
        memory_bytes=1 << 20,
        nodes=[],
    )
    trace = Trace(program, CHIP, "eco")
    work = trace.work
    assert (work.cycles, work.banks, work.kept_banks) == (trace.cycles, 3, 2)
    assert list(work.busy[0]) == [Engine.DMA] and work.busy[0][Engine.DMA].tolist() == [
        [e.start_cycle, e.end_cycle] for e in trace.entries[:2]
    ]
    assert power.dynamic_pj(work, CHIP, "eco") == pytest.approx(trace.dynamic_pj)
    alone = power.work_at(trace.cycles, trace.dynamic_pj, CHIP, "eco", memory_bytes=70_010, constant_bytes=32868)
    assert (alone.banks, alone.kept_banks, alone.busy) == (3, 2, None)
    assert power.average_power_mw(alone, CHIP, "low", frames_per_s=30) == pytest.approx(
        power.average_power_mw(work, CHIP, "low", frames_per_s=30)
    )
    assert power.energy_pj(alone, CHIP, gating=True) > power.energy_pj(work, CHIP, gating=True)
    assert power.together([alone, work]).busy is None


def test_a_chip_that_gates_nothing():
    old = dataclasses.replace(CHIP, gating=None)
    work = power.Work(1000, 5.0)
    assert power.leakage_pj(work, old, gating=True) == {"chip": old.leakage_pj(1000)}
    assert power.average_power_mw(work, old, frames_per_s=30, gating=True) == power.average_power_mw(
        work, old, frames_per_s=30
    )


def test_rates_that_cannot_be_met():
    work = power.Work(1_000_000, 5.0)
    for rate in (501, 0, -3, float("nan")):
        with pytest.raises(MachineError, match="frames per second"):
            power.average_power_mw(work, CHIP, frames_per_s=rate)
    with pytest.raises(MachineError, match="frames per second"):
        power.every_point(work, CHIP, 0)
    assert [row.power_mw is None for row in power.every_point(work, CHIP, 300)] == [False, True, True]
    assert Chip.from_json(CHIP.to_json()) == CHIP
