"""What every benchmark shares: the nets, a big enough chip, a table, and ``--json FILE``."""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tvm_ergo import evaluation
from tvm_ergo.files import check_writable, write_atomically

BIG_MEMORY_BYTES = 256 << 20
"""Plain int8 weights of ResNet-50 or MiniLM exceed every real chip of the family: benchmarks of size and speed give the chip this much."""
TFLITE = ("tf2_mobilenet_v2_1.0_224_ptq", "vww_96_int8", "pretrainedResnet_quant", "kws_ref_model", "ad01_int8", "mcunetv2_large",
          "vww", "str_ww_ref_model")
INPUT_SHAPES = {"espcn_x3_superres": {"input": (1, 1, 99, 99)}}


def parser(description: str) -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--json", metavar="FILE", help="write the figures as JSON")
    result.add_argument("--nets", nargs="*", metavar="NAME", help="only these nets")
    return result


def parse(arguments: argparse.ArgumentParser, argv=None) -> argparse.Namespace:
    parsed = arguments.parse_args(argv)
    if parsed.json:
        check_writable(parsed.json)
    return parsed


def model_path(name: str) -> Path:
    """The file of a net, by its stem. Errors: InputError where the shared folder is absent, KeyError for an unknown net."""
    root = evaluation.shared_root() / "models"
    if name in TFLITE:
        return root / "tflite" / f"{name}.tflite"
    return root / evaluation.TASKS[name].path


def compile_net(name: str, *, calibration_samples: int = 32, **options):
    """Compiles a net of the manifest for an ergo/1 with plenty of memory; float nets are calibrated with few samples."""
    import tvm_ergo

    options.setdefault("memory", BIG_MEMORY_BYTES)
    task = evaluation.TASKS.get(name)
    calibration = list(task.calibration.inputs(calibration_samples)) if task is not None and task.calibration else None
    return tvm_ergo.compile(str(model_path(name)), calibration=calibration, input_shapes=INPUT_SHAPES.get(name), **options)


def inputs_of(name: str, compiled, count: int) -> list[dict[str, np.ndarray]]:
    """``count`` real inputs of a net (seeded noise in the input's whole range for TFLite files, which have no data here)."""
    if name in evaluation.TASKS:
        return list(evaluation.TASKS[name].tests[0].source.inputs(count))[:count]
    rng = np.random.default_rng(0)
    return [{port.name: random_input(rng, port.shape, port.dtype) for port in compiled.inputs} for _ in range(count)]


def random_input(rng: np.random.Generator, shape, dtype: str) -> np.ndarray:
    if np.issubdtype(np.dtype(dtype), np.integer):
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max + 1, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def show(title: str, rows: list[dict], json_path: str | None = None) -> None:
    """Prints the rows as one table and writes them, with the machine they were measured on, as JSON."""
    table = Table(title=title, title_justify="left")
    for key in rows[0] if rows else ():
        table.add_column(key, justify="left" if isinstance(rows[0][key], str) else "right", overflow="fold")
    for row in rows:
        table.add_row(*(f"{v:,.4g}" if isinstance(v, float) else "" if v is None else str(v) for v in row.values()))
    Console(width=150).print(table)
    if json_path:
        machine = {"machine": platform.machine(), "python": platform.python_version(), "cpus": len(__import__("os").sched_getaffinity(0))}
        write_atomically(json_path, json.dumps({"title": title, **machine, "rows": rows}, indent=1))
