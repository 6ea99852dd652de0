"""Detection heads: which part of which output is boxes, objectness and classes, level by level."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tvm_ergo.frontend import TensorInfo
from tvm_ergo.post.options import Detection, Ssd, Yolov5, Yolov8, Yolox
from tvm_ergo.post.sources import Places
from tvm_ergo.target.errors import InputError


@dataclass(frozen=True)
class LevelPlaces:
    """One level: boxes [H, W, A, B], objectness [H, W, A, 1] or None, classes [H, W, A, C]. step : pixels a cell, y and
    x. anchors : pixels, [A, 2] or [W * A, 4], or None."""

    boxes: Places
    objectness: Places | None
    classes: Places
    step: tuple[float, float] = (0.0, 0.0)
    anchors: np.ndarray | None = None


Outputs = list[tuple[TensorInfo, Places]]


def levels_of(options: Detection, outputs: Outputs, picture: tuple[int, int]) -> list[LevelPlaces]:
    """picture : height and width of the network's input. Errors: InputError where the outputs are not those of such a
    head, saying what was expected."""
    return _READERS[type(options)](options, outputs, picture)


def wrong(options, outputs: Outputs, required: str) -> InputError:
    return InputError(
        f"the outputs are not those of a {options.NAME} head",
        where=f"post-processing {options.NAME}",
        required=required,
        available=", ".join(f"{info.name} {list(places.shape)}" for info, places in outputs),
        remedy="give the post-processing that fits, its strides, or export the network up to its raw heads",
    )


def _sides(options, picture: tuple[int, int]) -> list[tuple[int, int]]:
    """Height and width of each level's grid, as networks with padding have them."""
    return [tuple(math.ceil(n / stride) for n in picture) for stride in options.strides]


def _cells(places: Places, count: int, side: tuple[int, int], anchors: int) -> Places | None:
    """An output of one level, any of the usual layouts, as [H, W, A, count]; None where it is none of these."""
    shape, (h, w) = places.shape, side
    if shape[:1] == (1,):
        places, shape = places[0], shape[1:]
    fields = anchors * count
    if shape == (fields, h, w):
        return places.reshape(anchors, count, h, w).transpose(2, 3, 0, 1)
    if shape == (h, w, fields):
        return places.reshape(h, w, anchors, count)
    if shape == (anchors, h, w, count):
        return places.transpose(1, 2, 0, 3)
    if shape == (h, w, anchors, count):
        return places
    if shape in ((h * w, fields), (h * w * anchors, count)):
        return places.reshape(h, w, anchors, count)
    return places.reshape(anchors, count, h, w).transpose(2, 3, 0, 1) if shape == (fields, h * w) else None


def _whole(outputs: Outputs, sides, anchors: int) -> tuple[list[Places], int] | None:
    """One output that joins all levels, [1, N, F] or [1, F, N], as a grid each; in it anchors come before cells."""
    cells = sum(h * w for h, w in sides) * anchors
    (_, places), *more = outputs
    if more or len(places.shape) != 3 or places.shape[0] != 1 or cells not in places.shape[1:]:
        return None
    rows = places[0] if places.shape[1] == cells else places[0].transpose(1, 0)
    found, at, count = [], 0, rows.shape[1]
    for h, w in sides:
        part = rows[at : at + h * w * anchors]
        found.append(part.reshape(anchors, h, w, count).transpose(1, 2, 0, 3))
        at += h * w * anchors
    return found, count


