"""Real inputs for the manifest's TFLite files: the evaluation data of the ONNX nets, as the numbers those files take.

A quantized input is ``round(real / scale) + zero point`` with the scale and zero point that the file itself carries; a
float input is the real values. Two files have no data in the shared folder: the anomaly detector gets the seeded noise
its ONNX twins get, the wake word nothing (`REAL_INPUTS` lacks it)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import tflite

from tvm_ergo.evaluation import datasets, preprocess
from tvm_ergo.evaluation.preprocess import Affine
from tvm_ergo.evaluation.tasks import Source

Quantization = tuple[float, int]
"""``(scale, zero point)``: real = scale * (stored - zero point)."""


@dataclass(frozen=True)
class TfliteInput:
    """Where a file's inputs come from; ``source`` gives one feed of one real-valued array, NCHW where it is a
    picture."""

    source: Source

    def real(self, count: int) -> Iterator[np.ndarray]:
        """``count`` real-valued inputs, float [1, ...], pictures as NHWC."""
        for feeds in islice(self.source.inputs(count), count):
            (value,) = feeds.values()
            yield value.transpose(0, 2, 3, 1) if value.ndim == 4 else value


def _photos(dataset: Callable[[], datasets.Samples], **affine) -> TfliteInput:
    return TfliteInput(Source(dataset, Affine("input", **affine)))


_UNIT, _SIGNED = {"scale": (1 / 255,) * 3}, {"offset": (127.5,) * 3, "scale": (1 / 127.5,) * 3}
REAL_INPUTS: dict[str, TfliteInput] = {
    "tf2_mobilenet_v2_1.0_224_ptq": _photos(datasets.imagenet_nips17, **_SIGNED),
    "mcunetv2_large": _photos(datasets.imagenet_nips17, **_UNIT),
    "vww_96_int8": _photos(datasets.vww, size=(96, 96), **_UNIT),
    "vww": _photos(datasets.vww, size=(80, 80), **_SIGNED),
    "pretrainedResnet_quant": _photos(datasets.cifar10_test),
    "kws_ref_model": TfliteInput(Source(datasets.kws, preprocess.kws_mfcc)),
    "ad01_int8": TfliteInput(Source(lambda: datasets.gaussian((640,), -35.0, 15.0), preprocess.vector)),
}
"""By the file's stem. Ranges of the pictures are those of the files' own input quantization: 0..1, -1..1 or 0..255."""


def quantization_of(data: bytes) -> Quantization | None:
    """How the only input of a TFLite file is quantized; None: it is float."""
    graph = tflite.Model.GetRootAs(data, 0).Subgraphs(0)
    stored = graph.Tensors(graph.Inputs(0)).Quantization()
    if stored is None or not stored.ScaleLength():
        return None
    return float(stored.Scale(0)), int(stored.ZeroPoint(0))


def quantize(real: np.ndarray, quantization: Quantization | None, dtype: str) -> np.ndarray:
    """Real values as ``dtype``: rounded half away from zero as TFLite does, kept within the type; unchanged without
    quantization."""
    if quantization is None:
        return real.astype(dtype)
    scale, zero_point = quantization
    steps = np.asarray(real, np.float64) / scale
    limits = np.iinfo(dtype)
    return np.clip(np.trunc(steps + np.copysign(0.5, steps)) + zero_point, limits.min, limits.max).astype(dtype)


def tflite_inputs(name: str, data: bytes, dtype: str, count: int) -> list[np.ndarray]:
    """``count`` inputs of one of `REAL_INPUTS`, as the file (whose bytes are ``data``) takes them."""
    quantization = quantization_of(data)
    return [quantize(real, quantization, dtype) for real in REAL_INPUTS[name].real(count)]
