"""Bits per value of the lossless codecs on camera frames: what the frame buffer could be kept in before the network
digests it.

Frames are the 224 x 224 RGB pictures of a data set, as 8-bit integers (value - 128), nothing scaled. They were JPEG at
quality 95 before, which makes them smoother than a sensor's. "scene again": the same picture twice, each time with
noise of its own (normal, one level, rounded), and the first given to the codec as the previous frame: synthetic, there
is no film here; it shows what a camera at rest would gain."""

from __future__ import annotations

import numpy as np

from benchmarks.activations import LOSSLESS
from benchmarks.common import parse, parser, show
from tvm_ergo.evaluation import datasets


def noisy(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 picture as int8 frame with noise of one level."""
    return np.clip(np.rint(picture + rng.normal(0, 1, picture.shape)) - 128, -128, 127).astype(np.int8)


def sizes_of(codec, picture: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float | None]:
    """Bits per value of the plain picture, of a noisy one, and of a noisy one after another."""
    plain, before, after = (picture.astype(np.int16) - 128).astype(np.int8), noisy(picture, rng), noisy(picture, rng)
    sizes = [
        len(codec.encode(plain)),
        len(codec.encode(after)),
        len(codec.encode(after, before)) if codec.predicts_in_time else None,
    ]
    return tuple(None if size is None else 8 * size / picture.size for size in sizes)


def main(argv=None) -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--images", type=int, default=20, help="pictures")
    arguments = parse(arguments, argv)
    pictures, rows = datasets.imagenet_nips17(), []
    for name, cls in LOSSLESS.items():
        rng = np.random.default_rng(0)
        found = [sizes_of(cls(), pictures[i][0], rng) for i in range(arguments.images)]
        plain, scene, again = (None if column[0] is None else np.array(column) for column in zip(*found))
        rows.append(
            {
                "codec": name,
                "images": len(found),
                "frame": float(plain.mean()),
                "worst": float(plain.max()),
                "with noise": float(scene.mean()),
                "scene again": None if again is None else float(again.mean()),
            }
        )
    show("camera frames, bits per value", rows, arguments.json)


if __name__ == "__main__":
    main()
