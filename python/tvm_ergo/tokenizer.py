"""Text to token numbers and back, with a vocabulary of byte pairs as Llama's and SentencePiece's are: pieces with a
score, the pair of the best score joined first, single bytes where no piece fits.

Read from an .npz file with ``vocab`` (bytes) and ``vocab_scores``, or from a .bin file of the form that small Llama
networks come with: u32 longest piece, then for each piece f32 score, i32 length, bytes."""

from __future__ import annotations

import base64
import json
import math
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tvm_ergo.relay_passes.array_files import read_arrays
from tvm_ergo.target.errors import InputError
from tvm_ergo.target.limits import parsed_json

MAX_BYTES = 64 << 20  # of a vocabulary file
MAX_PIECES = 1 << 20
BEGIN, END = 1, 2  # numbers of the pieces that begin and end a text
BYTES_FROM = 3  # the 256 single bytes


@dataclass(frozen=True)
class Tokenizer:
    """pieces : bytes of each token. scores : the higher, the sooner a pair is joined into it."""

    pieces: tuple[bytes, ...]
    scores: tuple[float, ...]

    def __post_init__(self):
        if not BYTES_FROM + 256 <= len(self.pieces) == len(self.scores) <= MAX_PIECES:
            raise InputError(
                "this is no vocabulary",
                required=f"at least {BYTES_FROM + 256} pieces (unknown, begin, end, the 256 bytes), a score each",
                available=f"{len(self.pieces)} pieces, {len(self.scores)} scores",
            )
        if not all(map(math.isfinite, self.scores)):
            raise InputError("this is no vocabulary", required="scores that are numbers", available="NaN or infinity")

    @cached_property
    def _numbers(self) -> dict[bytes, int]:
        return {piece: n for n, piece in reversed(list(enumerate(self.pieces)))}

    def encode(self, text: str) -> list[int]:
        """Token numbers of a text, that of its beginning first. Bytes that are no UTF-8, as Python has them from a
        command line, are bytes again. Errors: InputError for a text that has no bytes (half a surrogate pair)."""
        numbers = [BEGIN]
        if not text:
            return numbers
        found: list[int] = []
        for character in " " + text:
            try:
                code = character.encode("utf-8", "surrogateescape")
            except UnicodeEncodeError:
                raise InputError("the text is no Unicode text", available=repr(character)) from None
            known = self._numbers.get(code)
            found += [known] if known is not None else [BYTES_FROM + byte for byte in code]
        while (best := self._best_pair(found)) is not None:
            at, joined = best
            found[at : at + 2] = [joined]
        return numbers + found

    def _best_pair(self, found: list[int]) -> tuple[int, int] | None:
        pairs = (
            (at, joined)
            for at, (a, b) in enumerate(zip(found, found[1:]))
            if (joined := self._numbers.get(self.pieces[a] + self.pieces[b])) is not None
        )
        return max(pairs, key=lambda pair: (self.scores[pair[1]], -pair[0]), default=None)

    def decode(self, numbers) -> str:
        """The text of token numbers; what begins and ends it gives nothing."""
        parts, first = [], True
        for number in (int(n) for n in numbers):
            if number in (BEGIN, END):
                continue
            if not 0 <= number < len(self.pieces):
                raise InputError(
                    f"there is no token {number}",
                    available=f"0..{len(self.pieces) - 1}",
                    remedy="use numbers that the tokenizer of this network gives",
                )
            byte = number - BYTES_FROM
            piece = bytes([byte]) if 0 <= byte < 256 else self.pieces[number]
            parts.append(piece[1:] if first and piece.startswith(b" ") else piece)
            first = False
        return b"".join(parts).decode("utf-8", "replace")

    # ---- as data ----
    def to_bytes(self) -> bytes:
        """JSON, as compiled models hold it."""
        pieces = [base64.b64encode(p).decode() for p in self.pieces]
        return json.dumps({"pieces": pieces, "scores": list(self.scores)}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Tokenizer:
        """Errors: ValueError, TypeError, KeyError for what is none."""
        found = parsed_json(data)
        pieces = tuple(base64.b64decode(p, validate=True) for p in found["pieces"])
        return cls(pieces, _numbers_of(found["scores"]))

    @classmethod
    def read(cls, path: str | Path) -> Tokenizer:
        """A vocabulary file. Errors: InputError."""
        try:
            pieces, scores = _of_arrays(path) if str(path).endswith(".npz") else _of_binary(_read(path))
        except (OSError, ValueError, KeyError, struct.error) as error:
            raise InputError(
                "the vocabulary cannot be read",
                where=str(path),
                required="an .npz file with vocab and vocab_scores, or a .bin file of pieces and scores",
                available=f"{type(error).__name__}: {error}"[:200],
                remedy="numpy.savez(FILE, vocab=pieces, vocab_scores=scores), pieces as an array of bytes",
            ) from None
        return cls(pieces, scores)


def _read(path: str | Path) -> bytes:
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)  # a device has no size and no end
    if len(data) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES:,} bytes")
    return data


def _numbers_of(values) -> tuple[float, ...]:
    """Errors: ValueError for one that no float holds, TypeError."""
    try:
        return tuple(float(v) for v in values)
    except OverflowError as error:
        raise ValueError(str(error)) from None


def _of_arrays(path: str | Path) -> tuple[tuple[bytes, ...], tuple[float, ...]]:
    arrays = read_arrays(path, InputError)
    vocab, scores = arrays["vocab"], arrays["vocab_scores"]
    if max(vocab.size, scores.size) > MAX_PIECES:
        raise ValueError(f"more than {MAX_PIECES} pieces")
    pieces = tuple(p if isinstance(p, bytes) else str(p).encode() for p in vocab.reshape(-1).tolist())
    return pieces, _numbers_of(scores.reshape(-1))


def _of_binary(data: bytes) -> tuple[tuple[bytes, ...], tuple[float, ...]]:
    at, pieces, scores = 4, [], []
    while at < len(data):
        score, length = struct.unpack_from("<fi", data, at)
        at += 8
        if not 0 <= length <= len(data) - at:
            raise ValueError(f"a piece of {length} bytes")
        pieces.append(data[at : at + length])
        scores.append(score)
        at += length
    return tuple(pieces), tuple(scores)
