"""``tvm_ergo.explore``: tensors that wait compressed below the smallest plain plan, and the forms of the weights."""

import pytest

import tvm_ergo

from .small_models import camera_net, frames

CALIBRATION = frames(8)
FEW = dict(calibration=CALIBRATION, points=2)


def peak_of(model) -> int:
    return max(program.meta["peak_bytes"] for program in model.programs.values())


def test_tensors_wait_compressed_below_the_smallest_plain_plan():
    """And compiling meets each point's memory, by compressing as many tensors or more cheaply."""
    front = tvm_ergo.explore(camera_net(), stream=True, weights="dense", **FEW)
    series = {s.name: s.points for s in front.series}
    plain, waiting = series["streamed"], series["streamed, compressed"]
    assert list(series)[0] == "resident" and all(p.weights == "plain" for points in series.values() for p in points)
    assert waiting and all(p.compressed > 0 and p.memory_bytes < plain[0].memory_bytes for p in waiting)
    assert not any(p.compressed for p in plain)
    for point in waiting:
        model = tvm_ergo.compile(
            camera_net(), calibration=CALIBRATION, stream=True, memory=point.memory_bytes, weights="dense"
        )
        assert peak_of(model) <= point.memory_bytes and any(
            program.meta["compression"] for program in model.programs.values()
        )


def test_what_the_objective_memory_gives_is_a_point():
    front = tvm_ergo.explore(camera_net(), stream=True, **FEW)
    for stream, label in ((False, "resident"), (True, "streamed")):
        model = tvm_ergo.compile(camera_net(), calibration=CALIBRATION, stream=stream, objective="memory")
        points = [p for s in front.series if s.name.startswith(label) for p in s.points]
        assert peak_of(model) in {p.memory_bytes for p in points if p.compressed}


def test_nothing_is_compressed_unless_there_are_data_and_it_is_wanted():
    model = tvm_ergo.compile(camera_net(), calibration=CALIBRATION)
    for options in (dict(points=2), dict(compression="off", **FEW)):
        assert [s.name for s in tvm_ergo.explore(model, stream=True, weights="dense", **options).series] == [
            "resident",
            "streamed",
        ]


@pytest.mark.parametrize("weights", ["dense", "coded", "auto"])
def test_forms_of_the_weights(weights):
    """Constants are as small as asked for, counted in the memory, and what compiling with the same option needs."""
    (series,) = tvm_ergo.explore(camera_net(), weights=weights, compression="off", **FEW).series
    model = tvm_ergo.compile(
        camera_net(), calibration=CALIBRATION, weights=weights, compression="off", memory=series.points[0].memory_bytes
    )
    assert peak_of(model) <= series.points[0].memory_bytes
    forms = {p.weights for p in series.points}
    assert (
        forms
        <= {
            "dense": {"plain"},
            "coded": {"coded"},
            "auto": {"plain", "coded for free", "coded to 4x a layer", "coded as needed", "fewest bytes"},
        }[weights]
    )
    dense, coded = (
        min(
            p.constant_bytes
            for p in tvm_ergo.explore(camera_net(), weights=w, compression="off", **FEW).series[0].points
        )
        for w in ("dense", "coded")
    )
    assert coded <= series.points[0].constant_bytes <= dense and coded < dense
