"""Evaluation data of the shared folder (models/MANIFEST.md lists sources and licences): lazily decoded, never copied.

A data set is a ``Samples``: a length and a function from an index to ``(raw, label)``. What a net wants to see
(scaling, layout, channel order) is the business of ``preprocess``; here images are uint8 HWC RGB exactly as stored.
The folder is found through the environment variable ERGO_SHARED, else as ``../shared`` beside the repository.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tvm_ergo.frontend.stored import unpacked
from tvm_ergo.target.environment import SHARED
from tvm_ergo.target.errors import InputError, ModelError


@dataclass(frozen=True)
class Samples:
    """``get(i) -> (raw, label)`` for ``0 <= i < count``; ``name`` goes into reports."""

    name: str
    count: int
    get: Callable[[int], tuple]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple:
        if not 0 <= index < self.count:
            raise IndexError(f"{self.name} has {self.count} samples, asked for number {index}")
        return self.get(index)

    def __iter__(self):
        return (self.get(i) for i in range(self.count))


def shared_root() -> Path:
    """The folder that holds ``models/`` and ``data/``. Errors: InputError, if it is not there."""
    beside = Path(__file__).resolve().parents[3].parent / "shared"
    root = Path(SHARED.value or beside)
    if not (root / "models").is_dir():
        raise InputError(
            "the shared models and data are not here",
            where=str(root),
            remedy="set the environment variable ERGO_SHARED to the folder that holds models/ and data/",
        )
    return root


def has_shared() -> bool:
    """Whether models and data are at hand (tests that need them skip otherwise)."""
    try:
        shared_root()
    except InputError:
        return False
    return True


def model_bytes(path: str) -> bytes:
    """Bytes of ``models/<path>``, unpacked if it ends in .xz. Errors: ModelError, if it is missing or does not
    unpack."""
    file = shared_root() / "models" / path
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ModelError("the model file cannot be read", where=str(file), available=str(error)) from error
    return unpacked(data, str(file)) if file.suffix == ".xz" else data


@functools.lru_cache(maxsize=4)
def _archive(name: str) -> dict[str, np.ndarray]:
    file = shared_root() / "data" / name
    try:
        with np.load(file) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError) as error:
        raise InputError("the data file cannot be read", where=str(file), available=str(error)) from error


def decode_jpeg(data: bytes) -> np.ndarray:
    """JPEG bytes to uint8 [H, W, 3], RGB."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def _jpeg(archive: dict, index: int) -> np.ndarray:
    begin, end = archive["offsets"][index : index + 2]
    return decode_jpeg(archive["jpeg"][begin:end].tobytes())


def _jpeg_set(name: str) -> Callable[[], Samples]:
    def load() -> Samples:
        archive = _archive(name)
        return Samples(
            Path(name).stem, len(archive["labels"]), lambda i: (_jpeg(archive, i), int(archive["labels"][i]))
        )

    return load


def _array_set(name: str, raw: str) -> Callable[[], Samples]:
    def load() -> Samples:
        archive = _archive(name)
        return Samples(Path(name).stem, len(archive["labels"]), lambda i: (archive[raw][i], int(archive["labels"][i])))

    return load


imagenet_nips17 = _jpeg_set("imagenet_nips17_224_jpeg1000.npz")
imagenet_sample = _jpeg_set("imagenet_sample_224_jpeg1000.npz")
cifar10_test = _array_set("cifar10_test1000.npz", "images")
cifar10_train = _array_set("cifar10_train1000_calib.npz", "images")
mnist_test = _array_set("mnist_test10000.npz", "images")
mnist_train = _array_set("mnist_train60000.npz", "images")
kws = _array_set("kws_speechcommands_mfcc1000.npz", "mfcc_int8")
vww = _array_set("vww_coco128_96.npz", "images")


@dataclass(frozen=True)
class Boxes:
    """Ground truth of one image: ``boxes`` f32 [n, 4] as x1, y1, x2, y2 in pixels, ``classes`` int [n], ``crowd`` bool
    [n]."""

    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray


def coco128() -> Samples:
    """128 letterboxed 416 x 416 COCO training images with their ``Boxes``."""
    archive = _archive("coco128_letterbox416.npz")

    def get(index: int):
        begin, end = archive["box_offsets"][index : index + 2]
        rows = archive["boxes"][begin:end]
        return _jpeg(archive, index), Boxes(rows[:, 1:5], rows[:, 0].astype(int), rows[:, 5] > 0)

    return Samples("coco128_letterbox416", len(archive["offsets"]) - 1, get)


def superres() -> Samples:
    """30 pairs of luma images: raw uint8 [99, 99], label uint8 [297, 297]."""
    archive = _archive("superres_x3_luma30.npz")
    return Samples("superres_x3_luma30", len(archive["lr"]), lambda i: (archive["lr"][i], archive["hr"][i]))


def text(kind: str) -> Samples:
    """MiniLM token ids int16 [64] with ``token_id_original`` beside them: raw is ``(rows [r, 64], original_ids)``.

    ``kind``: "stsb" (two rows, label = gold score), "sst2_test", "trec_test" (one row, label = class), "calibration"
    (no label)."""
    archive = _archive("text_minilm_tokens.npz")
    original = archive["token_id_original"]
    if kind == "stsb":

        def get(i):
            return (np.stack([archive["stsb_a"][i], archive["stsb_b"][i]]), original), float(archive["stsb_score"][i])

        return Samples("stsb_test", len(archive["stsb_a"]), get)
    if kind == "calibration":
        rows = archive["calib_sst2_train256"]
        return Samples("calib_sst2_train256", len(rows), lambda i: ((rows[i : i + 1], original), None))
    rows, labels = archive[kind], archive[f"{kind}_label"]
    return Samples(kind, len(rows), lambda i: ((rows[i : i + 1], original), int(labels[i])))


def text_head(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Weights [classes, 384] and bias [classes] of the linear heads on MiniLM embeddings; ``kind`` is "sst2" or
    "trec"."""
    archive = _archive("text_minilm_tokens.npz")
    return archive[f"{kind}_head_W"], archive[f"{kind}_head_b"]


def tinystories() -> Samples:
    """48 windows of 256 token ids; raw and label are the same row (the label of position t is token t + 1)."""
    tokens = _archive("tinystories_val_tok512.npz")["tokens"]
    return Samples("tinystories_val_tok512", len(tokens), lambda i: (tokens[i], tokens[i]))


def gaussian(shape: tuple[int, ...], mean: float, deviation: float, count: int = 64) -> Samples:
    """Seeded synthetic data for nets without any real data here: normally distributed float32 ``shape``."""

    def get(index: int):
        draw = np.random.default_rng(index).standard_normal(shape)
        return (mean + deviation * draw).astype(np.float32), None

    return Samples("synthetic_gaussian", count, get)
