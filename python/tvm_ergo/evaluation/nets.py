"""Compiling the shared nets by name, for benchmarks and end-to-end tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tvm_ergo.evaluation.datasets import shared_root
from tvm_ergo.evaluation.lookup import input_shapes_of
from tvm_ergo.evaluation.tasks import TASKS
from tvm_ergo.evaluation.tflite_inputs import REAL_INPUTS, tflite_inputs

if TYPE_CHECKING:
    from tvm_ergo.codegen.graph import Graph

BIG_MEMORY_BYTES = 256 << 20
"""Plain int8 weights of ResNet-50 or MiniLM exceed every chip of the family: measurements of size and speed give the
chip this much."""
TFLITE = (
    "tf2_mobilenet_v2_1.0_224_ptq",
    "vww_96_int8",
    "pretrainedResnet_quant",
    "kws_ref_model",
    "ad01_int8",
    "mcunetv2_large",
    "vww",
    "str_ww_ref_model",
)
"""The original TFLite files; `tflite_inputs` says what they are run on."""


def model_path(name: str) -> Path:
    """The file of a net, by its stem. Errors: InputError where the shared folder is absent, KeyError for an unknown
    net."""
    if name in TFLITE:
        return shared_root() / "models" / "tflite" / f"{name}.tflite"
    return shared_root() / "models" / TASKS[name].path


def compile_net(name: str, *, calibration_samples: int | None = 32, **options):
    """A net compiled for an ergo/1 with plenty of memory; float nets are calibrated on so many samples. Options:
    `tvm_ergo.compile`'s."""
    import tvm_ergo

    options.setdefault("memory", BIG_MEMORY_BYTES)
    task = TASKS.get(name)
    if task is not None:
        options.setdefault("input_shapes", input_shapes_of(task))
        if task.calibration:
            options.setdefault("calibration", list(task.calibration.inputs(calibration_samples)))
    return tvm_ergo.compile(model_path(name), **options)


@dataclass(frozen=True, eq=False)
class ChipPart:
    """One chip function of a net. inputs : what it gets for each real input of the net, by port name."""

    net: str
    symbol: str
    graph: Graph
    inputs: tuple[dict[str, np.ndarray], ...]


def chip_parts(name: str, samples: int = 0, **options) -> list[ChipPart]:
    """A net's chip functions before they are planned, with what they get for the first ``samples`` real inputs.
    Options: `compile_net`'s."""
    return parts_of(name, compile_net(name, **options), samples)


def parts_of(name: str, compiled, samples: int = 0) -> list[ChipPart]:
    """As `chip_parts`, of a net that is compiled already."""
    from tvm_ergo.codegen.graph import from_function
    from tvm_ergo.relay_passes.compile.partition import Partition, chip_functions

    calls = [call for feeds in inputs_of(name, compiled, samples) for call in compiled.run(feeds).calls]
    return [
        ChipPart(
            name, symbol, from_function(func, symbol), tuple(call.inputs for call in calls if call.symbol == symbol)
        )
        for symbol, func in chip_functions(Partition()(compiled.lowered))
    ]


def inputs_of(name: str, compiled, count: int) -> list[dict[str, np.ndarray]]:
    """``count`` real inputs of a net; seeded values over the whole range of the dtype for a TFLite file without data
    (`tflite_inputs`)."""
    if name in TASKS:
        return list(TASKS[name].tests[0].source.inputs(count))[:count]
    if name in REAL_INPUTS:
        (info,) = compiled.inputs
        values = tflite_inputs(name, model_path(name).read_bytes(), info.dtype, count)
        return [{info.name: value} for value in values]
    rng = np.random.default_rng(0)
    return [{info.name: random_input(rng, info.shape, info.dtype) for info in compiled.inputs} for _ in range(count)]


def random_input(rng: np.random.Generator, shape, dtype: str) -> np.ndarray:
    """Uniform over an integer type's range, normal for floats."""
    if np.issubdtype(np.dtype(dtype), np.integer):
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, np.dtype(dtype), endpoint=True)
    return rng.standard_normal(shape).astype(dtype)
