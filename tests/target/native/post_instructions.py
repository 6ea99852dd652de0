"""Random calls of post-processing: odd shapes, ties, extreme zero points, nothing found, more boxes than room."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
from hypothesis import strategies as st

from tvm_ergo.target.isa import CpuCall, CpuFunction, Operand
from tvm_ergo.target.post.boxes import Activation, Head, Level

from .scene import Scene

STORED = ["int8", "int8", "uint8", "int16", "int32"]
SHIFTS = {"int8": (0, 14), "uint8": (0, 14), "int16": (4, 24), "int32": (14, 40)}


def _call(function: CpuFunction, inputs, outputs, params=()) -> CpuCall:
    return CpuCall(function=function, inputs=inputs, outputs=outputs, params=params)


def _scales(s: Scene, x: Operand, group: int = 0) -> Operand:
    """One for all channels, one each, one each repeated; extreme ones too."""
    channels = x.shape[-1] if s.draw(st.booleans()) else 1
    shape = (group, channels, 3) if group and s.draw(st.booleans()) else (channels, 3)
    operand, extreme = s.place(shape, "int32"), s.int(0, 5) == 0
    low, high = (0, 63) if extreme else SHIFTS[x.dtype.numpy.name]
    size = shape[:-1]
    zero_points = [0, -128, 127, 3] if not extreme else [-(2**31), 2**31 - 1]
    found = [s.rng.integers(0 if extreme else 2**23, 2**24, size), s.rng.integers(low, high, size)]
    s.memory.view(operand)[...] = np.stack([*found, s.rng.choice(zero_points, size)], -1)
    if s.int(0, 3) == 0 and len(shape) == 2:  # the same place for every channel
        return Operand(operand.addr, operand.dtype, (x.shape[-1], 3), (0, operand.strides[1]))
    return operand


def _stored(s: Scene, shape, group: int = 0) -> tuple[Operand, Operand]:
    x = s.place(shape, s.draw(st.sampled_from(STORED)))
    if s.draw(st.booleans()):  # ties
        s.memory.view(x)[...] = s.rng.integers(0, s.int(1, 4), shape)
    return x, _scales(s, x, group)


def _shape(s: Scene, most: int = 4) -> tuple[int, ...]:
    return tuple(s.int(1, 6) for _ in range(s.int(1, most)))


def _elementwise(function: CpuFunction):
    def build(s: Scene) -> CpuCall:
        shape = _shape(s)
        return _call(function, _stored(s, shape), [s.place(shape, "int32")])

    return build


def _topk(s: Scene) -> CpuCall:
    count = s.int(1, 40)
    k = s.int(1, count)
    return _call(CpuFunction.TOPK, _stored(s, (count,)), [s.place((k,), "int32"), s.place((k,), "int32")])


def _boxes(s: Scene) -> CpuCall:
    head, activation = s.draw(st.sampled_from(Head)), s.draw(st.sampled_from(Activation))
    if activation is Activation.SOFTMAX and head is not Head.SSD:
        activation = Activation.SIGMOID
    grid = (1, s.int(1, 15), s.int(1, 3)) if head is Head.SSD else (s.int(1, 5), s.int(1, 5), s.int(1, 3))
    classes, values = s.int(1, 6), 4 * s.draw(st.sampled_from([1, 3, 16])) if head is Head.YOLOV8 else 4
    inputs = [*_stored(s, (*grid, values), grid[2])]
    if head.has_objectness:
        inputs += _stored(s, (*grid, 1))
    inputs += _stored(s, (*grid, classes), grid[2])
    if head.has_anchors:
        inputs.append(s.place((grid[1] * grid[2], 4) if head is Head.SSD else (grid[2], 2), "int32"))
        if s.draw(st.booleans()):
            view = s.memory.view(inputs[-1])
            view[...] = s.rng.integers(0, 20000, view.shape)
    step, variance = st.sampled_from([0, 512, 2048, 1 << 20]), st.sampled_from([0, 6554, 13107, 1 << 20])
    level = Level(
        head=int(head),
        activation=int(activation),
        floor=s.draw(st.sampled_from([-(2**31), -(2**31) + 1, -30000, 0, 655, 1 << 16, 2**31 - 1])),
        threshold=s.draw(st.sampled_from([0, 1 << 20, 1 << 28, 1 << 30])),
        first_class=s.int(0, classes - 1),
        step_y=s.draw(step),
        step_x=s.draw(step),
        centre=s.draw(variance),
        size=s.draw(variance),
        rows_first=s.int(0, 1),
    )
    room = s.draw(st.sampled_from([1, 2, 5, 64, 300]))
    return _call(CpuFunction.BOXES, inputs, [s.place((1 + room, 6), "int32", plain=True)], astuple(level))


def _suppress(s: Scene) -> CpuCall:
    rows = tuple(s.int(1, 12) for _ in range(s.int(1, 4)))
    found = s.place((sum(rows), 6), "int32")
    view, first = s.memory.view(found), 0
    narrow = s.draw(st.booleans())
    for length in rows:
        view[first, 0] = s.int(0, length - 1)
        part = view[first + 1 : first + length]
        if narrow:  # many overlaps and ties
            part[:, 0] = np.sort(s.rng.integers(0, 4, len(part)))[::-1]
            part[:, 1] = s.rng.integers(0, 2, len(part))
            part[:, 2:4] = s.rng.integers(0, 4, (len(part), 2))
            part[:, 4:] = part[:, 2:4] + s.rng.integers(-1, 5, (len(part), 2))
        first += length
    most = s.int(1, 20)
    outputs = [s.place(shape, "int32") for shape in ((most, 4), (most,), (most,), (1,))]
    iou = s.draw(st.sampled_from([0, 1, 32768, 42598, 65535, 65536]))
    return _call(CpuFunction.SUPPRESS, [found], outputs, (iou, *rows))


def _keypoints(s: Scene) -> CpuCall:
    shape = tuple(s.int(1, 6) for _ in range(3))
    steps = tuple(s.draw(st.sampled_from([0, 1, 257, 1024, 1 << 20])) for _ in range(2))
    outputs = [s.place((shape[2], 2), "int32"), s.place((shape[2],), "int32")]
    return _call(CpuFunction.KEYPOINTS, _stored(s, shape), outputs, steps)


def _mask(s: Scene) -> CpuCall:
    shape = (s.int(1, 6), s.int(1, 6), s.draw(st.sampled_from([1, 2, 5, 21, 256])))
    return _call(CpuFunction.MASK, _stored(s, shape), [s.place(shape[:2], "uint8")])


def _ctc(s: Scene) -> CpuCall:
    steps, classes = s.int(1, 20), s.int(1, 5)
    blank = s.draw(st.sampled_from([-1, 0, classes - 1, classes + 3]))
    outputs = [s.place((steps,), "int32"), s.place((1,), "int32")]
    return _call(CpuFunction.CTC, _stored(s, (steps, classes)), outputs, (blank,))


def _anomaly(s: Scene) -> CpuCall:
    shape = _shape(s)
    return _call(CpuFunction.ANOMALY, [*_stored(s, shape), *_stored(s, shape)], [s.place((1,), "int32")])


POST = {
    "post softmax": _elementwise(CpuFunction.SOFTMAX),
    "post sigmoid": _elementwise(CpuFunction.SIGMOID),
    "post topk": _topk,
    "post boxes": _boxes,
    "post suppress": _suppress,
    "post keypoints": _keypoints,
    "post mask": _mask,
    "post ctc": _ctc,
    "post anomaly": _anomaly,
}
