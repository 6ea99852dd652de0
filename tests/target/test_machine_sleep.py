"""Pauses between inferences: the formula against a walk through time, and which states may be used."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_ergo.target import chip as chips
from tvm_ergo.target.chip import Sleep
from tvm_ergo.target.errors import MachineError, TargetError
from tvm_ergo.target.isa import DType, Fill, Halt, contiguous
from tvm_ergo.target.machine import power, sleep
from tvm_ergo.target.machine.trace import Trace
from tvm_ergo.target.program import Buffer, BufferKind, Program

CHIP = chips.chip("ergo/1")
POINT = CHIP.point()
states = st.builds(
    Sleep,
    name=st.just("a state"),
    power_mw=st.floats(0, 1),
    bank_share=st.sampled_from([0.0, 0.25, 1.0]),
    enter_us=st.floats(0, 200),
    enter_uj=st.floats(0, 2),
    wake_us=st.floats(0, 2000),
    wake_uj=st.floats(0, 2),
    load_bytes_per_s=st.floats(1e6, 1e9),
    load_pj=st.floats(0, 1000),
)
works = st.builds(
    lambda cycles, pj, banks, kept, loaded: power.Work(cycles, pj, None, banks, min(kept, banks), loaded),
    st.integers(1, 1_000_000),
    st.floats(0, 1e8),
    st.integers(1, 256),
    st.integers(0, 256),
    st.integers(0, 1 << 20),
)


@given(works, states, st.floats(0.01, 200))
def test_average_is_that_of_a_walk_through_one_period(work, state, rate):
    """Adds up the parts of a period one after another: inference, entering, asleep, waking, loading."""
    chip = replace(CHIP, sleep=(state,))
    found = sleep.pauses(work, chip, frames_per_s=rate)[1]
    loads_us = 0 if state.keeps else work.constant_bytes / state.load_bytes_per_s * 1e6
    left_us = 1e6 / rate - work.cycles / POINT.clock_hz * 1e6
    for part_us in (state.enter_us, state.wake_us, loads_us):
        left_us -= part_us
    if left_us < 0:
        assert found.average_mw is None and found.why_not
        return
    kept = work.kept_banks * CHIP.gating.bank_mw * state.bank_share
    uj = power.energy_pj(work, chip, gating=True) * 1e-6
    uj += state.enter_uj + state.wake_uj + left_us * 1e-3 * (state.power_mw + kept)
    if not state.keeps:
        standby_mw = power.idle_mw(work, chip, gating=True)
        wakes_pj = work.kept_banks * CHIP.gating.bank_wake_pj * (POINT.voltage_v / CHIP.reference_v) ** 2
        uj += work.constant_bytes * state.load_pj * 1e-6 + loads_us * 1e-3 * standby_mw + wakes_pj * 1e-6
    assert found.average_mw == pytest.approx(uj * rate * 1e-3)
    assert found.mj_per_day == pytest.approx(found.average_mw * 86400)
    assert found.ready_us == pytest.approx(state.wake_us + loads_us)


@given(works, st.lists(states, max_size=3), st.floats(0.01, 200))
def test_the_best_is_no_worse_than_standby_and_any_other(work, given_states, rate):
    chip = replace(CHIP, sleep=tuple(given_states))
    best = sleep.best_pause(work, chip, frames_per_s=rate)
    standby = power.average_power_mw(work, chip, frames_per_s=rate, gating=True)
    usable = [p.average_mw for p in sleep.pauses(work, chip, frames_per_s=rate) if p.average_mw is not None]
    assert best.average_mw == min(usable) <= standby


def test_what_lives_from_run_to_run_is_not_given_up():
    work = power.Work(1000, 1e6, None, 4, 2, 1000, state_bytes=64)
    found = {p.state: p for p in sleep.pauses(work, CHIP, frames_per_s=0.001)}
    assert found["deep sleep"].average_mw is None and "64 bytes live" in found["deep sleep"].why_not
    assert sleep.best_pause(work, CHIP, frames_per_s=0.001).state == "retention"
    assert found["retention"].kept_bytes == 1064
    forgetful = replace(work, state_bytes=0)
    assert sleep.best_pause(forgetful, CHIP, frames_per_s=0.001).state == "deep sleep"


def test_banks_of_states_are_kept_wherever_they_lie():
    def program(*held):
        return Program(
            chip_name="ergo/1",
            instructions=[Fill(out=contiguous(0, DType.I8, (200_000,)), value=1), Halt()],
            data=[(0, b"x" * 100)],
            inputs=[],
            outputs=[],
            memory_bytes=1 << 20,
            nodes=[],
            buffers=[Buffer(f"s{i}", addr, size, 0, 2, BufferKind.STATE) for i, (addr, size) in enumerate(held)],
        )

    def kept(*held):
        work = Trace(program(*held), CHIP).work
        return work.kept_banks, work.constant_bytes, work.state_bytes

    assert kept() == (1, 100, 0)
    assert kept((200, 50)) == (1, 100, 50)
    assert kept((65_000, 1000)) == (3, 100, 1000)  # a part of the second bank, a part of the third
    assert kept((131_072, 10), (131_100, 10)) == (2, 100, 20)


def test_a_chip_without_states_has_none():
    older = replace(CHIP, sleep=())
    work = power.Work(1000, 1e6)
    assert [p.state for p in sleep.pauses(work, older, frames_per_s=1)] == [sleep.STANDBY]
    assert sleep.pauses(work, replace(older, gating=None), frames_per_s=1) == []
    assert sleep.best_pause(work, replace(older, gating=None), frames_per_s=1) is None
    with pytest.raises(MachineError):
        sleep.pauses(work, CHIP, frames_per_s=0)


@pytest.mark.parametrize("name", ["ergo/1", "ergo/2"])
def test_chip_files_hold_them_with_their_sources(name):
    chip = chips.chip(name)
    assert [s.name for s in chip.sleep] == ["retention", "deep sleep"] and not chip.sleep[1].keeps
    assert chips.Chip.from_json(chip.to_json()) == chip
    assert all(chip.sources[f"sleep[{i}].power_mw"].startswith("assumption") for i in range(2))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda d: d["sleep"][0].pop("wake_us"), "wake_us"),
        (lambda d: d["sleep"][0].update(bank_share=1.5), "bank_share"),
        (lambda d: d["sleep"][0].update(power_mw=-1), "power_mw"),
        (lambda d: d["sleep"][1].update(name="retention"), "sleep"),
        (lambda d: d.update(sleep={}), "sleep"),
        (lambda d: d["sleep"][0].update(load_bytes_per_s=0), "load_bytes_per_s"),
    ],
)
def test_wrong_states_are_refused_by_their_key(change, key):
    data = CHIP.to_json()
    change(data)
    with pytest.raises(TargetError) as error:
        chips.Chip.from_json(data)
    assert key in str(error.value)


def test_cells():
    cell = sleep.cell_of("cr2032")
    assert cell.joule == pytest.approx(225e-3 * 3600 * 3) and cell.days(cell.joule * 1e3) == pytest.approx(1)
    own = sleep.cell_of("230 mAh @ 3.7V")
    assert (own.mah, own.volt) == (230, 3.7) and own.days(0) == float("inf")
    for text in ("", "AAAA", "3V", "-1mAh@3V", "mAh@V", "nanmAh@3V", "230mAh"):
        with pytest.raises(ValueError):
            sleep.cell_of(text)
