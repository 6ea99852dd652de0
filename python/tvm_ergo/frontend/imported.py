"""What a frontend hands over, and the checks all of them share."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import tvm

from tvm_ergo.relay_passes.port_scales import input_scales, meaning, output_scales
from tvm_ergo.relay_passes.relax_utils import bindings_of, body_of, dtype_of, main_of, op_name, shape_of
from tvm_ergo.target.errors import ModelError, one_line
from tvm_ergo.target.limits import TAKEN_APART, Declared

_WINDOWED = re.compile(r"relax\.nn\.(conv|(max|avg)_pool)[123]d$")


class SourceFormat(Enum):
    ONNX = "onnx"
    TFLITE = "tflite"
    RELAX = "relax"
    PYTORCH = "pytorch"
    COMPRESSED = "ergoz"


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of the model: its name in the source, static shape, NumPy dtype.

    scale, zero_point : of integers, ``real = scale * (q - zero_point)``; None for other dtypes and where the model does
    not say."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None

    @property
    def content(self) -> str:
        """ "int8[1, 10], real = 0.5 * (q - 3)"."""
        return f"{self.dtype}{list(self.shape)}{meaning(self.scale, self.zero_point)}"

    def __str__(self) -> str:
        return f"{one_line(self.name)}: {self.content}"


@dataclass(frozen=True)
class StateInfo(TensorInfo):
    """A tensor that lives from one run to the next. initial: its value before the first."""

    initial: np.ndarray | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Imported:
    """A model as a Relax module before any pass of ours.

    ``mod``'s main takes ``inputs`` in this order (its parameters are named ``parameters``) and returns ``outputs``;
    behind both stand the ``states``, as further parameters (what the last run left) and results (what this run leaves).
    ``source`` is the file's path or a word for where the model came from."""

    mod: tvm.IRModule
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    source: str
    format: SourceFormat
    states: tuple[StateInfo, ...] = ()

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of main's parameters (the input names made identifiers)."""
        return tuple(p.name for p in main_of(self.mod).params)


def describe(
    mod: tvm.IRModule, source: str, source_format: SourceFormat, input_names=None, output_names=None
) -> Imported:
    """An :class:`Imported` with shapes and dtypes read from ``mod``. Errors: ModelError for dynamic shapes."""
    func = main_of(mod)
    _check_sizes(func, source, source_format not in (SourceFormat.RELAX, SourceFormat.COMPRESSED))
    _check_windows(func, source)
    body = body_of(func)
    results = list(body.ty.fields) if isinstance(body.ty, tvm.ir.TupleType) else [body.ty]
    output_names = (
        output_names or [f"output_{i}" for i in range(len(results))] if len(results) > 1 else output_names or ["output"]
    )
    scales = input_scales(func)
    inputs = [
        TensorInfo(n, shape_of(p), dtype_of(p), *scales.get(p.name, ()))
        for n, p in zip(input_names or [p.name for p in func.params], func.params)
    ]
    outputs = [
        TensorInfo(n, shape_of(_Typed(n, t)), str(t.dtype), *(scale or ()))
        for n, t, scale in zip(output_names, results, output_scales(func))
    ]
    return Imported(mod, tuple(inputs), tuple(outputs), source, source_format)


def _check_sizes(func, source: str, declared_before: bool) -> None:
    """Errors: ModelError where all tensors together take more than the limit of the context. declared_before : whether
    the file's own tensors have been added up: then those of operators that were taken apart count in part."""
    declared = Declared(source, parts=TAKEN_APART if declared_before else 1)
    for var in (*func.params, *(var for var, _ in bindings_of(func))):
        for part in var.ty.fields if isinstance(var.ty, tvm.ir.TupleType) else [var.ty]:
            shape = getattr(part, "shape", None)
            if (
                isinstance(part, tvm.relax.TensorType)
                and shape is not None
                and all(isinstance(d, tvm.tirx.IntImm) for d in shape)
            ):
                declared.note_tensor(shape, _itemsize(str(part.dtype)), f"node {var.name!r}")
    declared.check()


def _itemsize(dtype: str) -> int:
    try:
        return np.dtype(dtype).itemsize
    except TypeError:  # one of TVM's own
        return 4


def _check_windows(func, source: str) -> None:
    """Errors: ModelError for a convolution or pooling whose window does not fit once: its result would have no
    elements."""
    for var, value in bindings_of(func):
        shape = getattr(var.ty, "shape", None)
        if (
            _WINDOWED.match(op_name(value))
            and shape is not None
            and any(isinstance(d, tvm.tirx.IntImm) and int(d) < 1 for d in shape)
        ):
            raise ModelError(
                "a window is larger than its padded input",
                where=f"{source}, node {var.name!r} ({op_name(value)[6:]})",
                available=f"an input of {list(shape_of(value.args[0]))} gives {[int(d) for d in shape]}",
                remedy="give larger inputs, or more padding",
            )
        if _WINDOWED.match(op_name(value)) and min(int(p) for p in value.attrs.padding) < 0:
            raise ModelError(
                "a window has negative padding",
                where=f"{source}, node {var.name!r} ({op_name(value)[6:]})",
                available=str([int(p) for p in value.attrs.padding]),
                remedy="write the padding as numbers (pads), not as auto_pad",
            )


@dataclass(frozen=True)
class _Typed:
    """A named type, to reuse the error message of ``shape_of``."""

    name: str
    ty: object


def require_finite(array: np.ndarray, name: str, *, infinity_allowed: bool = False) -> None:
    """Errors: ModelError naming the tensor, if it holds NaN (or infinities, unless they are a mask or a bound)."""
    if array.dtype.kind != "f" or not array.size or np.isfinite(array.sum(dtype=np.float64)):
        return
    bad = np.isnan(array) if infinity_allowed else ~np.isfinite(array)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ModelError(
            "a weight is not a finite number",
            where=f"tensor {name!r}, element {first}",
            available=f"{int(bad.sum())} of {array.size} elements are NaN or infinite",
            remedy="the file is damaged or training diverged; export the model again",
        )
