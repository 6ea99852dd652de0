"""The context codec against a slow, obvious twin: one value, one lane, one decision at a time, in Python integers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tvm_ergo.target.codecs import native
from tvm_ergo.target.codecs.context import ContextCodec, lanes_of


def clamp(value, low, high):
    return max(low, min(high, value))


def level(value: int) -> int:
    """0..3 exactly, then two steps per octave."""
    if value < 4:
        return value
    length = value.bit_length()
    return 4 + 2 * (length - 3) + (value >> (length - 2) & 1)


def stretch(p16: int) -> int:
    p = ((p16 >> 4) + 0.5) / 4096
    return clamp(round(math.log(p / (1 - p)) * 256), -2047, 2047)


class Arithmetic:
    """One lane: a 32-bit interval, bytes out."""

    def __init__(self):
        self.low, self.high, self.out = 0, 0xFFFFFFFF, bytearray()

    def code(self, p1: int, bit: int) -> None:
        middle = self.low + ((self.high - self.low) * p1 >> 16)
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        while self.low >> 24 == self.high >> 24:
            self.out.append(self.high >> 24)
            self.low, self.high = self.low << 8 & 0xFFFFFFFF, self.high << 8 & 0xFFFFFFFF | 255

    def finish(self) -> bytes:
        self.out.append(0 if self.low == 0 else (self.low >> 24) + 1)
        return bytes(self.out).rstrip(b"\0")


def decisions(value: int):
    """(name of the decision, bit) of every binary decision that spells the value."""
    length = value.bit_length()
    for k in range(length):
        yield ("longer", k), 1
    if length < 8:
        yield ("longer", length), 0
    for depth, shift in enumerate(range(length - 2, -1, -1)):
        above = value >> (shift + 1) & 1 if depth == 1 else 0
        yield ("below", length, depth, above), value >> shift & 1


def contexts(u: np.ndarray, y: int, x: int, c: int):
    def at(dy, dx, otherwise):
        inside = y + dy >= 0 and 0 <= x + dx < u.shape[1]
        return int(u[y + dy, x + dx, c]) if inside else otherwise
    left = at(0, -1, at(-1, 0, 0))
    up = at(-1, 0, left)
    up_left, up_right, left2, up2 = at(-1, -1, up) if y and x else up, at(-1, 1, up), at(0, -2, left), at(-2, 0, up)
    gradient = clamp(left + up - up_left, min(left, up), max(left, up))
    local = level(2 * (left + up) + up_left + up_right + left2 + up2)
    return [("neighbours", min(level(left), 13), min(level(up), 13)), ("channel", c),
            ("corner", min(level(up_right), 9), min(level((2 * gradient + left + up) >> 2), 15))], min(local >> 1, 8)


def encode_tile(u: np.ndarray) -> bytes:
    lanes = lanes_of(u.shape)
    coders, state, weights = [Arithmetic() for _ in range(lanes)], {}, {}
    for y, x in np.ndindex(*u.shape[:2]):
        for first in range(0, u.shape[2], lanes):
            group = range(first, min(first + lanes, u.shape[2]))
            spelled = {c: list(decisions(int(u[y, x, c]))) for c in group}
            # Unary decisions of all lanes stand before the bits below; the order within is that of the decisions.
            steps = [(("longer", k), None) for k in range(8)] + [("below", d) for d in range(7)]
            for step in steps:
                learned_state, learned_weights = {}, {}
                for c in group:
                    for node, bit in spelled[c]:
                        if node == step[0] or (step[0] == "below" and node[0] == "below" and node[2] == step[1]):
                            keys, weight_set = contexts(u, y, x, c)
                            seen = [state.get((key, node), (32768, 0)) for key in keys]
                            w = weights.get((weight_set, node), [19661] * 3 + [0])
                            inputs = [stretch(p) for p, _ in seen] + [77]
                            mixed = clamp(sum(a * b for a, b in zip(w, inputs)) >> 16, -2047, 2047)
                            p1 = round(65536 / (1 + math.exp(-mixed / 256)))
                            coders[c - first].code(p1, bit)
                            learned_weights[weight_set, node] = [a + ((b * ((bit << 16) - p1) * 5 + 32768) >> 16) for a, b in zip(w, inputs)]
                            for key, (p, n) in zip(keys, seen):
                                rate = math.floor(65536 / (n + 1.6))
                                learned_state[key, node] = (clamp(p + (((bit << 16) - p) * rate >> 16), 32, 65503), min(n + 1, 60))
                state.update(learned_state)
                weights.update(learned_weights)
    streams = [coder.finish() for coder in coders]
    return np.array([len(s) for s in streams], "<u2").tobytes() + b"".join(streams)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (6, 30, 37)])
def test_same_bytes_as_the_twin(shape, monkeypatch):
    rng = np.random.default_rng(sum(shape))
    u = (rng.geometric(0.08, shape) * (rng.random(shape) < 0.6)).clip(0, 255).astype(np.uint8)
    u[0, 0, 0] = 255
    expected = encode_tile(u)
    assert ContextCodec().encode_tiles([u])[0] == expected
    monkeypatch.setattr(native, "library", lambda: None)  # compiled or not
    assert ContextCodec().encode_tiles([u])[0] == expected


def test_there_are_several_lanes_in_the_largest():
    assert lanes_of((6, 30, 37)) == 3
