"""Matrices of weights of many kinds, for tests."""

from __future__ import annotations

import numpy as np

from tvm_ergo.target.codecs.weights import WeightCodes

KINDS = (
    "pruned",
    "dense",
    "constant",
    "ternary",
    "clustered",
    "long runs",
    "last only",
    "pairs",
    "all values",
    "offset",
)


def sample(kind: str, rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """int8[rows, columns]."""
    rng = np.random.default_rng(seed)
    shape = rows, columns
    bell = np.clip(np.rint(rng.normal(0, 20, shape)), -127, 127)
    made = {
        "pruned": lambda: bell * (rng.random(shape) < 0.2),
        "dense": lambda: bell,
        "constant": lambda: np.full(shape, rng.integers(-128, 128)),
        "ternary": lambda: rng.choice([-7, 0, 7], shape, p=[0.1, 0.8, 0.1]),
        "clustered": lambda: rng.choice([-90, -40, 0, 33, 80], shape),
        "long runs": lambda: bell * (rng.random(shape) < 0.003),
        "last only": lambda: (np.arange(rows * columns) == rows * columns - 1).reshape(shape) * 5,
        "pairs": lambda: rng.integers(0, 2, shape) * 3 - 1,
        "all values": lambda: rng.integers(-128, 128, shape),
        "offset": lambda: 3 + 4 * (rng.random(shape) < 0.1),
    }
    return made[kind]().astype(np.int8)


def codes(kind: str, rows: int, columns: int, seed: int = 0, inner: int = 1) -> WeightCodes:
    return WeightCodes.of(sample(kind, rows, columns, seed), inner)
