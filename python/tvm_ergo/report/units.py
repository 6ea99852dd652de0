"""Figures in the unit that fits their size."""

from __future__ import annotations


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
    """ "27 pJ", "990 nJ", "1.2 uJ", "3.4 mJ", "8.9 J"."""
    return _scaled(uj, ((1e-6, "pJ"), (1e-3, "nJ"), (1.0, "uJ"), (1e3, "mJ"), (1e6, "J")))


def power_text(mw: float) -> str:
    """ "393 uW", "1.54 mW"."""
    return _scaled(mw, ((1e-3, "uW"), (1.0, "mW"), (1e3, "W")))


def _scaled(value: float, units: tuple[tuple[float, str], ...]) -> str:
    """The largest unit of which there is at least one."""
    size, unit = next(((s, u) for s, u in reversed(units) if abs(value) >= s), units[0])
    return f"{value / size:,.3g} {unit}" if abs(value / size) < 1000 else f"{value / size:,.0f} {unit}"


def days_text(days: float) -> str:
    """ "5.2 hours", "34 days", "2.9 years"."""
    if days < 2:
        return f"{days * 24:,.2g} hours"
    return f"{days:,.0f} days" if days < 730 else f"{days / 365.25:,.2g} years"
