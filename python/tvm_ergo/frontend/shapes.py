"""Numbers for the dimensions of inputs that a model leaves open: given, taken from another input or from calibration
data, or asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from tvm_ergo.target.errors import ModelError

_BATCH = re.compile(r"n|b|bs|.*batch.*", re.IGNORECASE)
_PICTURE_SIZE, _OTHER_SIZE = 224, 128
_calibration: ContextVar[object] = ContextVar("tvm_ergo_calibration", default=None)


@contextmanager
def typical_inputs(calibration) -> Iterator[None]:
    """Within it, open dimensions take the sizes of calibration data where nothing else gives them. None and iterators
    say nothing."""
    token = _calibration.set(None if hasattr(calibration, "__next__") else calibration)
    try:
        yield
    finally:
        _calibration.reset(token)


def resolve_shapes(declared: dict[str, list], given: dict | None, batch: int) -> dict[str, list[int]]:
    """Static input shapes. ``declared``: name -> dimensions, an int or a str/None where unknown; ``given`` overrides.

    An unknown first dimension is the batch, and so is one of 0, which exporters write for an unknown one, and one with
    the name of a batch. A name that got a size in one input has it in all. What is left open takes the sizes of
    calibration data (`typical_inputs`). Errors: ModelError naming any other dimension that is unknown or 0, with a line
    that gives it, or a wrong override."""
    if given is not None and not hasattr(given, "keys"):
        raise ModelError(
            "input_shapes is not a dict",
            required="{input name: shape}",
            available=type(given).__name__,
            remedy="for instance input_shapes={'x': (1, 3, 224, 224)}",
        )
    given = dict(given or {})
    unknown = set(given) - set(declared)
    if unknown:
        raise ModelError(
            "input_shapes names an input the model does not have",
            where=", ".join(sorted(unknown)),
            available=", ".join(declared),
            remedy="give the shape of one of these (--input-shape NAME=1,3,224,224)",
        )
    named = {
        dim: size for name, shape in given.items() for dim, size in zip(declared[name], shape) if isinstance(dim, str)
    }
    shapes = {}
    for name, dims in declared.items():
        chosen = list(given.get(name, dims))
        fits = len(chosen) == len(dims) and all(
            not isinstance(d, int) or c == d or i == 0 or d == 0 for i, (c, d) in enumerate(zip(chosen, dims))
        )
        if not fits:
            raise ModelError(
                "the shape given does not fit the model's input",
                where=f"input {name!r}",
                required=str(list(dims)),
                available=str(chosen),
                remedy=f"--input-shape {name}={','.join(str(d) if isinstance(d, int) else 'N' for d in dims)}"
                + ("" if all(isinstance(d, int) for d in dims) else ", with a number for each N"),
            )
        if name not in given:
            chosen = _filled(name, dims, named, batch, len(declared) == 1)
        for axis, dim in enumerate(chosen):
            if not isinstance(dim, int) or dim <= 0:
                raise _asked(name, dims, chosen, axis, batch)
        shapes[name] = chosen
    return shapes


def _filled(name: str, dims: list, named: dict[str, int], batch: int, only: bool) -> list:
    """The dimensions with what is known of the open ones."""
    typical, chosen = _typical(name, len(dims), only), list(dims)
    for axis, dim in enumerate(dims):
        is_open = not isinstance(dim, int) or axis == 0 and dim == 0
        if is_open and dim in named:
            chosen[axis] = named[dim]
        elif is_open and typical is not None and typical[axis]:
            chosen[axis] = typical[axis]
        elif is_open and (axis == 0 or isinstance(dim, str) and _BATCH.fullmatch(dim)):
            chosen[axis] = batch
    return chosen


def _typical(name: str, rank: int, only: bool) -> list[int | None] | None:
    """What calibration data say about the dimensions of an input: all of a single sample, all but the first of stacked
    ones."""
    data = _calibration.get()
    single = isinstance(data, (list, tuple)) and len(data) > 0
    sample = data[0] if single else data
    if isinstance(sample, dict):
        array = sample.get(name)
    else:
        array = sample if only else None
    if not hasattr(array, "shape") or isinstance(array, np.generic):
        return None
    shape = [int(d) for d in array.shape]
    if len(shape) == rank - 1:
        return [None, *shape]
    return None if len(shape) != rank else shape if single else [None, *shape[1:]]


def _asked(name: str, dims: list, chosen: list, axis: int, batch: int) -> ModelError:
    picture = len(dims) == 4 and any(d in (1, 3, 4) for d in dims[1:] if isinstance(d, int))
    other = _PICTURE_SIZE if picture else _OTHER_SIZE
    example = [d if isinstance(d, int) and d > 0 else batch if i == 0 else other for i, d in enumerate(chosen)]
    line = (
        f"--input-shape '{name}={','.join(map(str, example))}' on the command line, input_shapes={{{name!r}: "
        f"{example}}} in Python"
    )
    if chosen[axis] == 0:
        return ModelError(
            f"an input without elements cannot be compiled: its dimension {axis} is 0",
            where=f"input {name!r}, shape {chosen}",
            required="dimensions of at least 1",
            remedy=f"give the size it is to have, for instance {line}",
        )
    return ModelError(
        f"dimension {dims[axis] or '?'!r} (axis {axis}) of an input is not known",
        where=f"input {name!r}, shape {list(dims)}",
        required="static shapes: the chip's memory is planned before the first run",
        remedy=f"give the sizes it is to have, for instance {line}; calibration data give them too",
    )
