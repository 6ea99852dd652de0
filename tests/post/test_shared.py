"""A published detector: average precision of the chip's boxes against those decoded in float from its raw outputs."""

from __future__ import annotations

import numpy as np
import pytest

import tvm_ergo
from tvm_ergo import evaluation
from tvm_ergo.cli import main
from tvm_ergo.evaluation.metrics import MeanAveragePrecision
from tvm_ergo.post import Yolox
from tvm_ergo.post.measured import measurable

pytestmark = pytest.mark.skipif(not evaluation.has_shared(), reason="needs the shared models (ERGO_SHARED)")
IMAGES = 16


def test_yolox_nano(tmp_path, capsys):
    task = evaluation.find_task("yolox_nano")
    path = evaluation.shared_root() / "models" / task.path
    options = dict(calibration=list(evaluation.calibration_inputs("yolox_nano"))[:16], memory="256MiB")
    post = Yolox(score=0.001, iou=0.65, most=100, room=3000)
    plain, boxes = (tvm_ergo.compile(path, post=p, **options) for p in (None, post))
    ours, theirs = MeanAveragePrecision(), MeanAveragePrecision()
    for (feeds,), label in task.tests[0].source.samples(IMAGES):
        theirs.update([list(plain.run(feeds).outputs.values())], label)
        ours.update([measurable(boxes, boxes.run(feeds).outputs)], label)
    for name, value in theirs.result().items():
        assert value > 10 and abs(ours.result()[name] - value) < 0.3, (ours.result(), theirs.result())
    boxes.save(tmp_path / "net.ergo")
    assert main(["report", str(tmp_path / "net.ergo"), "--json", str(tmp_path / "net.json")]) == 0
    assert "yolox on the chip's CPU" in capsys.readouterr().out
    count = boxes.run(feeds).outputs["count"]
    assert count.dtype == np.int32 and 1 <= count[0] <= 100
