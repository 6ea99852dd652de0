"""The context codec against a slow, obvious twin: one value, one lane, one decision at a time, in Python integers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tvm_ergo.target.codecs import native
from tvm_ergo.target.codecs.base import unfold
from tvm_ergo.target.codecs.context import ContextCodec, _Coder, lanes_of
from tvm_ergo.target.codecs.context_tables import COARSE, FINE, decision_tables


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
    """(what all contexts call the decision, what the third one calls it, bit) of every binary decision that spells the
    value."""
    length = value.bit_length()
    for k in range(length):
        yield ("longer", k), ("longer", k), 1
    if length < 8:
        yield ("longer", length), ("longer", length), 0
    spelled = bin(value)[3:]  # after the leading one
    for depth, bit in enumerate(spelled):
        above = spelled[0] if depth == 1 else ""
        yield ("below", length, depth, above), ("below", length, depth, spelled[: min(depth, 2)]), int(bit)


def side(d: int, signed: bool):
    return (d < 0, min(level(2 * abs(d)) // 2, 6)) if signed else min(level(max(d, 0)), 13)


def place(d: int, signed: bool):
    if signed:
        return d < 0, min(abs(d) if abs(d) < 6 else 6 + (abs(d) - 6) // 8, 11)
    d = max(d, 0)
    return d if d < 6 else 6 + (d - 6) // 7 if d < 62 else min(14 + (d - 62) // 20, 23)


def contexts(u: np.ndarray, y: int, x: int, c: int, zero_point: int):
    signed = zero_point > -128

    def at(dy, dx, otherwise):
        inside = y + dy >= 0 and 0 <= x + dx < u.shape[1]
        return int(unfold(u[y + dy, x + dx, c], zero_point)) - zero_point if inside else otherwise

    left = at(0, -1, at(-1, 0, 0))
    up = at(-1, 0, left)
    up_left, up_right, left2, up2 = at(-1, -1, up) if y and x else up, at(-1, 1, up), at(0, -2, left), at(-2, 0, up)
    gradient = clamp(left + up - up_left, min(left, up), max(left, up))
    varies = (1 + signed) * (abs(left - up_left) + abs(up - up_left) + abs(up - up_right))
    local = level((1 + signed) * (2 * (abs(left) + abs(up)) + abs(up_left) + abs(up_right) + abs(left2) + abs(up2)))
    return [
        ("neighbours", side(left, signed), side(up, signed)),
        ("channel", c),
        ("place", place((2 * gradient + left + up) >> 2, signed), sum(varies >= bound for bound in (6, 20, 48))),
    ], min(local >> 1, 8)


def encode_tile(u: np.ndarray, zero_point: int) -> bytes:
    lanes = lanes_of(u.shape)
    coders, state, weights = [Arithmetic() for _ in range(lanes)], {}, {}
    # Unary decisions of all lanes stand before the bits below; the order within is that of the decisions.
    steps = [("longer", k) for k in range(8)] + [("below", d) for d in range(7)]
    for y, x in np.ndindex(*u.shape[:2]):
        for first in range(0, u.shape[2], lanes):
            group = range(first, min(first + lanes, u.shape[2]))
            spelled = {c: list(decisions(int(u[y, x, c]))) for c in group}
            for kind, which in steps:
                learned_state, learned_weights = {}, {}
                for c in group:
                    for node, fine, bit in spelled[c]:
                        if node[0] == kind and node[1 if kind == "longer" else 2] == which:
                            keys, weight_set = contexts(u, y, x, c, zero_point)
                            keys = [(keys[0], node), (keys[1], node), (keys[2], fine)]
                            seen = [state.get(key, (32768, 0)) for key in keys]
                            w = weights.get((weight_set, node), [19661] * 3 + [0])
                            inputs = [stretch(p) for p, _ in seen] + [77]
                            mixed = clamp(sum(a * b for a, b in zip(w, inputs)) >> 16, -2047, 2047)
                            p1 = round(65536 / (1 + math.exp(-mixed / 256)))
                            coders[c - first].code(p1, bit)
                            learned_weights[weight_set, node] = [
                                a + ((b * ((bit << 16) - p1) * 5 + 32768) >> 16) for a, b in zip(w, inputs)
                            ]
                            for key, (p, n) in zip(keys, seen):
                                rate = math.floor(65536 / (n + 1.6))
                                learned_state[key] = (
                                    clamp(p + (((bit << 16) - p) * rate >> 16), 32, 65503),
                                    min(n + 1, 60),
                                )
                state.update(learned_state)
                weights.update(learned_weights)
    streams = [coder.finish() for coder in coders]
    return np.array([len(s) for s in streams], "<u2").tobytes() + b"".join(streams)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (6, 30, 47)])
@pytest.mark.parametrize("zero_point", [-128, 3, 127])
def test_same_bytes_as_the_twin(shape, zero_point, monkeypatch):
    rng = np.random.default_rng(sum(shape))
    u = (rng.geometric(0.08, shape) * (rng.random(shape) < 0.6)).clip(0, 255).astype(np.uint8)
    u[0, 0, 0] = 255
    expected = encode_tile(u, zero_point)
    codec = ContextCodec(zero_point=zero_point)
    assert codec.encode_tiles([u])[0] == expected
    monkeypatch.setattr(native, "library", lambda: None)  # compiled or not
    assert codec.encode_tiles([u])[0] == expected


def test_there_are_several_lanes_in_the_largest():
    assert lanes_of((6, 30, 47)) == 2


def test_every_decision_has_a_number():
    first, coarse = decision_tables()
    assert coarse.size == FINE and set(coarse.tolist()) == set(range(COARSE))
    assert np.unique(first[first > 0]).size == sum(range(1, 8))


def test_memory_of_an_engine_is_that_of_the_model():
    coder = _Coder((8, 4, 20), 1, -128)
    assert ContextCodec.state_bytes(20) == 3 * coder.state.size + 2 * coder.weights.size
