"""What post-processing there is, and its options: one frozen class each, by the name that ``--post`` takes."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

import numpy as np

from tvm_ergo.relay_passes.array_files import read_arrays
from tvm_ergo.target.errors import InputError

Numbers = tuple[float, ...]
MOST_BOXES, MOST_ROOM = 10_000, 100_000
COCO_ANCHORS = (10, 13, 16, 30, 33, 23, 30, 61, 62, 45, 59, 119, 116, 90, 156, 198, 373, 326)
"""Width and height of YOLOv5's three anchors a level, pixels: those its published weights were trained with."""


@dataclass(frozen=True)
class PostOptions:
    """Base of all options."""

    NAME: typing.ClassVar[str] = ""

    def __post_init__(self):
        for option in fields(self):
            object.__setattr__(self, option.name, _checked(self, option, getattr(self, option.name)))

    def described(self) -> dict:
        """JSON: the name and every option."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            "name": self.NAME,
            "options": {
                name: f"array{list(value.shape)}" if isinstance(value, np.ndarray) else value
                for name, value in values.items()
            },
        }


@dataclass(frozen=True)
class Detection(PostOptions):
    """score : least score of a box, 0..1. iou : boxes of a class that overlap a better one by more than this are left
    out. most : boxes given. room : candidates kept of each level before that, the best ones. activation : what makes
    scores of the head's values, "sigmoid" or "none"; "auto" takes "none" where the network itself ends with one."""

    score: float = 0.25
    iou: float = 0.45
    most: int = 100
    room: int = 256
    activation: str = "auto"


@dataclass(frozen=True)
class Yolox(Detection):
    """Boxes as x, y, log w, log h in cells, objectness, classes. strides : pixels a cell, level by level."""

    NAME = "yolox"
    strides: Numbers = (8, 16, 32)


@dataclass(frozen=True)
class Yolov5(Detection):
    """Raw heads [1, A * (5 + C), H, W] a level. anchors : width and height in pixels, level by level (numbers, or an
    array [levels, A, 2])."""

    NAME = "yolov5"
    strides: Numbers = (8, 16, 32)
    anchors: np.ndarray | Numbers = COCO_ANCHORS


@dataclass(frozen=True)
class Yolov8(Detection):
    """Raw heads: distances to the sides, over bins (16) or direct, and classes. bins : of a distance."""

    NAME = "yolov8"
    strides: Numbers = (8, 16, 32)
    bins: int = 16


@dataclass(frozen=True)
class Ssd(Detection):
    """Boxes [1, N, 4] and classes [1, N, C]. anchors : [N, 4], x and y of the centre, width, height, in pixels of the
    input (all at most 2: in parts of it). centre, size : what offsets and logarithms are multiplied by. order : "yxhw"
    (TensorFlow) or "xywh" of the stored boxes. background : the classes' first one is none (1), or not (0).
    activation : "sigmoid", "softmax" or "none"."""

    NAME = "ssd"
    anchors: np.ndarray | Numbers | None = None
    centre: float = 0.1
    size: float = 0.2
    order: str = "yxhw"
    background: int = 1


@dataclass(frozen=True)
class Softmax(PostOptions):
    """Probabilities; with k only those of the best k classes."""

    NAME = "softmax"
    k: int | None = None


@dataclass(frozen=True)
class TopK(PostOptions):
    """The k best classes and their values."""

    NAME = "topk"
    k: int = 5


@dataclass(frozen=True)
class Sigmoid(PostOptions):
    """Probabilities, each for itself."""

    NAME = "sigmoid"


@dataclass(frozen=True)
class Keypoints(PostOptions):
    """The places of the largest values of heat maps."""

    NAME = "keypoints"


@dataclass(frozen=True)
class Argmax(PostOptions):
    """A mask: the best class of each pixel."""

    NAME = "argmax"


@dataclass(frozen=True)
class Ctc(PostOptions):
    """Greedy decoding of a sequence of classes. blank : its class; -1: the last one."""

    NAME = "ctc"
    blank: int = 0


