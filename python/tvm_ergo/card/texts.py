"""The words of a card and of a comparison, shared by the screen and the page."""

from __future__ import annotations

from tvm_ergo.card.model import Card, MeasuredRow
from tvm_ergo.report.figures import rate
from tvm_ergo.report.units import byte_text, days_text, energy_text, power_text, time_text

HOST_LISTED = 6
"""Kinds of host operators that the screen names."""


def answers(card: Card) -> list[tuple[str, str]]:
    """The five questions and their answers."""
    return [
        ("runs whole on the chip?", _whole(card)),
        ("memory?", _memory(card)),
        (
            "latency?",
            f"{time_text(card.latency_us)} ({card.cycles:,} cycles), up to {rate(card.inferences_per_s)} inferences/s",
        ),
        ("energy?", _energy(card)),
        ("accuracy?", _accuracy(card)),
    ]


def _whole(card: Card) -> str:
    if card.whole:
        return "yes, no operator is left to the host CPU"
    count = len(card.host)
    return f"no, {count} operator{'s' if count > 1 else ''} left to the host CPU, whose time and energy are not counted"


def _memory(card: Card) -> str:
    fits = "fits in" if card.fits else "DOES NOT FIT in"
    return (
        f"{byte_text(card.memory_bytes)}, {fits} {byte_text(card.chip_memory_bytes)}: constants "
        f"{byte_text(card.constant_bytes)}, activations with the frame {byte_text(card.activation_bytes)}"
    )


def _energy(card: Card) -> str:
    text = f"{energy_text(card.energy_uj)} an inference; at {card.frames_per_s:,g} a second "
    if card.power_mw is None:
        return text + "the chip is too slow"
    text += power_text(card.power_mw)
    if card.gated_mw is not None:
        text += f", {power_text(card.gated_mw)} with idle parts switched off"
    if card.sleep is not None and card.sleep.average_mw is not None:
        text += f", {power_text(card.sleep.average_mw)} with pauses in {card.sleep.state}"
    if card.battery is not None:
        text += f"; at that a cell {card.battery.cell} lasts {days_text(card.battery.days)}, self-discharge not counted"
    return text


def _accuracy(card: Card) -> str:
    if card.measured:
        return "; ".join(measured_text(row) for row in card.measured)
    if card.loss is not None:
        return (
            f"outputs {100 * card.loss:.2g} % off the float network's (rms, on {card.loss_samples} calibration inputs)"
        )
    return "not measured: give --data FILE.npz with inputs x and labels y, or a task's name (tvm-ergo eval --list)"


def measured_text(row: MeasuredRow) -> str:
    """ "keywords: top1 90.2 on 1,000 samples, float 90.1 (0.1 better)"."""
    text = f"{row.test}: {row.figure} {row.chip:.2f} on {row.samples:,} samples"
    if row.float_network is not None:
        text += f", float {row.float_network:.2f}"
    if row.drop is not None:
        text += (
            " (no drop)" if abs(row.drop) < 0.005 else f" ({abs(row.drop):.2f} {'worse' if row.drop > 0 else 'better'})"
        )
    return text


def host_texts(card: Card) -> list[str]:
    """One line for each kind of operator, reason and remedy that is left to the host."""
    kinds: dict[tuple[str, str, str], list[str]] = {}
    for row in card.host:
        kinds.setdefault((row.op, row.reason, row.remedy), []).append(row.name)
    lines = []
    for (op, reason, remedy), names in kinds.items():
        where = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        lines.append(f"{op} ({where}): {reason}" + (f"; {remedy}" if remedy else ""))
    return lines


def peer_texts(card: Card) -> list[tuple[str, str]]:
    """Devices and their figures, this chip's first."""
    if card.peers is None:
        return []
    own = (f"{card.chip} (emulated)", energy_text(card.energy_uj))
    return [own, *((row.device, energy_text(row.energy_uj)) for row in card.peers.rows)]


def summary(card: Card) -> str:
    """The one line for scripts: ``name=value`` in plain units, what was not measured left out."""
    units = {
        "memory": "bytes",
        "constants": "bytes",
        "activations": "bytes",
        "latency": "us",
        "energy": "uj",
        "power": "mw",
    }
    parts = [f"whole={'yes' if card.whole else 'no'}", f"fits={'yes' if card.fits else 'no'}"]
    for name, value in card.figures().items():
        if value is not None:
            unit = f"_{units[name]}" if name in units else ""
            parts.append(f"{name}{unit}={value:.6g}" if isinstance(value, float) else f"{name}{unit}={value}")
    return "summary " + " ".join(parts)
