"""What a stretch of retraining does to the weights."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from numbers import Real

from tvm_ergo.target.errors import InputError

PerLayer = float | int | dict[str, float | int] | None


@dataclass(frozen=True)
class Phase:
    """A number of epochs and what the weights become meanwhile.

    epochs, lr : the learning rate falls from ``lr`` to nothing by a cosine. density : share of weights that stay,
    reached gradually by a cubic (Zhu & Gupta 2017) over the first ``ramp`` of the phase; a number for all layers, or by
    layer name (patterns; the first that fits). values : size of the codebook of each layer, zero not counted, started
    at the phase's beginning. bits : of the grid weights are rounded to (or the codebook's values).
    activation_bits : of the inputs of layers (quantization-aware training). block : output channels that share a mask.
    What a phase does not name stays as the last one left it. weight_decay : of the latent weights."""

    epochs: int
    lr: float = 1e-3
    density: PerLayer = None
    values: PerLayer = None
    bits: PerLayer = None
    activation_bits: PerLayer = None
    block: int = 1
    ramp: float = 0.6
    weight_decay: float = 0.0

    def __post_init__(self):
        if not isinstance(self.epochs, int) or self.epochs < 1:
            raise InputError("a phase needs epochs", required="an integer of at least 1", available=repr(self.epochs))
        for name, low, high in (("density", 0.0, 1.0), ("values", 1, 2**16), ("bits", 2, 8), ("activation_bits", 2, 8)):
            given = getattr(self, name)
            for value in given.values() if isinstance(given, dict) else () if given is None else (given,):
                if not isinstance(value, Real) or not low <= value <= high or value == 0:
                    raise InputError(
                        f"{name} of a phase is out of range",
                        required=f"above 0, {low} to {high}, or a dict of such by layer name",
                        available=repr(value),
                    )

    def of(self, name: str, layer: str):
        """This phase's ``density``, ``values``, ``bits`` or ``activation_bits`` of a layer; None where it has none."""
        given = getattr(self, name)
        if not isinstance(given, dict):
            return given
        return next((value for pattern, value in given.items() if fnmatch.fnmatchcase(layer, pattern)), None)

    def density_at(self, layer: str, progress: float, before: float) -> float | None:
        """The density at a share of the phase, from what it was before it."""
        target = self.of("density", layer)
        if target is None:
            return None
        return target + (before - target) * max(0.0, 1 - progress / max(self.ramp, 1e-9)) ** 3
