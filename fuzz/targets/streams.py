"""Streams of the entropy coders, of activations and of weights, and the search for addresses, in the libraries that the
sanitizers watch (`fuzz.sanitized`)."""

from __future__ import annotations

import pickle

import numpy as np

from fuzz import mutate, sanitized
from fuzz.engine import Target

sanitized.use()

from tvm_ergo.target.codecs import Codec  # noqa: E402  after the libraries are chosen
from tvm_ergo.target.codecs.registry import CODECS  # noqa: E402
from tvm_ergo.target.codecs.weights import WeightCodes, decode, encode  # noqa: E402
from tvm_ergo.target.codecs.weights_registry import WEIGHT_CODECS  # noqa: E402

LEARNED = (Codec.KLT,)  # needs coordinates from data
SHAPES = ((6, 5, 8), (4, 4, 3), (1, 1, 40), (9, 2, 17))


def seeds() -> list[tuple]:
    """(kind, codec, shape, bytes)."""
    rng, found = np.random.default_rng(0), []
    for shape in SHAPES:
        x = np.clip(rng.normal(-100, 20, shape), -128, 127).astype(np.int8)
        found += [
            ("activations", codec, shape, cls(-100, 2).encode(x))
            for codec, cls in CODECS.items()
            if codec not in LEARNED
        ]
    weights = np.where(rng.random((12, 30)) < 0.7, 0, rng.choice(np.int8([-7, 3, 3, 9]), (12, 30))).astype(np.int8)
    for codec in WEIGHT_CODECS:
        for lanes in (1, 3):
            found.append(("weights", codec, weights.shape, encode(WeightCodes.of(weights), codec, lanes).data))
    return found


def change(rng, seed: tuple, other: tuple) -> tuple:
    kind, codec, shape, data = seed
    shape = tuple(max(1, n + rng.choice((0, 0, 0, 1, -1, 7))) for n in shape)
    return kind, codec, shape, mutate.some_bytes(rng, data, other[3])


def run(given: tuple) -> None:
    kind, codec, shape, data = given
    if kind == "weights":
        decode(data, shape)
    else:
        CODECS[Codec(codec)](-100, 2).decode(data, shape)


TARGET = Target(
    seeds, change, run, save=lambda given: pickle.dumps((given[0], int(given[1]), *given[2:])), limited=False
)
