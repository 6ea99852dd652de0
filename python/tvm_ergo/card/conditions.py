"""Conditions on a card's or a comparison's figures, for scripts: ``"memory > 512KiB or host_ops > 0"``.

Comparisons of a figure with a number and its unit, joined by ``and`` (binds tighter) and ``or``. Nothing is evaluated
but that.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass

from tvm_ergo.target.errors import InputError

UNITS = {
    "bytes": {"": 1, "B": 1, "kB": 1e3, "MB": 1e6, "KiB": 1 << 10, "MiB": 1 << 20},
    "us": {"us": 1, "ms": 1e3, "s": 1e6},
    "uj": {"nJ": 1e-3, "uJ": 1, "mJ": 1e3},
    "mw": {"uW": 1e-3, "mW": 1, "W": 1e3},
    "percent": {"": 1, "%": 1},
    "points": {"": 1, "points": 1},
    "": {"": 1},
}
"""Kind of a figure -> the units it may be given in, as multiples of its own."""

_COMPARED = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_COMPARISON = re.compile(
    r"\s*([A-Za-z_]+)\s*(>=|<=|==|!=|>|<)\s*([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-z%]*)\s*"
)


@dataclass(frozen=True)
class Comparison:
    """One comparison of a figure with a limit in the figure's own unit."""

    figure: str
    sign: str
    limit: float
    text: str

    def holds(self, value: float) -> bool:
        return _COMPARED[self.sign](value, self.limit)


@dataclass(frozen=True)
class Condition:
    """Alternatives, each of comparisons that must all hold."""

    alternatives: tuple[tuple[Comparison, ...], ...]

    def met(self, figures: Mapping[str, float | None]) -> str | None:
        """The first alternative that holds, with what was found; None where none does.

        Errors: InputError for a figure that was not measured."""
        for comparisons in self.alternatives:
            for one in comparisons:
                if figures[one.figure] is None:
                    raise InputError(
                        f"{one.figure} was not measured, so nothing can be said of {one.text!r}",
                        where="option --fail-if",
                        available=", ".join(sorted(name for name, value in figures.items() if value is not None)),
                        remedy="give what it is measured on (--data FILE.npz or a task's name for drop, --calibration "
                        "FILE.npz for loss), or leave it out",
                    )
            if all(one.holds(figures[one.figure]) for one in comparisons):
                return " and ".join(f"{one.text} ({one.figure} is {figures[one.figure]:,.6g})" for one in comparisons)
        return None


def parse_condition(text: str, kinds: Mapping[str, str]) -> Condition:
    """A condition on figures; kinds : figure -> its kind in `UNITS`. Errors: InputError."""
    alternatives = [
        tuple(_comparison(part, kinds) for part in re.split(r"\band\b", alternative))
        for alternative in re.split(r"\bor\b", text)
    ]
    return Condition(tuple(alternatives))


def _comparison(text: str, kinds: Mapping[str, str]) -> Comparison:
    found = _COMPARISON.fullmatch(text)
    if found is None:
        raise InputError(
            f"{text.strip()!r} is no comparison",
            where="option --fail-if",
            required="a figure, one of > >= < <= == !=, a number and its unit; joined by and, or",
            remedy=f"for instance {_example(kinds)}",
        )
    name, sign, number, unit = found.groups()
    if name not in kinds:
        near = difflib.get_close_matches(name, kinds, 1)
        raise InputError(
            f"there is no figure {name!r}",
            where="option --fail-if",
            available=", ".join(sorted(kinds)),
            remedy=f"write {near[0]}" if near else f"for instance {_example(kinds)}",
        )
    units = UNITS[kinds[name]]
    if unit not in units:
        raise InputError(
            f"{name} is not given in {unit!r}" if unit else f"{name} needs a unit",
            where="option --fail-if",
            available=", ".join(u for u in units if u) or "a plain number",
            remedy=f"write {name} {sign} {number}{next((u for u in units if u), '')}",
        )
    return Comparison(name, sign, float(number) * units[unit], text.strip())


def _example(kinds: Mapping[str, str]) -> str:
    return (
        '--fail-if "memory > 512KiB or host_ops > 0"' if kinds.get("memory") == "bytes" else '--fail-if "cycles > 2%"'
    )
