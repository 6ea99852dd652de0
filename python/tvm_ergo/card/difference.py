"""What became better or worse from one report to another: two networks, two builds, two chips."""

from __future__ import annotations

from collections import Counter

from tvm_ergo.report.model import Report, Row
from tvm_ergo.report.units import byte_text, energy_text, power_text, time_text

SCHEMA = 1


class FigureRow(Row):
    """One figure of both. change_percent : of B against A; None where A is 0 or one of them is missing."""

    name: str
    unit: str  # bytes | us | uj | mw | "" (a plain count)
    a: float | None
    b: float | None
    change_percent: float | None


class LayerDifference(Row):
    """One layer by its name; None where the other network has it alone."""

    name: str
    a_cycles: int | None
    b_cycles: int | None
    a_energy_uj: float | None
    b_energy_uj: float | None


class Difference(Row):
    """B against A. Of every figure less is better."""

    schema_version: int = SCHEMA
    a: str
    b: str
    figures: list[FigureRow]
    layers: list[LayerDifference]  # those that changed most first

    def changes(self) -> dict[str, float | None]:
        """Figure -> change in percent: what conditions may ask for. A figure that stayed 0 changed by 0, one that came
        from 0 by infinity."""
        found = {}
        for row in self.figures:
            known = row.a is not None and row.b is not None
            from_zero = known and row.a == 0
            found[row.name] = (0.0 if row.b == 0 else float("inf")) if from_zero else row.change_percent
        return found


UNITS = {
    "memory": "bytes",
    "constants": "bytes",
    "activations": "bytes",
    "macs": "",
    "cycles": "",
    "latency": "us",
    "energy": "uj",
    "leakage": "uj",
    "power": "mw",
    "host_ops": "",
    "loss": "",
}


def difference_of(a: Report, b: Report) -> Difference:
    """Figures of the whole network, then layer by layer."""
    first, second = _figures(a), _figures(b)
    rows = []
    for name, unit in UNITS.items():
        x, y = first[name], second[name]
        change = None if x is None or y is None or x == 0 else 100 * (y - x) / x
        rows.append(FigureRow(name=name, unit=unit, a=x, b=y, change_percent=change))
    return Difference(a=_title(a), b=_title(b), figures=rows, layers=_layers(a, b))


def _title(report: Report) -> str:
    return f"{report.model} on {report.chip} at {report.point}, {byte_text(report.chip_memory_bytes)}"


def _figures(report: Report) -> dict[str, float | None]:
    power = report.power[-1] if report.power else None
    return {
        "memory": report.memory_bytes,
        "constants": report.constant_bytes,
        "activations": report.placed_activation_bytes,
        "macs": report.macs,
        "cycles": report.cycles,
        "latency": report.latency_ms * 1e3,
        "energy": report.energy_uj,
        "leakage": report.leakage_uj,
        "power": None if power is None else power.power_mw if power.gated_mw is None else power.gated_mw,
        "host_ops": len(report.host),
        "loss": None if report.accuracy is None else report.accuracy.loss,
    }


def _layers(a: Report, b: Report) -> list[LayerDifference]:
    """All layers of both, matched by name; of layers of one name the first by the first."""
    first, second = _by_name(a), _by_name(b)
    rows = []
    for name in [*first, *(name for name in second if name not in first)]:
        x, y = first.get(name), second.get(name)
        rows.append(
            LayerDifference(
                name=name,
                a_cycles=x and x.cycles,
                b_cycles=y and y.cycles,
                a_energy_uj=x and x.energy_uj,
                b_energy_uj=y and y.energy_uj,
            )
        )
    return sorted(rows, key=lambda row: -abs((row.b_cycles or 0) - (row.a_cycles or 0)))


def _by_name(report: Report) -> dict:
    seen: Counter[str] = Counter()
    found = {}
    for program in report.programs:
        for row in program.layers:
            seen[row.name] += 1
            found[row.name if seen[row.name] == 1 else f"{row.name} ({seen[row.name]})"] = row
    return found


_TEXTS = {"bytes": byte_text, "us": time_text, "uj": energy_text, "mw": power_text}


def row_texts(row: FigureRow) -> tuple[str, str, str, str]:
    """Name, A, B and what became of it."""
    plain = "{:,.3g}".format if row.name == "loss" else "{:,.0f}".format
    write = _TEXTS.get(row.unit, plain)
    return row.name, *("-" if v is None else write(v) for v in (row.a, row.b)), _verdict(row)


def _verdict(row: FigureRow) -> str:
    if row.a is None or row.b is None:
        return ""
    if row.a == row.b:
        return "the same"
    word = "less" if row.b < row.a else "more"
    return word if row.change_percent is None else f"{abs(row.change_percent):.3g} % {word}"
