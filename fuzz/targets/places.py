"""The search for addresses in the library that the sanitizers watch: problems of any sizes and lifetimes."""

from __future__ import annotations

import pickle
from pathlib import Path

from fuzz import sanitized
from fuzz.engine import Target

sanitized.use()

from tvm_ergo.codegen.memory import exact  # noqa: E402  after the libraries are chosen
from tvm_ergo.codegen.memory.problem import Buffer, Problem  # noqa: E402

if sanitized.folder():
    exact.LIBRARY = Path(sanitized.folder()) / "libskyline.so"
WORK = 200_000


def change(rng, seed: tuple, other: tuple) -> tuple:
    """Some buffers of the seed, others made up."""
    made = [list(b) for b in seed[0] if rng.random() < 0.8]
    for _ in range(rng.choice((0, 1, 4, 20))):
        begin = rng.randrange(30)
        made.append(
            [
                rng.choice((0, 1, 7, 64, 4096, 1 << 31, 1 << 40)),
                begin,
                begin + rng.randrange(12),
                rng.choice((1, 1, 4, 64)),
            ]
        )
    for buffer in made[: rng.choice((0, 1, 3))]:
        buffer[0] = rng.choice((0, 1, 100, 1 << 20, (1 << 62) // 64))
    return tuple(map(tuple, made)), rng.choice((0, 1, 1000, 1 << 16, 1 << 41, (1 << 62)))


def run(given: tuple) -> None:
    buffers, capacity = given
    problem = Problem(tuple(Buffer(i, *b) for i, b in enumerate(buffers)))
    if exact.available(problem):
        exact.place_within(problem, capacity, WORK)


TARGET = Target(
    lambda: [(tuple((100 + 10 * i, i, i + 3, 4) for i in range(12)), 1000), (((8, 0, 2, 1), (8, 1, 3, 1)), 16)],
    change,
    run,
    save=pickle.dumps,
    limited=False,
)
