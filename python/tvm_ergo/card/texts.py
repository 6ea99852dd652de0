"""The words of a card and of a comparison, shared by the screen and the page."""

from __future__ import annotations

from tvm_ergo.card.model import Card, MeasuredRow
from tvm_ergo.report.figures import rate

HOST_LISTED = 6
"""Kinds of host operators that the screen names."""


def byte_text(count: float) -> str:
    """ "43.3 KiB"; "490 bytes"; "8 MiB"."""
    if abs(count) < 1024:
        return f"{count:,.0f} bytes"
    value, unit = (count / 1024, "KiB") if abs(count) < 1 << 20 else (count / (1 << 20), "MiB")
    return f"{value:,.1f} {unit}".replace(f".0 {unit}", f" {unit}")


def time_text(us: float) -> str:
    """ "4.36 us", "2.1 ms", "1.5 s"."""
    return _scaled(us, ((1.0, "us"), (1e3, "ms"), (1e6, "s")))


def energy_text(uj: float) -> str:
    """ "27 pJ", "990 nJ", "1.2 uJ", "3.4 mJ"."""
    return _scaled(uj, ((1e-6, "pJ"), (1e-3, "nJ"), (1.0, "uJ"), (1e3, "mJ")))


def power_text(mw: float) -> str:
    """ "393 uW", "1.54 mW"."""
    return _scaled(mw, ((1e-3, "uW"), (1.0, "mW"), (1e3, "W")))


def _scaled(value: float, units: tuple[tuple[float, str], ...]) -> str:
    """The largest unit of which there is at least one."""
    size, unit = next(((s, u) for s, u in reversed(units) if abs(value) >= s), units[0])
    return f"{value / size:,.3g} {unit}" if abs(value / size) < 1000 else f"{value / size:,.0f} {unit}"


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
    gated = "" if card.gated_mw is None else f", {power_text(card.gated_mw)} with idle parts switched off"
    return text + power_text(card.power_mw) + gated


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
