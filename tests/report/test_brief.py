"""The one screen that `compile` shows: five answers within 80 columns, whatever the network."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

import tvm_ergo
from tvm_ergo.report.brief import LISTED, brief_lines, print_brief
from tvm_ergo.report.build import build_report
from tvm_ergo.report.model import HostRow

from ..doors import small_models


@pytest.fixture(scope="module")
def report():
    model = tvm_ergo.compile(small_models.camera_net(), calibration=small_models.frames(4))
    return build_report(
        "camera.onnx",
        model.programs,
        model.chip,
        host=model.fallbacks,
        frames_per_s=(1, 30),
        inputs=model.inputs,
        outputs=model.outputs,
    )


def shown(report, width=80) -> list[str]:
    out = io.StringIO()
    print_brief(report, Console(file=out, width=width), "net.ergo")
    return out.getvalue().splitlines()


def test_it_is_one_screen(report):
    lines = shown(report)
    assert len(lines) <= 20 and all(len(line.rstrip()) <= 80 for line in lines)
    headings = [heading for heading, _ in brief_lines(report)]
    assert headings[:6] == ["memory", "time", "energy", "power", "asleep", "host CPU"] and headings[-1] == "more"


def test_its_figures_are_the_reports(report):
    told = dict(brief_lines(report, "net.ergo"))
    assert (
        f"{report.cycles:,} cycles" in told["time"]
        and "fits in 8,192 KiB" in told["memory"]
        and "at 30 fps" in told["power"]
    )
    assert told["host CPU"].startswith("nothing") and "tvm-ergo report net.ergo" in told["more"]
    assert "-o NET.ergo" in dict(brief_lines(report))["more"]


def test_what_fell_back_is_named_with_its_remedy(report):
    rows = [HostRow(name=f"n{i}", op=f"op{i}", reason=f"reason {i}", remedy=f"remedy {i}") for i in range(LISTED + 2)]
    text = "\n".join(shown(report.model_copy(update={"host": rows}), width=200))
    assert f"{LISTED + 2} operators, whose time and energy are not counted" in text and "and 2 more kinds" in text
    assert all((f"op{i} (n{i}): reason {i}; remedy {i}" in text) == (i < LISTED) for i in range(LISTED + 2))


def test_names_are_not_markup(report):
    assert "[bold]x" in "\n".join(shown(report.model_copy(update={"model": "[bold]x"})))
