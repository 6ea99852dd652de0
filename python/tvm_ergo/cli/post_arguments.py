"""``--post`` and ``--post-option``."""

from __future__ import annotations

import argparse

from tvm_ergo.target.errors import InputError


def add_post_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--post",
        metavar="NAME",
        help="post-processing on the chip's CPU, which gives boxes, classes and the like: yolox, yolov5, yolov8, ssd, "
        "softmax, topk, sigmoid, keypoints, argmax, ctc or anomaly (docs/post.md)",
    )
    parser.add_argument(
        "--post-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of it, e.g. score=0.3, iou=0.5, most=50, k=5, strides=8,16,32, anchors=FILE.npy; may be "
        "repeated",
    )


def read_post(arguments: argparse.Namespace):
    """The options object of ``--post`` and ``--post-option``, None without. Errors: InputError."""
    from tvm_ergo.post import named

    name, given = getattr(arguments, "post", None), {}
    for text in getattr(arguments, "post_option", []):
        option, equals, value = text.partition("=")
        if not equals or option in given:
            raise InputError(
                "an option of post-processing is not NAME=VALUE, or is given twice",
                where="--post-option",
                available=repr(text)[:80],
                remedy="--post-option score=0.3",
            )
        given[option] = value
    if name is None and given:
        raise InputError("--post-option has an effect with --post only", remedy="write --post yolox, for instance")
    return None if name is None else named(name, given)
