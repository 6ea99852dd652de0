"""Random instructions on packed signs."""

from __future__ import annotations

from hypothesis import strategies as st

from tvm_ergo.target.isa import Binarize, BinaryPool, Xnor, XnorSum
from tvm_ergo.target.isa.geometry import every_window_meets_input

from .scene import Scene


def _binarize(s: Scene):
    leading, c = tuple(s.int(1, 4) for _ in range(s.int(0, 3))), s.int(1, 40)
    return Binarize(x=s.place((*leading, c)), low=s.place((c,)), high=s.place((c,)), out=_packed(s, (*leading, c)))


def _packed(s: Scene, shape):
    return s.place((*shape[:-1], -(-shape[-1] // 8)), "uint8")


def _pool(s: Scene):
    shape, kernel = (s.int(1, 2), s.int(1, 6), s.int(1, 6), s.int(1, 40)), (s.int(1, 3), s.int(1, 3))
    window, (oh, ow) = s.window(kernel, shape)
    for axis, size in enumerate((oh, ow)):
        place = (shape[1 + axis], kernel[axis], window["strides"][axis], window["padding"][axis])
        if not every_window_meets_input(*place, window["dilation"][axis], size):
            kernel, window, (oh, ow) = (1, 1), dict(strides=(1, 1), padding=(0,) * 4, dilation=(1, 1)), shape[1:3]
            break
    return BinaryPool(x=_packed(s, shape), out=_packed(s, (shape[0], oh, ow, shape[3])), pool=kernel, **window)


def _products(s: Scene):
    c, o, kernel = s.draw(st.sampled_from([1, 7, 8, 9, 64, 65, 130])), s.int(1, 20), (s.int(1, 3), s.int(1, 3))
    shape = (s.int(1, 2), s.int(1, 6), s.int(1, 6), c)
    window, hw = s.window(kernel, shape)
    operands = dict(x=_packed(s, shape), w=_packed(s, (o, *kernel, c)))
    return operands, {**window, "channels": c, "pad_value": s.int(-1, 1)}, (shape[0], *hw, o)


def _thresholds(s: Scene, most: int, o: int):
    found = s.place((o,), "int16")
    s.memory.view(found)[...] = s.rng.integers(-most - 1, most + 2, o)
    return found


def _xnor(s: Scene):
    operands, fields, shape = _products(s)
    most = fields["channels"] * operands["w"].shape[1] * operands["w"].shape[2]
    bounds = {name: _thresholds(s, most // part, shape[3]) for name, part in (("low", 2), ("high", 1))}
    return Xnor(**operands, **bounds, out=_packed(s, shape), **fields)


def _xnor_sum(s: Scene):
    operands, fields, shape = _products(s)
    operands |= {"scale": s.place((shape[3],), "int16"), **s.per_channel(shape[3])}
    out = s.place(shape, s.draw(st.sampled_from(["int8", "int32"])))
    return XnorSum(**operands, out=out, **fields, **s.clip())


BUILDERS = {"binarize": _binarize, "binary_pool": _pool, "xnor": _xnor, "xnor_sum": _xnor_sum}
