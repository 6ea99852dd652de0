"""From a stored sample to what a net wants as input: one function per convention of models/MANIFEST.md, column "input".

Every function takes the raw sample and returns the list of feeds (one per run of the net, batch 1):
``[{input name: array [1, ...]}]``. ``Affine`` is data instead of a function, so that the compiler can see that 256
input levels are enough: ``x = (p - offset) * scale`` per channel of an 8-bit image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image


def resize(image: np.ndarray, size: tuple[int, int], method=Image.Resampling.BILINEAR) -> np.ndarray:
    """uint8 [H, W(, 3)] to ``size`` = (height, width), by Pillow (antialiased when shrinking)."""
    if image.shape[:2] == tuple(size):
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), method))


@dataclass(frozen=True)
class Affine:
    """uint8 HWC RGB image to float32 [1, 3, H, W]: ``(p - offset[c]) * scale[c]``, channels reversed if ``bgr``.

    ``offset`` and ``scale`` are in the net's channel order, ``size`` = (height, width) the image is resized to or None.
    """

    name: str
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    bgr: bool = False
    size: tuple[int, int] | None = None

    def __call__(self, image: np.ndarray) -> list[dict[str, np.ndarray]]:
        image = resize(image, self.size) if self.size else image
        pixels = image[..., ::-1] if self.bgr else image
        x = (pixels.astype(np.float64) - self.offset) * self.scale
        return [{self.name: np.ascontiguousarray(x.transpose(2, 0, 1)[None], np.float32)}]


def imagenet(name: str) -> Affine:
    """(x/255 - mean) / std of torchvision."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return Affine(name, tuple(255 * m for m in mean), tuple(1 / (255 * s) for s in std))


def kws_mfcc(values: np.ndarray) -> list[dict[str, np.ndarray]]:
    """int8 MFCC [49, 10] to float [1, 1, 49, 10]: (q - 83) * 0.5847029."""
    return [{"input": ((values.astype(np.float32) - 83) * np.float32(0.5847029))[None, None]}]


def bnn_cifar(image: np.ndarray) -> list[dict[str, np.ndarray]]:
    """BNN-PYNQ: clip(floor((p/255*2-1)*128)/128, -1, 127/128)."""
    x = np.floor((image.astype(np.float64) / 255 * 2 - 1) * 128) / 128
    return [{"input": np.clip(x, -1, 127 / 128).astype(np.float32).transpose(2, 0, 1)[None]}]


def mnist_sign(image: np.ndarray) -> list[dict[str, np.ndarray]]:
    """Flattened, +1 where p >= 128, else -1."""
    return [{"input": np.where(image.reshape(1, -1) >= 128, 1, -1).astype(np.float32)}]


def mnist_flat(image: np.ndarray) -> list[dict[str, np.ndarray]]:
    """Flattened, p / 255."""
    return [{"input": (image.reshape(1, -1) / 255).astype(np.float32)}]


def mnist_rows(image: np.ndarray) -> list[dict[str, np.ndarray]]:
    """[1, 28, 28], p / 255: 28 time steps of 28 values."""
    return [{"input": (image[None] / 255).astype(np.float32)}]


def luma(image: np.ndarray) -> list[dict[str, np.ndarray]]:
    """uint8 luma [H, W] to [1, 1, H, W], p / 255."""
    return [{"input": (image[None, None] / 255).astype(np.float32)}]


def luma_of_photo(image: np.ndarray) -> list[dict[str, np.ndarray]]:
    """uint8 RGB photograph to a 99 x 99 luma input like espcn's (calibration from photographs that are not in its
    test)."""
    grey = np.asarray(Image.fromarray(image).convert("L"))
    return luma(resize(grey, (99, 99), Image.Resampling.BICUBIC))


def letterbox_photo(image: np.ndarray) -> list[dict[str, np.ndarray]]:
    """uint8 RGB photograph to YOLOX's 416 x 416 BGR letterbox: the upper three quarters, grey 114 below (as for a 4:3
    camera)."""
    canvas = np.full((416, 416, 3), 114, np.uint8)
    canvas[:312] = resize(image[: image.shape[0] * 3 // 4], (312, 416))
    return Affine("images", bgr=True)(canvas)


def minilm(raw: tuple[np.ndarray, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """``(rows int16 [r, 64], original ids)`` to r feeds of ids int64 [1, 64] and mask float [1, 64] (padding is
    original id 0)."""
    rows, original = raw
    return [
        {"input_ids": row[None].astype(np.int64), "attention_mask": (original[row] != 0)[None].astype(np.float32)}
        for row in rows
    ]


def stories(tokens: np.ndarray) -> list[dict[str, np.ndarray]]:
    """256 token ids, int64 [1, 256]."""
    return [{"input_ids": tokens[None].astype(np.int64)}]


def vector(values: np.ndarray) -> list[dict[str, np.ndarray]]:
    """A float32 vector as it is, [1, n]."""
    return [{"input": values[None].astype(np.float32)}]
