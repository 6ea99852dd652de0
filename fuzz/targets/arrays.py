"""NumPy's files: plain and archived."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np

from fuzz import mutate
from fuzz.engine import Target
from tvm_ergo.relay_passes.array_files import read_arrays

FILE = Path(tempfile.mkdtemp(prefix="ergo-fuzz-")) / "a.npz"
HEADERS = (
    "(",
    "{",
    "}",
    "'",
    '"',
    "\n",
    "  ",
    "\\",
    "9" * 30,
    "-",
    "None",
    "True",
    "'|O'",
    "'<f8'",
    "((",
    "[1]",
    "1e9",
    "lambda",
    "#",
    "\t",
    "'''",
)


def _saved(save, *arrays) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *arrays)
    return buffer.getvalue()


def seeds() -> list[bytes]:
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    return [
        _saved(np.save, x),
        _saved(np.save, np.asfortranarray(x.astype(">i2"))),
        _saved(np.savez, x, x > 3),
        _saved(np.savez_compressed, x, np.zeros((100, 10))),
    ]


def change(rng, seed: bytes, other: bytes) -> bytes:
    at = seed.find(b"{'descr'")
    if at < 0 or rng.random() < 0.4:
        return mutate.some_bytes(rng, seed, other)
    place = at + rng.randrange(60)
    piece = rng.choice(HEADERS).encode()
    return seed[:place] + piece + seed[place + len(piece) :]


def run(data: bytes) -> None:
    FILE.write_bytes(data)
    read_arrays(FILE)


TARGET = Target(seeds, change, run)
