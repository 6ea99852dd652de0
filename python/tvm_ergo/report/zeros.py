"""What a run's zeros save (`target/machine/zeros`), added to a report."""

from __future__ import annotations

import numpy as np

from tvm_ergo.report.model import Report, ZeroRow
from tvm_ergo.target.errors import InputError
from tvm_ergo.target.machine import Machine
from tvm_ergo.target.machine.zeros import ZeroProducts

PJ_PER_UJ = 1e6


def count_zeros(compiled, sample: dict[str, np.ndarray] | np.ndarray) -> ZeroProducts:
    """Of all chip calls of one inference."""
    counted = ZeroProducts()
    for call in compiled.run(sample).calls:
        Machine(call.program, compiled.chip).run(call.inputs, watch=counted)
    return counted


def with_zeros(
    report: Report,
    compiled,
    sample: dict[str, np.ndarray] | np.ndarray | None = None,
    name: str = "the first calibration sample",
) -> Report:
    """sample : one input of the network; None takes the first calibration sample. name : of it, for the reader. Errors:
    InputError without an input."""
    sample = compiled.sample if sample is None else sample
    if sample is None:
        raise InputError(
            "no input to count zeros on", remedy="give one: --zeros FILE, or with_zeros(report, compiled, inputs)"
        )
    counted, chip = count_zeros(compiled, sample), compiled.chip
    points = [
        row.model_copy(update={"zeros_saved_uj": counted.saved_pj(chip, row.point) / PJ_PER_UJ})
        for row in report.points
    ]
    zeros = ZeroRow(share=counted.share, saved_uj=counted.saved_pj(chip, report.point) / PJ_PER_UJ, sample=name)
    return report.model_copy(update={"zeros": zeros, "points": points})


def zeros_text(report: Report) -> str:
    """ "43.2 % of the products on image.npy have a zero operand: 2.81 of 3.14 uJ where the array isolates them"."""
    row = report.zeros
    return (
        f"{100 * row.share:.1f} % of the products on {row.sample} have a zero operand: "
        f"{report.energy_uj - row.saved_uj:,.4g} of {report.energy_uj:,.4g} uJ "
        "where the array isolates them; all other figures count every product in full"
    )
