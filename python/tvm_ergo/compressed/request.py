"""What `compress` is asked for, checked before anything is measured."""

from __future__ import annotations

import math

import numpy as np

from tvm_ergo import frontend
from tvm_ergo import options as given
from tvm_ergo.compiled import checked_input
from tvm_ergo.evaluation.lookup import own_test
from tvm_ergo.evaluation.tasks import Test
from tvm_ergo.target.errors import InputError


def check_targets(max_drop, size_bytes, test: Test | None, limit) -> None:
    """Errors: InputError for two targets, a value that is none, or a drop with nothing to measure it on."""
    if max_drop is not None and size_bytes is not None:
        raise InputError(
            "a size and a drop are two targets",
            required="one of max_drop (--max-drop) and size (--size)",
            remedy="leave one of them out",
        )
    if max_drop is not None and (
        isinstance(max_drop, bool) or not isinstance(max_drop, (int, float)) or not 0 <= max_drop < 1e6
    ):
        raise InputError(
            f"max_drop cannot be {max_drop!r}",
            required="a number of at least 0, in the unit of the figure (percent points of top-1)",
            remedy="for instance 0.5",
        )
    if size_bytes is not None and (
        isinstance(size_bytes, bool) or not isinstance(size_bytes, (int, np.integer)) or size_bytes < 1
    ):
        raise InputError(
            f"size cannot be {size_bytes!r}", required="bytes, or a text such as 500KB", remedy="for instance 500KB"
        )
    if limit is not None:
        given.whole_number("limit", limit)
    if max_drop is not None and test is None:
        raise InputError(
            "a largest drop needs something to measure it on",
            remedy="evaluation=(inputs, labels), --data FILE.npz with arrays x and y",
        )


def test_of(evaluation, imported: frontend.Imported) -> Test | None:
    """What accuracy is measured by: a Test, or labelled data ``(inputs, labels)``. Errors: InputError."""
    if evaluation is None or isinstance(evaluation, Test):
        return evaluation
    if not isinstance(evaluation, (tuple, list)) or len(evaluation) != 2:
        raise InputError(
            "the evaluation data are not a pair",
            required="(inputs [n, ...], labels [n])",
            available=type(evaluation).__name__,
            remedy="give a tuple of two arrays",
        )
    x, y = np.asarray(evaluation[0]), np.asarray(evaluation[1])
    test = own_test({"x": x, "y": y}, "evaluation", imported.inputs[0].name)
    _check_samples(x, y, imported)
    return test


def _check_samples(x: np.ndarray, y: np.ndarray, imported: frontend.Imported) -> None:
    """Whether the network takes the samples, and their labels are its classes: said now, as calibration and search take
    long. Errors: InputError."""
    if len(imported.inputs) > 1:
        raise InputError(
            "x and y are data of a network with one input",
            available=", ".join(i.name for i in imported.inputs),
            remedy="evaluation=a Test of your own",
        )
    taken = imported.inputs[0]
    try:
        checked_input(taken, x[:1], finite=True)
    except InputError as error:
        missing = x.shape[1:] == tuple(taken.shape[2:])
        raise InputError(
            "the samples are not what the network takes",
            where="evaluation data, array x",
            required=f"{taken.dtype}{['n', *taken.shape[1:]]}".replace("'", ""),
            available=f"{x.dtype}{list(x.shape)}",
            remedy="an axis is missing: array[:, None]" if missing else error.remedy,
        ) from None
    classes = math.prod(imported.outputs[0].shape[1:])
    wrong = np.flatnonzero((y < 0) | (y >= classes))
    if len(wrong):
        raise InputError(
            "a label is not one of the network's classes",
            where=f"evaluation data, array y, sample {wrong[0]}",
            available=str(y[wrong[0]]),
            required=f"0 to {classes - 1}, as the network has {classes} outputs",
            remedy="number the classes from 0, as the network does",
        )