@dataclass(frozen=True)
class Anomaly(PostOptions):
    """Mean squared difference of the network's input and its output."""

    NAME = "anomaly"


POSTS: dict[str, type[PostOptions]] = {
    cls.NAME: cls for cls in (Yolox, Yolov5, Yolov8, Ssd, Softmax, TopK, Sigmoid, Keypoints, Argmax, Ctc, Anomaly)
}
_CHOICES = {"activation": ("auto", "none", "sigmoid", "softmax"), "order": ("yxhw", "xywh")}
_LIMITS = {
    "score": (0, 1),
    "iou": (0, 1),
    "most": (1, MOST_BOXES),
    "room": (1, MOST_ROOM),
    "k": (1, 1 << 20),
    "blank": (-1, 1 << 20),
    "bins": (1, 256),
    "centre": (0, 16),
    "size": (0, 16),
    "background": (0, 1),
}


def post_options(value: PostOptions | str | None) -> PostOptions | None:
    """Of ``post=``: an object, or a name with all options at their defaults. Errors: InputError."""
    if value is None or isinstance(value, PostOptions):
        return value
    return named(value, {})


def named(name: str, given: Mapping[str, str]) -> PostOptions:
    """From a name and options as text (``--post``, ``--post-option``). Errors: InputError."""
    cls = POSTS.get(name) if isinstance(name, str) else None
    if cls is None:
        raise InputError(
            "there is no such post-processing",
            available=repr(name)[:80],
            required=", ".join(POSTS),
            remedy="use one of these names (docs/post.md)",
        )
    known = {f.name: f for f in fields(cls)}
    for option in given:
        if option not in known:
            raise InputError(
                f"{name} has no option {option!r}",
                where="--post-option",
                available=", ".join(f"{f.name}={_shown(f)}" for f in known.values()) or "none",
                remedy=f"--post-option {next(iter(known), 'NAME')}=VALUE" if known else "leave it out",
            )
    return cls(**{option: _read(option, text) for option, text in given.items()})


def _shown(option) -> str:
    if option.default is None or option.default is MISSING:
        return "..."
    return ",".join(map(str, option.default)) if isinstance(option.default, tuple) else str(option.default)


def _read(option: str, text: str):
    """A number, numbers with commas, an array's file, or a word."""
    if Path(text).suffix == ".npy":
        return next(iter(read_arrays(text, InputError).values()))
    try:
        numbers = tuple(float(part) if "." in part or "e" in part else int(part) for part in text.split(","))
    except ValueError:
        return text
    return numbers if option in ("strides", "anchors") else numbers[0] if len(numbers) == 1 else numbers


def _checked(options: PostOptions, option, value):
    """The value of an option in its type. Errors: InputError."""
    where, name = f"post-processing {options.NAME}, option {option.name}", option.name
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise InputError(
                "an option is not one of its values",
                where=where,
                available=repr(value)[:80],
                required=", ".join(_CHOICES[name]),
                remedy="use one of these values",
            )
        return value
    if name in ("strides", "anchors"):
        return _numbers(where, name, value)
    if value is None and option.default is None:
        return None
    low, high = _LIMITS[name]
    whole = isinstance(option.default, int) or option.default is None
    number = not isinstance(value, bool) and isinstance(value, (int, np.integer) if whole else (int, float, np.number))
    if not number or not low <= value <= high:
        raise InputError(
            "an option has a wrong value",
            where=where,
            available=repr(value)[:80],
            required=f"{'a whole number' if whole else 'a number'}, {low} to {high}",
            remedy="give a value of that kind (docs/post.md)",
        )
    return int(value) if whole else float(value)


def _numbers(where: str, name: str, value):
    if value is None:
        return None
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        array = np.zeros(0)
    least = 1e-9 if name == "strides" else -1e9
    if not array.size or not np.isfinite(array).all() or array.min() < least or array.max() > 16384:
        raise InputError(
            "an option has a wrong value",
            where=where,
            available=repr(value)[:80],
            required="numbers",
            remedy="give a value of that kind (docs/post.md)",
        )
    return tuple(array.ravel().tolist()) if name == "strides" else array
