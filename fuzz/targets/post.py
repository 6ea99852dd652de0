"""Settings of post-processing, as the command line takes them, with files of anchors; carried out on small networks."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from tvm import relax

import tvm_ergo
from fuzz import mutate
from fuzz.engine import Target
from fuzz.targets import arrays
from fuzz.targets.nets import function_of
from tvm_ergo.cli.post_arguments import read_post

ANCHORS = Path(tempfile.mkdtemp(prefix="ergo-fuzz-")) / "anchors.npy"
NAMES = ("yolox", "yolov5", "yolov8", "ssd", "softmax", "topk", "sigmoid", "keypoints", "argmax", "ctc", "anomaly", "x")
OPTIONS = (
    "score=0.3",
    "iou=0.5",
    "most=50",
    "room=100",
    "k=2",
    "strides=8,16",
    "anchors=1,2,3,4",
    f"anchors={ANCHORS}",
    "blank=0",
    "activation=sigmoid",
    "order=yxhw",
    "bins=4",
    "centre=2",
    "background=1",
    "size=1",
)
VALUES = (
    "",
    "0",
    "-1",
    "nan",
    "inf",
    "1e999",
    "1e-320",
    "9" * 400,
    "1,2",
    ",",
    "0x10",
    "True",
    "é",
    "\x00",
    "1_0",
    "x.npy",
)
SHAPES = ((1, 6), (1, 5, 4), (1, 4, 6), (1, 4, 4, 3), (1, 85, 6))


def seeds() -> list[tuple]:
    anchors = arrays.seeds()[0]
    return [
        ("softmax", ["k=2"], (1, 6), anchors),
        ("topk", ["k=2"], (1, 6), anchors),
        ("sigmoid", [], (1, 6), anchors),
        ("ctc", ["blank=0"], (1, 5, 4), anchors),
        ("argmax", [], (1, 4, 4, 3), anchors),
        ("keypoints", [], (1, 4, 4, 3), anchors),
        ("anomaly", [], (1, 4, 4, 3), anchors),
    ]


def change(rng, seed, other):
    name, options, shape, anchors = seed
    options = list(options)
    for _ in range(rng.choice((1, 2, 3))):
        kind = rng.randrange(5)
        if kind == 0:
            name = rng.choice(NAMES)
        elif kind == 1:
            options.append(rng.choice(OPTIONS))
        elif kind == 2 and options:
            at = rng.randrange(len(options))
            options[at] = options[at].partition("=")[0] + "=" + rng.choice(VALUES)
        elif kind == 3 and options:
            at = rng.randrange(len(options))
            options[at] = mutate.some_bytes(rng, options[at].encode()).decode("utf-8", "replace")
        else:
            shape = rng.choice(SHAPES)
    if rng.random() < 0.2:
        anchors = arrays.change(rng, anchors, other[3])
    return name, options, shape, anchors


def run(made) -> None:
    name, options, shape, anchors = made
    ANCHORS.write_bytes(anchors)
    post = read_post(argparse.Namespace(post=name, post_option=options))
    net = function_of(shape, "float32", lambda builder, x: builder.emit(relax.op.nn.relu(x)))
    feed = np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    model = tvm_ergo.compile(net, calibration=feed, post=post)
    model.run({model.inputs[0].name: feed})


TARGET = Target(seeds, change, run, save=lambda made: repr(made).encode())
