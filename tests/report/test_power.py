"""What a report says of power: against the traces it is made of, and as text."""

import io

import pytest
from rich.console import Console

import tvm_ergo
from tvm_ergo import zoo
from tvm_ergo.report.build import build_report
from tvm_ergo.report.html import html_page
from tvm_ergo.report.model import Report
from tvm_ergo.report.power import part_table, point_table, power_parts
from tvm_ergo.report.terminal import print_report
from tvm_ergo.target.chip import chip
from tvm_ergo.target.errors import MachineError
from tvm_ergo.target.machine import Trace

RATES = (30.0, 1e7)


@pytest.fixture(scope="module", params=["ergo/1", "ergo/2"])
def compiled(request):
    return tvm_ergo.compile(zoo.DIGITS_MODEL, calibration=zoo.digits()[0][:32], target=request.param)


@pytest.fixture(scope="module")
def report(compiled):
    return build_report("digits", compiled.programs, compiled.chip, frames_per_s=RATES, point="low", window_s=2e-6)


def test_the_parts_are_the_whole_energy(compiled, report):
    (program,) = compiled.programs.values()
    trace = Trace(program, compiled.chip, "low")
    dynamic = sum(p.arithmetic_uj + p.local_uj + p.read_uj + p.write_uj + p.control_uj for p in report.parts)
    assert dynamic == pytest.approx(trace.dynamic_pj / 1e6) and sum(
        p.leakage_uj for p in report.parts
    ) == pytest.approx(report.leakage_uj, rel=1e-4)
    assert dynamic + sum(p.leakage_uj for p in report.parts) == pytest.approx(report.energy_uj, rel=1e-4)
    tensor = next(p for p in report.parts if p.part == "TENSOR")
    assert tensor.read_uj == pytest.approx(
        sum(
            e.events.get(k, 0) * compiled.chip.energy_pj({k: 1}, "low")
            for e in trace.entries
            for k in e.events
            if e.engine.name == "TENSOR" and k.value == "sram_read_byte"
        )
        / 1e6
    )
    assert {p.part for p in report.parts} >= {"TENSOR", "memory", "always on", "SPARSE"}


def test_every_point_is_what_a_report_at_that_point_says(compiled, report):
    assert [p.point for p in report.points] == [p.name for p in compiled.chip.points]
    for row in report.points:
        own = build_report(
            "digits", compiled.programs, compiled.chip, frames_per_s=RATES, point=row.point, window_s=2e-6
        )
        assert (own.power, own.peak.power_mw) == (row.power, row.peak_mw)
        assert (own.energy_uj, own.latency_ms) == pytest.approx((row.energy_uj, row.latency_ms), rel=1e-4)
        assert (
            row.inferences_per_s_per_w == pytest.approx(1e6 / row.energy_uj)
            and row.power[1].power_mw is None is row.power[1].gated_mw
        )
        assert row.power[0].gated_mw < row.power[0].power_mw


def test_a_chip_without_gating_and_no_programs(compiled):
    parts = power_parts([], chip("ergo/1"), RATES)
    assert (parts.power, parts.parts, parts.peak, parts.points) == ([], [], None, [])
    with pytest.raises(MachineError, match="window"):
        build_report("digits", compiled.programs, compiled.chip, window_s=0)


def test_terminal_page_and_json_show_them(report):
    out = io.StringIO()
    print_report(report, Console(file=out, width=150))
    text, page = out.getvalue(), html_page(report)
    peak = f"{report.peak.power_mw:,.1f} mW"
    for expected in (
        "every operating point",
        "eco",
        "too slow",
        "with gating",
        "memory reads",
        "worst 2 us",
        peak,
        report.peak.layer,
    ):
        assert expected in text
    for expected in ("Every operating point", "memory reads", "with gating", peak):
        assert expected in page
    header, rows = point_table(report)
    assert len(header) == len(rows[0]) and [row[0] for row in part_table(report)][-1] == "all"
    assert Report.model_validate_json(report.model_dump_json()) == report
