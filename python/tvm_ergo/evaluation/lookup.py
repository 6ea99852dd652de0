"""From what a user types to a task: names, model files, data of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tvm_ergo.evaluation import metrics
from tvm_ergo.evaluation.datasets import Samples, has_shared, shared_root
from tvm_ergo.evaluation.tasks import TASKS, Feeds, Source, Task, Test
from tvm_ergo.target.errors import InputError


def find_task(name: str) -> Task | None:
    """The task called ``name``, or whose model file that is; None where there is none. Another file is taken for what
    it is, whatever its name; a compiled one (.ergo) named after a task brings the task's data."""
    path, stem = Path(name), Path(name).name
    for suffix in (".xz", ".onnx", ".tflite", ".ergo"):
        stem = stem.removesuffix(suffix)
    found = TASKS.get(stem)
    if found is not None and path.is_file() and path.suffix != ".ergo":
        return found if has_shared() and _same(path, shared_root() / "models" / found.path) else None
    return found


def _same(path: Path, other: Path) -> bool:
    return other.is_file() and path.samefile(other)


def task(name: str) -> Task:
    """As `find_task`. Errors: InputError listing the tasks."""
    found = find_task(name)
    if found is None:
        raise InputError(
            f"there is no file and no evaluation task {name!r}",
            available=", ".join(TASKS),
            remedy="give the path of a model file, or one of these names",
        )
    return found


def calibration_inputs(name: str) -> list[Feeds]:
    """Calibration samples of a task. Errors: InputError, also for a task whose net is quantized already."""
    source = task(name).calibration
    if source is None:
        raise InputError(f"the net of task {name!r} is quantized already", remedy="leave the calibration data out")
    return list(source.inputs())


def input_shapes_of(found: Task) -> dict[str, tuple[int, ...]]:
    """The shapes of the task's inputs, batch 1: they settle the dynamic dimensions of its model file."""
    first = next(iter(found.tests[0].source.inputs(1)))
    return {name: (1, *array.shape[1:]) for name, array in first.items()}


def own_test(arrays: dict[str, np.ndarray], path: str, input_name: str) -> Test:
    """Top-1 and top-5 over a user's own arrays: ``x`` [n, ...] as the model takes them, ``y`` [n] integer labels.

    Errors: InputError for missing arrays, different lengths, labels that are not integers.
    """
    if not {"x", "y"} <= set(arrays):
        raise InputError(
            "evaluation data needs the arrays x (inputs) and y (labels)",
            where=path,
            available=", ".join(arrays) or "one unnamed array",
            remedy="numpy.savez(file, x=inputs, y=labels)",
        )
    x, y = arrays["x"], arrays["y"]
    if y.ndim != 1 or not x.ndim or len(x) != len(y) or not len(y) or y.dtype.kind not in "iu":
        raise InputError(
            "evaluation data does not fit together",
            where=path,
            required="x [n, ...] and integer y [n], n >= 1",
            available=f"x {list(x.shape)}, y {y.dtype} {list(y.shape)}",
            remedy="save both in one file: numpy.savez('data.npz', x=inputs, y=labels)",
        )
    if x.dtype.kind not in "biuf":
        raise InputError(
            "evaluation data holds texts or complex numbers",
            where=f"{path}, array x",
            required="numbers",
            available=str(x.dtype),
            remedy="numpy.savez(file, x=inputs, y=labels)",
        )
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise InputError(
            "evaluation data holds NaN or infinity",
            where=f"{path}, array x",
            required="finite values",
            remedy="leave the samples with such values out",
        )
    samples = Samples(Path(path).stem, len(y), lambda i: (x[i], int(y[i])))
    return Test(Path(path).stem, Source(lambda: samples, lambda raw: [{input_name: raw[None]}]), metrics.TopK)
