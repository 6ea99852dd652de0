"""Where random ops come from: the source of numbers, the result, the registry of makers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tvm_ergo.relay_passes.dialect.base import ErgoOp, Shape
from tvm_ergo.target import numerics

INT8_STD = 74.0
"""Standard deviation of uniform int8 values: what scales are chosen against, so that results neither vanish nor
saturate."""


@dataclass(frozen=True)
class RandomCall:
    """An op with the shapes and dtypes of all its arguments; ``constants`` holds the arguments that a network fixes."""

    op: ErgoOp
    shapes: tuple[Shape, ...]
    dtypes: tuple[str, ...]
    constants: dict[int, np.ndarray] = field(default_factory=dict)

    def activations(self, rng: np.random.Generator, extreme: bool = False) -> list[np.ndarray]:
        """Arrays for the arguments that are not constant, in order; ``extreme``: only the dtype's least and largest
        value."""
        return [
            random_array(rng, shape, dtype, extreme)
            for i, (shape, dtype) in enumerate(zip(self.shapes, self.dtypes, strict=True))
            if i not in self.constants
        ]

    def arguments(self, activations: Sequence[np.ndarray]) -> list[np.ndarray]:
        """All arguments in order, constants filled in."""
        rest = iter(activations)
        return [self.constants[i] if i in self.constants else next(rest) for i in range(len(self.shapes))]

    def infer(self) -> tuple[Shape, str]:
        return self.op.infer(self.shapes, self.dtypes)[0]


def random_array(rng: np.random.Generator, shape: Shape, dtype: str, extreme: bool = False) -> np.ndarray:
    """Uniform over the whole dtype, or over its two ends."""
    info = np.iinfo(dtype)
    if extreme:
        return rng.choice(np.array([info.min, info.max], dtype), shape)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


class Source:
    """Where random numbers come from: a NumPy generator, or hypothesis' ``draw`` (then failures shrink)."""

    def __init__(self, origin: np.random.Generator | Callable):
        self._origin = origin
        if isinstance(origin, np.random.Generator):
            self.rng = origin
        else:
            self.rng = np.random.default_rng(self.integer(0, 2**32 - 1))

    def integer(self, low: int, high: int) -> int:
        """Uniform in ``low..high``, both included."""
        if isinstance(self._origin, np.random.Generator):
            return int(self._origin.integers(low, high, endpoint=True))
        from hypothesis import strategies

        return self._origin(strategies.integers(low, high))

    def choice(self, values: Sequence):
        return values[self.integer(0, len(values) - 1)]

    def chance(self, percent: int) -> bool:
        return self.integer(0, 99) < percent

    def zero_point(self) -> int:
        return self.choice((0, -128, 127, self.integer(-128, 127)))

    def clip(self) -> tuple[int, int]:
        """``(lo, hi)``: the whole range mostly, else a narrower one."""
        if self.chance(60):
            return -128, 127
        lo = self.integer(-128, 126)
        return lo, self.integer(lo + 1, 127)

    def multiplier(self, scale: float) -> tuple[int, int]:
        """``(mult, shift)`` of about ``scale``; now and then an end of the legal range."""
        if self.chance(10):
            return self.choice(((2**24 - 1, 0), (2**24 - 1, 62), (0, 0), (1, 1), (2**23, 62), (2**24 - 1, 24)))
        return numerics.quantize_multiplier(min(scale * 2.0 ** (self.integer(-100, 100) / 100), 2.0**20))

    def multipliers(self, scale: float, count: int) -> tuple[np.ndarray, np.ndarray]:
        if self.chance(10):
            mult, shift = self.multiplier(scale)
            return np.full(count, mult, np.int32), np.full(count, shift, np.int8)
        return numerics.quantize_multipliers(scale * 2.0 ** self.rng.uniform(-1, 1, count))


MAKERS: dict[str, Callable[[Source, Shape | None], RandomCall]] = {}


def maker(name: str):
    """Decorator: the function makes random instances of the op ``name`` for a given input shape or, given None, one of
    its own choice."""

    def enter(function):
        MAKERS[name] = function
        return function

    return enter


def image_shape(source: Source, shape: Shape | None, low: int = 1, high: int = 9, channels: int = 20) -> Shape:
    """[N,H,W,C], sides ``low..high``, unless ``shape`` is given."""
    return shape or (
        source.integer(1, 2),
        source.integer(low, high),
        source.integer(low, high),
        source.integer(1, channels),
    )


def any_shape(source: Source, shape: Shape | None, low: int = 1, high: int = 4) -> Shape:
    """Rank ``low..high`` unless ``shape`` is given."""
    return shape or tuple(source.integer(1, 6) for _ in range(source.integer(low, high)))
