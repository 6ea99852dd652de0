"""The state that a pause between inferences is spent in, and what a battery sees.

The chip runs an inference with its idle parts switched off (`power`, with gating), then spends the pause in one of the
chip file's states (`target.chip.Sleep`), or in standby: engines off, clock and always-on part running, which is what
`power.idle_mw` with gating gives. In a state

- banks with constants, or with what lives from one run to the next, keep their content and leak ``bank_share`` of what
  they leak while on; all others are off;
- a state that keeps nothing loads the constants again before the next inference, and is none for a network that keeps
  states;
- entering, waking and loading take time out of the pause, and energy. While a part is loaded, the chip is awake:
  standby's power comes on top of the loading's own.

The chip wakes ahead of the next inference, which therefore starts as early as ever; what comes unannounced waits for
``wake_us`` and the loading."""

from __future__ import annotations

from dataclasses import dataclass

from tvm_ergo.target.chip import Chip, Gating, Point, Sleep
from tvm_ergo.target.machine import power
from tvm_ergo.target.machine.power import Work

STANDBY = "standby"
"""Name of the state without sleep: parts are switched off, the chip is awake."""
S_PER_DAY = 86_400
UJ_PER_S_IN_MW = 1e-3


@dataclass(frozen=True)
class Pause:
    """A way to spend the pauses at a frame rate.

    state : name. average_mw : of everything, inferences included; None where the state cannot be used, and why_not says
    why. pause_mw : while it lasts. kept_bytes : constants and states that survive it; kept_banks : banks they hold.
    ready_us : from the event to the first instruction, with loading."""

    state: str
    average_mw: float | None
    pause_mw: float
    kept_banks: int
    kept_bytes: int
    ready_us: float
    why_not: str = ""

    @property
    def mj_per_day(self) -> float | None:
        """Energy of a day, mJ."""
        return None if self.average_mw is None else self.average_mw * S_PER_DAY


def pauses(work: Work, chip: Chip, point: Point | str | None = None, *, frames_per_s: float) -> list[Pause]:
    """Standby and all states of the chip, as its file lists them; none where nothing can be switched off.

    Errors: MachineError for a rate that is not positive or more than the chip can run.
    """
    if chip.gating is None:
        return []
    average = power.average_power_mw(work, chip, point, frames_per_s=frames_per_s, gating=True)
    kept_banks, kept_bytes = power.banks_of(work, chip)[1], (work.constant_bytes or 0) + work.state_bytes
    standby_mw = power.idle_mw(work, chip, gating=True)
    standby = Pause(STANDBY, average, standby_mw, kept_banks, kept_bytes, 0.0)
    return [standby, *(_pause(state, work, chip, chip.gating, point, frames_per_s, standby) for state in chip.sleep)]


def best_pause(work: Work, chip: Chip, point: Point | str | None = None, *, frames_per_s: float) -> Pause | None:
    """The one of least average power; None as `pauses` has none. Errors: those of `pauses`."""
    usable = [
        (p.average_mw, number, p)
        for number, p in enumerate(pauses(work, chip, point, frames_per_s=frames_per_s))
        if p.average_mw is not None
    ]
    return min(usable)[2] if usable else None


def _pause(
    state: Sleep, work: Work, chip: Chip, parts: Gating, point: Point | str | None, frames_per_s: float, standby: Pause
) -> Pause:
    banks = standby.kept_banks if state.keeps else 0
    loaded = 0 if state.keeps else work.constant_bytes or 0
    load_us = 1e6 * loaded / state.load_bytes_per_s
    pause_mw = state.power_mw + banks * parts.bank_mw * state.bank_share
    pause_us = 1e6 / frames_per_s - 1e6 * power.latency_s(work, chip, point)
    asleep_us = pause_us - state.enter_us - state.wake_us - load_us
    why_not = ""
    if not state.keeps and work.state_bytes:
        why_not = f"{work.state_bytes:,} bytes live from one run to the next, and it keeps nothing"
    elif not state.keeps and work.constant_bytes is None:
        why_not = "how many bytes it would have to load again is not known"
    elif asleep_us < 0:
        why_not = (
            f"the pause is {pause_us:,.4g} us, and it takes {pause_us - asleep_us:,.4g} us to enter, wake and load"
        )
    if why_not:
        return Pause(
            state.name, None, pause_mw, banks, standby.kept_bytes * state.keeps, state.wake_us + load_us, why_not
        )
    at = chip.point(point)
    running_pj = power.energy_pj(work, chip, point, gating=True)
    if not state.keeps:  # the banks with constants were off as well
        running_pj += standby.kept_banks * parts.bank_wake_pj * (at.voltage_v / chip.reference_v) ** 2
    frame_uj = (
        running_pj / 1e6
        + state.enter_uj
        + state.wake_uj
        + (loaded * state.load_pj / 1e6 + standby.pause_mw * UJ_PER_S_IN_MW * load_us)
        + pause_mw * UJ_PER_S_IN_MW * asleep_us
    )
    return Pause(
        state.name,
        frame_uj * frames_per_s * 1e-3,
        pause_mw,
        banks,
        standby.kept_bytes if state.keeps else 0,
        state.wake_us + load_us,
    )


@dataclass(frozen=True)
class Cell:
    """A battery: capacity and nominal voltage. Self-discharge, the converter's loss and the rest of the device are not
    counted."""

    name: str
    mah: float
    volt: float

    @property
    def joule(self) -> float:
        return self.mah * 3.6 * self.volt

    def days(self, mj_per_day: float) -> float:
        """How long it lasts."""
        return float("inf") if mj_per_day <= 0 else self.joule * 1e3 / mj_per_day


CELLS = (
    # nominal capacities as such cells are sold, assumptions of ours: give the figures of your own as in 230mAh@3V
    Cell("CR2032", 225.0, 3.0),
    Cell("AAA", 1200.0, 1.5),  # alkaline, one
    Cell("AA", 2800.0, 1.5),
    Cell("LiPo500", 500.0, 3.7),
    Cell("18650", 3000.0, 3.6),
)


def cell_of(text: str) -> Cell:
    """A cell by name, or "230mAh@3V". Errors: ValueError."""
    for cell in CELLS:
        if cell.name.lower() == text.strip().lower():
            return cell
    mah, at, volt = text.lower().replace(" ", "").partition("@")
    if at and mah.endswith("mah") and volt.endswith("v"):
        capacity, voltage = float(mah[:-3]), float(volt[:-1])
        if 0 < capacity < 1e9 and 0 < voltage < 1e3:
            return Cell(f"{capacity:g} mAh at {voltage:g} V", capacity, voltage)
    raise ValueError(f"{text!r} is no cell: {', '.join(c.name for c in CELLS)}, or as in 230mAh@3V")
