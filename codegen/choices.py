"""What a user chooses of a compilation, by name; apart from the planners, so that a command line knows the names
without them."""

from __future__ import annotations

from enum import Enum

POINTS = 12
"""Limits that a front is looked for at, a cost."""


class Objective(Enum):
    """What a plan is chosen for, within the memory there is."""

    LATENCY = "latency"
    ENERGY = "energy"
    MEMORY = "memory"

    @property
    def cost(self) -> str:
        """The figure of a `Path` that is made least."""
        return "energy_pj" if self is Objective.ENERGY else "cycles"


class Weights(Enum):
    """AUTO: coded where that costs no time, or the memory needs it. CODED: as few bytes as possible, whatever time that
    takes. DENSE: plain."""

    AUTO = "auto"
    DENSE = "dense"
    CODED = "coded"
