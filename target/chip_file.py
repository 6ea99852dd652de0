"""Chip files: JSON <-> Chip, checked key by key so that a wrong file names the key and what was expected."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import get_type_hints

from tvm_ergo.target.chip import (
    UNSOURCED,
    BinaryEngine,
    Chip,
    Cpu,
    DataMover,
    Energy,
    Gating,
    Point,
    Sleep,
    SparseEngine,
    TensorEngine,
    VectorEngine,
)
from tvm_ergo.target.errors import TargetError
from tvm_ergo.target.isa.cost import Event

PARTS = {"tensor": TensorEngine, "vector": VectorEngine, "sparse": SparseEngine, "dma": DataMover, "cpu": Cpu}
OPTIONAL = ("gating", "binary")
"""Parts that chip files older than they are lack."""
LARGEST = 2**63  # of any number in a chip file; also refuses NaN and infinity
MAY_BE_ZERO = {
    "issue_cycles",
    "leakage_mw",
    "idle_mw",
    "pj",
    "weight_decoder_lanes",
    "output_table_lanes",
    "zero_gating",
    *(f.name for f in fields(Gating)),
    *(f.name for f in fields(Sleep) if f.name != "load_bytes_per_s"),
}
UNPRICED = {
    "pj": 0.0,
    "source": "not in the chip file: nothing counts it where there is no binary engine",
    "scaling": "none",
}
ROUNDING = 1 + 1e-9


def chip_to_json(chip: Chip) -> dict:
    """Numbers as ``{"value", "source"}``, energies as ``{"pj", "source", "scaling"}``."""

    def sourced(path: str, value) -> dict:
        return {"value": value, "source": chip.sources[path]}

    data: dict = {"name": chip.name}
    for field in fields(Chip):
        value = getattr(chip, field.name)
        if field.name in PARTS or (field.name in OPTIONAL and value is not None):
            data[field.name] = {
                f.name: sourced(f"{field.name}.{f.name}", getattr(value, f.name)) for f in fields(value)
            }
        elif isinstance(value, (int, float)):
            data[field.name] = sourced(field.name, value)
    data["points"] = [
        {"name": p.name, **{key: sourced(f"points[{i}].{key}", getattr(p, key)) for key in ("clock_hz", "voltage_v")}}
        for i, p in enumerate(chip.points)
    ]
    if chip.sleep:
        data["sleep"] = [
            {"name": s.name, **{f.name: sourced(f"sleep[{i}].{f.name}", getattr(s, f.name)) for f in fields(s)[1:]}}
            for i, s in enumerate(chip.sleep)
        ]
    data["energy"] = {
        event.value: {"pj": e.pj, "source": e.source, "scaling": e.scaling} for event, e in chip.energy.items()
    }
    return data


def chip_from_json(data: dict, where: str) -> Chip:
    """Errors: TargetError naming the key and what was expected."""
    return _File(where).chip(data)


class _File:
    """One reading: the file's name for messages and the sources collected on the way."""

    def __init__(self, where: str):
        self.where = where
        self.sources: dict[str, str] = {}

    def fail(self, key: str, expected: str, found):
        raise TargetError(
            f"chip file: wrong key {key!r}", where=self.where, required=expected, available=repr(found)[:120]
        )

    def keys(self, path: str, data, expected: list[str]) -> dict:
        if not isinstance(data, dict):
            self.fail(path or "(top)", "an object with the keys " + ", ".join(expected), data)
        for key in expected:
            if key not in data:
                self.fail(f"{path}.{key}".lstrip("."), "this key (it is missing)", sorted(data))
        for key in data:
            if key not in expected:
                self.fail(f"{path}.{key}".lstrip("."), "one of " + ", ".join(expected), key)
        return data

    def number(self, path: str, data, kind: type):
        value, source = data, UNSOURCED
        if isinstance(data, dict):
            self.keys(path, data, ["value", "source"])
            value, source = data["value"], self.text(f"{path}.source", data["source"])
        self.sources[path] = source
        return self.plain_number(path, value, kind)

    def plain_number(self, path: str, value, kind: type):
        expected = f"a finite number {'>= 0' if path.split('.')[-1] in MAY_BE_ZERO else '> 0'}" + (
            ", an integer" if kind is int else ""
        )
        wrong = isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < LARGEST
        if (
            wrong
            or value < 0
            or (value == 0 and path.split(".")[-1] not in MAY_BE_ZERO)
            or (kind is int and value != int(value))
        ):
            self.fail(path, expected, value)
        return kind(value)

    def text(self, path: str, value) -> str:
        if not isinstance(value, str) or not value.strip():
            self.fail(path, "a non-empty text", value)
        return value

    def part(self, path: str, cls, data):
        """Keys whose field has a default may be missing, as in chip files older than they are."""
        hints = get_type_hints(cls)
        if isinstance(data, dict):
            data = {**{f.name: f.default for f in fields(cls) if f.default is not MISSING}, **data}
        self.keys(path, data, list(hints))
        return cls(
            **{
                key: self.text(f"{path}.{key}", data[key])
                if kind is str
                else self.number(f"{path}.{key}", data[key], kind)
                for key, kind in hints.items()
            }
        )

    def chip(self, data) -> Chip:
        hints = get_type_hints(Chip)
        if isinstance(data, dict):
            data = {**dict.fromkeys(OPTIONAL), "sleep": [], **data}
        self.keys("", data, [f.name for f in fields(Chip) if f.name != "sources"])
        values = {key: self.number(key, data[key], kind) for key, kind in hints.items() if kind in (int, float)}
        values |= {key: self.part(key, cls, data[key]) for key, cls in PARTS.items()}
        if values["tensor"].zero_gating > 1:
            self.fail("tensor.zero_gating", "a share, 0 to 1", values["tensor"].zero_gating)
        if values["memory_bytes"] > 2**32:
            self.fail("memory_bytes", "at most 2**32: addresses have 32 bits", values["memory_bytes"])
        values["gating"] = self.gating(data["gating"], values["leakage_mw"])
        values["binary"] = self.binary(data["binary"])
        values["sleep"] = self.sleep(data["sleep"])
        points = data["points"]
        if not isinstance(points, list) or not points:
            self.fail("points", "a list of at least one operating point", points)
        values["points"] = tuple(self.part(f"points[{i}]", Point, point) for i, point in enumerate(points))
        if len({p.name for p in values["points"]}) != len(points):
            self.fail("points", "a different name for each point", [p.name for p in values["points"]])
        return Chip(
            name=self.text("name", data["name"]), **values, energy=self.energy(data["energy"]), sources=self.sources
        )

    def binary(self, data) -> BinaryEngine | None:
        """None where the file has none, as those older than it."""
        found = None if data is None else self.part("binary", BinaryEngine, data)
        if found is not None and found.input_lanes % 8:
            self.fail("binary.input_lanes", "a multiple of 8: words of whole bytes", found.input_lanes)
        return found

    def gating(self, data, leakage_mw: float) -> Gating | None:
        """None where the file has none, as those older than it."""
        if data is None:
            return None
        found = self.part("gating", Gating, data)
        if found.retention > 1:
            self.fail("gating.retention", "a share, 0 to 1", found.retention)
        if found.logic_mw > leakage_mw * ROUNDING:
            self.fail(
                "leakage_mw",
                f"at least {found.logic_mw:g}, the sum of the logic's parts in 'gating'; what is above is the memory's",
                leakage_mw,
            )
        return found

    def sleep(self, data) -> tuple[Sleep, ...]:
        """Empty where the file has none."""
        if not isinstance(data, list):
            self.fail("sleep", "a list of states", data)
        states = tuple(self.part(f"sleep[{i}]", Sleep, state) for i, state in enumerate(data))
        for i, state in enumerate(states):
            if state.bank_share > 1:
                self.fail(f"sleep[{i}].bank_share", "a share, 0 to 1", state.bank_share)
        if len({s.name for s in states}) != len(states):
            self.fail("sleep", "a different name for each state", [s.name for s in states])
        return states

    def energy(self, data) -> dict[Event, Energy]:
        if isinstance(data, dict) and "mul_8x8" not in data and "mac_8x8" in data:  # files older than the distinction
            data = {**data, "mul_8x8": data["mac_8x8"]}
        if isinstance(data, dict) and "xnor_popcount" not in data:  # files older than the binary engine
            data = {**data, "xnor_popcount": UNPRICED}
        table = {}
        for key, entry in self.keys("energy", data, [event.value for event in Event]).items():
            path = f"energy.{key}"
            self.keys(path, entry, ["pj", "source", "scaling"])
            table[Event(key)] = Energy(
                self.plain_number(f"{path}.pj", entry["pj"], float),
                self.text(f"{path}.source", entry["source"]),
                self.text(f"{path}.scaling", entry["scaling"]),
            )
        return {event: table[event] for event in Event}
