"""What a run's zeros save, in reports."""

import io

import numpy as np
import pytest
from rich.console import Console

import tvm_ergo
from tvm_ergo import zoo
from tvm_ergo.report.build import build_report
from tvm_ergo.report.html import html_page
from tvm_ergo.report.model import Report
from tvm_ergo.report.power import point_table
from tvm_ergo.report.terminal import print_report
from tvm_ergo.report.zeros import count_zeros, with_zeros
from tvm_ergo.target.errors import InputError


def test_zeros_are_those_of_the_sample(tmp_path):
    images = zoo.digits()[0][:16]
    compiled = tvm_ergo.compile(zoo.DIGITS_MODEL, calibration=images)
    plain = build_report("digits", compiled.programs, compiled.chip, frames_per_s=(30.0,))
    report = with_zeros(plain, compiled)
    counted = count_zeros(compiled, compiled.sample)
    assert report.zeros.share == counted.share and 0 < report.zeros.saved_uj < plain.energy_uj
    for row in report.points:
        assert row.zeros_saved_uj == pytest.approx(counted.saved_pj(compiled.chip, row.point) / 1e6)
    blank = with_zeros(plain, compiled, np.zeros_like(images[:1]), name="a blank image")
    assert blank.zeros.share != report.zeros.share and blank.zeros.sample == "a blank image"
    out = io.StringIO()
    print_report(blank, Console(file=out, width=150))
    assert (
        "a blank image" in " ".join(out.getvalue().split())
        and "zeros isolated" in " ".join(out.getvalue().split())
        and "a blank image" in html_page(blank)
    )
    header, rows = point_table(report)
    assert len(header) == len(rows[0]) and Report.model_validate_json(report.model_dump_json()) == report
    compiled.save(tmp_path / "net.ergo")
    with pytest.raises(InputError, match="no input"):
        with_zeros(plain, tvm_ergo.load(tmp_path / "net.ergo"))
