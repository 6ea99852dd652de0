"""Scales that represent a tensor's values exactly, where its values lie on a grid: 8-bit pictures, signs, activations
of few bits, integers.

Found from what calibration shows: at most 256 evenly spaced values, many of each. And for tensors of which only the
sign is read: a scale so fine that no value but 0 is rounded to 0; how far the others are clipped does not matter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import tvm

from tvm_ergo.relay_passes.micro.calibrate import input_shapes, samples_of
from tvm_ergo.relay_passes.micro.observe import MIN_SCALE, QuantParams
from tvm_ergo.relay_passes.relax_utils import bindings_of, main_of, op_name, variables_in

REPEATED = 32  # inner tensors: each level was seen so often on average; values that are few by chance are not
PARTS = 8  # the smallest gap between neighbours is one step, or up to so many: -3 and 5 are multiples of 1
SIGN_STEPS = (
    8  # the smallest magnitude seen of a tensor whose sign is read is so many steps: unseen smaller ones have room
)


@dataclass
class Levels:
    """The distinct values of one tensor, as long as there are at most 256."""

    values: set = field(default_factory=set)
    many: bool = False
    count: int = 0

    def update(self, array: np.ndarray) -> None:
        if not self.many:
            self.values.update(np.unique(array).tolist())
            self.many = len(self.values) > 256
            self.count += array.size

    @property
    def repeated(self) -> bool:
        return not self.many and self.count >= REPEATED * len(self.values)

    def params(self) -> QuantParams | None:
        """The quantization whose levels are these values exactly, or None if they are not evenly spaced or zero is not
        among the levels.

        Levels left over extend the range downwards only if negative values occur, and upwards otherwise or as well.
        """
        values = np.array(sorted(self.values))
        if self.many or len(values) < 2 or not np.isfinite(values).all():
            return None
        gap = np.diff(values).min()
        return next(
            (found for part in range(1, PARTS + 1) if (found := self._of_step(values, gap / part)) is not None), None
        )

    @staticmethod
    def _of_step(values: np.ndarray, step: float) -> QuantParams | None:
        index = np.rint(values / step)
        if index[-1] > index[0]:
            step = (values[-1] - values[0]) / (index[-1] - index[0])
        lo, hi = int(min(index[0], 0)), int(max(index[-1], 0))
        if hi - lo > 255 or np.abs(values - index * step).max() > 1e-3 * step:
            return None
        fine = 1 << (
            (255 // max(hi - lo, 1)).bit_length() - 1
        )  # few levels: steps between two of them, for what is computed from them; a power of two is exact
        step, lo, hi = step / fine, lo * fine, hi * fine
        spare = 255 - (hi - lo)
        below = 0 if lo == 0 else spare if hi == 0 else spare // 2
        return QuantParams(float(np.float32(step)), int(-128 - (lo - below)))


def exact_input_params(mod: tvm.IRModule, data) -> dict[str, QuantParams]:
    """Parameters of the inputs that take 3 to 256 evenly spaced values, 0 among the levels."""
    levels = {name: Levels() for name, (_, dtype) in input_shapes(mod).items() if dtype == "float32"}
    for sample in samples_of(mod, data):
        for name, level in levels.items():
            level.update(sample[name])
    found = {name: level.params() for name, level in levels.items() if len(level.values) > 2 or level.repeated}
    return {name: params for name, params in found.items() if params is not None}


class Grids:
    """Watches inner tensors for grids: call it per tensor, then ask ``params()``. names : the tensors between
    groups."""

    def __init__(self, mod: tvm.IRModule, names: Iterable[str]):
        self.levels = {name: Levels() for name in names}
        self.smallest = {name: np.inf for name in _signs_read(mod) & set(self.levels)}

    def __call__(self, name: str, array: np.ndarray) -> None:
        level = self.levels.get(name)
        if level is None or array.dtype.kind != "f":
            return
        level.update(array)
        if name in self.smallest:
            magnitudes = np.abs(array[array != 0])
            self.smallest[name] = min(self.smallest[name], float(magnitudes.min(initial=np.inf)))

    def params(self) -> dict[str, QuantParams]:
        """Parameters of the tensors that lie on a grid, and of those of which the sign is read."""
        found = {n: p for n, level in self.levels.items() if level.repeated and (p := level.params()) is not None}
        signs = {
            n: QuantParams(float(np.float32(max(s / SIGN_STEPS, MIN_SCALE))), 0)
            for n, s in self.smallest.items()
            if np.isfinite(s)
        }
        return found | {n: p for n, p in signs.items() if n not in found}


def _signs_read(mod: tvm.IRModule) -> set[str]:
    """Names of the tensors that nothing but sign operators read."""
    readers: dict[str, set[str]] = {}
    for _, value in bindings_of(main_of(mod)):
        for var in variables_in(value):
            readers.setdefault(var.name, set()).add(op_name(value))
    return {name for name, ops in readers.items() if ops == {"relax.sign"}}