def _gathered(options, outputs: Outputs, picture, anchors: int, least: int, form: str) -> list[Places]:
    """Each level's [H, W, A, F] with F at least ``least``, from one output or one a level."""
    sides = _sides(options, picture)
    whole = _whole(outputs, sides, anchors)
    if whole is not None and whole[1] >= least:
        return whole[0]
    required = (
        f"{form}; for a picture of {picture[0]} x {picture[1]} and strides {_list(options.strides)} grids of "
        + ", ".join(f"{h} x {w}" for h, w in sides)
    )
    if len(outputs) != len(sides):
        raise wrong(options, outputs, required)
    found = []
    for h, w in sides:
        for _, places in outputs:
            size, cell = math.prod(places.shape), h * w * anchors
            part = _cells(places, size // cell, (h, w), anchors) if size % cell == 0 and size // cell >= least else None
            if part is not None and not any(part.address is p.address for p in found):
                found.append(part)
                break
    if len(found) != len(sides) or len({p.shape[3] for p in found}) != 1:
        raise wrong(options, outputs, required)
    return found


def _list(numbers) -> str:
    return ", ".join(f"{n:g}" for n in numbers)


def _yolox(options: Yolox, outputs: Outputs, picture) -> list[LevelPlaces]:
    form = "one output [1, cells, 5 + classes], or one [1, 5 + classes, H, W] a level"
    found = _gathered(options, outputs, picture, 1, 6, form)
    return [
        LevelPlaces(p[..., :4], p[..., 4:5], p[..., 5:], (float(s), float(s))) for p, s in zip(found, options.strides)
    ]


def _yolov5(options: Yolov5, outputs: Outputs, picture) -> list[LevelPlaces]:
    levels = len(options.strides)
    if options.anchors.size % (2 * levels):
        raise InputError(
            "the anchors are not a width and a height for each anchor of each level",
            where="post-processing yolov5, option anchors",
            required=f"a multiple of {2 * levels} numbers",
            available=str(options.anchors.size),
            remedy="give the anchors that the network was trained with, level by level",
        )
    anchors = options.anchors.reshape(levels, -1, 2)
    count = anchors.shape[1]
    form = (
        f"raw heads of {count} anchors: one [1, {count} * (5 + classes), H, W] a level, or all as [1, N, 5 + classes]"
    )
    found = _gathered(options, outputs, picture, count, 6, form)
    return [
        LevelPlaces(p[..., :4], p[..., 4:5], p[..., 5:], (float(s), float(s)), a)
        for p, s, a in zip(found, options.strides, anchors)
    ]


def _yolov8(options: Yolov8, outputs: Outputs, picture) -> list[LevelPlaces]:
    wide, sides = 4 * options.bins, _sides(options, picture)
    if len(outputs) == 2 * len(sides):  # boxes and classes apart
        parts = [[p for o, p in outputs if _fits(p, side)] for side in sides]
        if any(len(pair) != 2 for pair in parts):
            raise wrong(options, outputs, f"boxes of {wide} values and classes, one of each a level")
        found = []
        for pair, (h, w), stride in zip(parts, sides, options.strides):
            grids = [_cells(p, math.prod(p.shape) // (h * w), (h, w), 1) for p in pair]
            boxes = next((g for g in grids if g is not None and g.shape[3] == wide), None)
            classes = next((g for g in grids if g is not None and g is not boxes), None)
            if boxes is None or classes is None:
                raise wrong(options, outputs, f"boxes of {wide} values and classes, one of each a level")
            found.append(LevelPlaces(boxes, None, classes, (float(stride), float(stride))))
        return found
    form = (
        f"raw heads of {options.bins} bins a side: [1, {wide} + classes, H, W] a level, or all [1, {wide} + classes, N]"
    )
    grids = _gathered(options, outputs, picture, 1, wide + 1, form)
    return [
        LevelPlaces(p[..., :wide], None, p[..., wide:], (float(s), float(s))) for p, s in zip(grids, options.strides)
    ]


def _fits(places: Places, side: tuple[int, int]) -> bool:
    h, w = side
    shape = places.shape[1:]
    return shape[-2:] == side or shape[:2] == side or h * w in shape


def _ssd(options: Ssd, outputs: Outputs, picture) -> list[LevelPlaces]:
    form = "boxes [1, N, 4] (or [1, N, 1, 4]) and classes [1, N, C]"
    if len(outputs) != 2:
        raise wrong(options, outputs, form)
    rows = [p.reshape(-1, p.shape[-1]) for _, p in outputs]
    boxes, classes = rows if rows[0].shape[1] == 4 else rows[::-1]
    count = boxes.shape[0]
    if boxes.shape[1] != 4 or classes.shape[0] != count or classes.shape[1] <= options.background:
        raise wrong(options, outputs, form)
    if options.anchors is None or options.anchors.size != 4 * count:
        raise InputError(
            "an SSD head needs its anchors",
            where="post-processing ssd, option anchors",
            required=f"an array [{count}, 4]: x and y of the centre, width, height",
            available="none" if options.anchors is None else f"{options.anchors.size} numbers",
            remedy="--post-option anchors=FILE.npy on the command line, anchors=array in Python",
        )
    anchors = options.anchors.reshape(count, 4)
    if np.abs(anchors).max() <= 2:
        anchors = anchors * [picture[1], picture[0], picture[1], picture[0]]
    found, at = [], 0
    for end in _runs(boxes, classes):
        part = [p[at:end].reshape(1, -1, _period(p[at:end]), p.shape[1]) for p in (boxes, classes)]
        period = math.lcm(*(p.shape[2] for p in part))
        if (end - at) % period:
            raise wrong(options, outputs, form)
        pair = [p[at:end].reshape(1, -1, period, p.shape[1]) for p in (boxes, classes)]
        found.append(LevelPlaces(pair[0], None, pair[1], anchors=anchors[at:end]))
        at = end
    return found


def _runs(*parts: Places) -> list[int]:
    """Ends of the pieces of rows in which every part comes from one port."""
    changed = np.zeros(parts[0].shape[0], bool)
    for p in parts:
        changed[1:] |= p.port[1:, 0] != p.port[:-1, 0]
    return [*np.flatnonzero(changed).tolist(), parts[0].shape[0]]


def _period(rows: Places) -> int:
    """After how many rows the scales repeat: the anchors of a cell."""
    count = rows.shape[0]
    for period in range(1, 65):
        if count % period == 0 and all(
            np.array_equal(np.tile(a[:period], (count // period, 1)), a, equal_nan=True)
            for a in (rows.scale, rows.zero_point)
        ):
            return period
    return count


_READERS: dict[type, Callable] = {Yolox: _yolox, Yolov5: _yolov5, Yolov8: _yolov8, Ssd: _ssd}
