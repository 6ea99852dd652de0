"""Compiling the shared nets by name, for benchmarks and end-to-end tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tvm_ergo.evaluation.datasets import shared_root
from tvm_ergo.evaluation.lookup import input_shapes_of
from tvm_ergo.evaluation.tasks import TASKS

BIG_MEMORY_BYTES = 256 << 20
"""Plain int8 weights of ResNet-50 or MiniLM exceed every chip of the family: measurements of size and speed give the chip this much."""
TFLITE = ("tf2_mobilenet_v2_1.0_224_ptq", "vww_96_int8", "pretrainedResnet_quant", "kws_ref_model", "ad01_int8", "mcunetv2_large",
          "vww", "str_ww_ref_model")
"""The original TFLite files; they have no evaluation data of their own."""


def model_path(name: str) -> Path:
    """The file of a net, by its stem. Errors: InputError where the shared folder is absent, KeyError for an unknown net."""
    if name in TFLITE:
        return shared_root() / "models" / "tflite" / f"{name}.tflite"
    return shared_root() / "models" / TASKS[name].path


def compile_net(name: str, *, calibration_samples: int | None = 32, **options):
    """A net compiled for an ergo/1 with plenty of memory; float nets are calibrated on so many samples. Options: `tvm_ergo.compile`'s."""
    import tvm_ergo

    options.setdefault("memory", BIG_MEMORY_BYTES)
    task = TASKS.get(name)
    if task is not None:
        options.setdefault("input_shapes", input_shapes_of(task))
        if task.calibration:
            options.setdefault("calibration", list(task.calibration.inputs(calibration_samples)))
    return tvm_ergo.compile(model_path(name), **options)


def inputs_of(name: str, compiled, count: int) -> list[dict[str, np.ndarray]]:
    """``count`` real inputs of a net; seeded values over the whole range of the dtype for TFLite files, which have no data here."""
    if name in TASKS:
        return list(TASKS[name].tests[0].source.inputs(count))[:count]
    rng = np.random.default_rng(0)
    return [{info.name: random_input(rng, info.shape, info.dtype) for info in compiled.inputs} for _ in range(count)]


def random_input(rng: np.random.Generator, shape, dtype: str) -> np.ndarray:
    """Uniform over an integer type's range, normal for floats."""
    if np.issubdtype(np.dtype(dtype), np.integer):
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, np.dtype(dtype), endpoint=True)
    return rng.standard_normal(shape).astype(dtype)
