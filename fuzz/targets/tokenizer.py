"""Vocabularies: files, and what a compiled model holds of one."""

from __future__ import annotations

import io
import struct
import tempfile
from pathlib import Path

import numpy as np

from fuzz import mutate
from fuzz.engine import Target
from fuzz.targets import arrays
from tvm_ergo.tokenizer import Tokenizer

FOLDER = Path(tempfile.mkdtemp(prefix="ergo-fuzz-"))
PIECES = [b"<unk>", b"<s>", b"</s>", *(bytes([i]) for i in range(256)), b" a", b"ab", "ä".encode()]
KINDS = (b"npz", b"bin", b"own")


def seeds() -> list[bytes]:
    """The first three bytes name the form."""
    scores = np.arange(len(PIECES), dtype=np.float32)
    archive = io.BytesIO()
    np.savez(archive, vocab=np.array(PIECES), vocab_scores=scores)
    binary = struct.pack("<I", 8) + b"".join(
        struct.pack("<fi", score, len(piece)) + piece for score, piece in zip(scores.tolist(), PIECES)
    )
    own = Tokenizer(tuple(PIECES), tuple(scores.tolist())).to_bytes()
    return [kind + data for kind, data in zip(KINDS, (archive.getvalue(), binary, own))]


def change(rng, seed: bytes, other: bytes) -> bytes:
    if seed[:3] == b"npz":
        return seed[:3] + arrays.change(rng, seed[3:], other[3:])
    return seed[:3] + mutate.some_bytes(rng, seed[3:], other[3:])


def run(data: bytes) -> None:
    kind, content = data[:3], data[3:]
    if kind == b"own":
        found = Tokenizer.from_bytes(content)
    else:
        file = FOLDER / f"vocabulary.{kind.decode()}"
        file.write_bytes(content)
        found = Tokenizer.read(file)
    assert found.decode(found.encode("ab ä\x00")) is not None


TARGET = Target(seeds, change, run, own=(ValueError, TypeError, KeyError))
