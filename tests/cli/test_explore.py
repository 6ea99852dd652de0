"""``tvm-ergo explore`` and ``tvm_ergo.explore``: the same front as table, JSON and page."""

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvm_ergo
from tvm_ergo import zoo
from tvm_ergo.cli import main
from tvm_ergo.report.front import Front
from tvm_ergo.target.errors import InputError, UnsupportedError

MODEL = str(zoo.DIGITS_MODEL)


def dense_net() -> onnx.ModelProto:
    """[1, 6] float -> dense -> [1, 3]."""
    weights = numpy_helper.from_array(np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="dense")],
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.fixture(scope="module")
def front_and_outputs(workspace, tmp_path_factory):
    folder = tmp_path_factory.mktemp("explore")
    arguments = [
        "explore",
        MODEL,
        "--calibration",
        str(workspace / "cal.npz"),
        "--stream",
        "--points",
        "4",
        "--point",
        "eco",
    ]
    assert main([*arguments, "--json", str(folder / "f.json"), "--html", str(folder / "f.html")]) == 0
    return Front.model_validate_json((folder / "f.json").read_text()), (folder / "f.html").read_text()


def test_json_has_both_series_without_dominated_points(front_and_outputs):
    front, _ = front_and_outputs
    plain = [series for series in front.series if "compressed" not in series.name]
    assert (
        [series.name for series in plain] == ["resident", "streamed"]
        and front.point == "eco"
        and front.weights == "auto"
    )
    assert all(series.points[-1].how == "whole layers" and len(series.points) >= 3 for series in plain)
    for series in front.series:
        figures = [(p.memory_bytes, p.cycles, p.energy_uj) for p in series.points]
        assert figures == sorted(figures) and "least memory" in [p.how for p in series.points][:1]
        assert not any(a != b and all(x <= y for x, y in zip(a, b)) for a in figures for b in figures)
        assert all(
            p.activation_bytes >= (series.bound_bytes or 0) and p.memory_bytes == p.activation_bytes + p.constant_bytes
            for p in series.points
        )
        assert all(p.latency_ms == pytest.approx(p.cycles / front.clock_hz * 1e3) for p in series.points)


def test_every_points_memory_is_a_limit_that_compiling_meets(workspace, front_and_outputs):
    """With the same options, and for no more cycles."""
    front, _ = front_and_outputs
    calibration = np.load(workspace / "cal.npz")["image"]
    for series in front.series:
        point = series.points[0]
        model = tvm_ergo.compile(
            MODEL, calibration=calibration, memory=point.memory_bytes, stream="streamed" in series.name
        )
        assert max(program.meta["peak_bytes"] for program in model.programs.values()) <= point.memory_bytes


def test_python_gives_the_same(workspace, front_and_outputs):
    images = np.load(workspace / "cal.npz")["image"]
    model = tvm_ergo.compile(MODEL, calibration=images)
    steps = []
    front = tvm_ergo.explore(
        model, calibration=images, stream=True, points=4, point="eco", progress=lambda *step: steps.append(step)
    )
    assert (
        front.series == front_and_outputs[0].series
        and steps[-1][0].endswith("frame streamed")
        and steps[-1][1] == steps[-1][2]
    )
    model.save(workspace / "again.ergo")
    with pytest.raises(InputError, match="loaded"):
        tvm_ergo.explore(tvm_ergo.load(workspace / "again.ergo"))
    with pytest.raises(InputError, match="points cannot be 1"):
        tvm_ergo.explore(model, points=1)


def test_page_is_self_contained(front_and_outputs):
    front, page = front_and_outputs
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page) and "Plotly.newPlot" in page
    assert all(f"{p.memory_bytes:,}" in page for series in front.series for p in series.points)


def test_table_and_wrong_options(workspace, capsys):
    assert (
        main(["explore", MODEL, "--calibration", str(workspace / "cal.npz"), "--points", "2", "--compression", "off"])
        == 0
    )
    out = capsys.readouterr().out
    assert "whole layers" in out and "frame resident" in out and "streamed" not in out
    assert main(["explore", str(workspace / "digits.ergo")]) == 2
    assert "give the model file" in capsys.readouterr().err
    for wrong in (
        ["--points", "1"],
        ["--compression", "some"],
        ["--lossless"],
        ["--memory", "64KiB"],
    ):  # none would have an effect
        with pytest.raises(SystemExit) as stop:
            main(["explore", MODEL, *wrong])
        assert stop.value.code == 2


def test_without_a_picture_to_stream_nothing_is_planned(monkeypatch):
    monkeypatch.setattr(
        "tvm_ergo.exploring.pareto", lambda *args, **options: pytest.fail("planned before it was checked")
    )
    with pytest.raises(UnsupportedError, match="streamed"):
        tvm_ergo.explore(
            dense_net(), calibration=np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32), stream=True
        )
