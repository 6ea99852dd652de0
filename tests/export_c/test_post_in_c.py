"""Post-processing in exported C: on this machine and on emulated boards, to the bit what the emulator gives."""

from __future__ import annotations

import numpy as np
import pytest

import tvm_ergo
from tvm_ergo import zoo
from tvm_ergo.post import Softmax, Ssd, Yolov8, Yolox
from tvm_ergo.target.native.library import library

from ..post import nets
from .test_export_c import expected, run_on

pytestmark = pytest.mark.skipif(library() is None, reason="the native runtime was not built: pip install -e .")
BOARDS = ["here", "cortex-m", "riscv"]
PICTURES = np.random.default_rng(5).standard_normal((4, 3, 64, 64)).astype(np.float32)


def detector(post, model):
    return tvm_ergo.compile(model, calibration=PICTURES, post=post)


@pytest.fixture(scope="module")
def detectors():
    anchors = np.random.default_rng(6).uniform(5, 40, (40, 4))
    found = {
        "yolox": detector(Yolox(score=0.1, iou=0.5, most=10), nets.yolox()),
        "yolov8": detector(Yolov8(score=0.5, bins=4), nets.heads(16 + 3)),
        "ssd": detector(Ssd(score=0.2, anchors=anchors, activation="softmax"), nets.ssd()),
    }
    return {name: (model, expected(*model.programs.values())) for name, model in found.items()}


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("name", ["yolox", "yolov8", "ssd"])
def test_detectors(detectors, name, board, tmp_path):
    model, outputs = detectors[name]
    tvm_ergo.export_c(model, tmp_path / "out", name="net")
    header = (tmp_path / "out" / "net.h").read_text()
    assert "/* x1, y1, x2, y2 in 1/64 pixel of the input */" in header and 'OUTPUT_3_NAME "count"' in header
    assert outputs[3][0] > 1  # there is something to find
    assert run_on(board, tmp_path / "out", "net") == outputs


@pytest.mark.parametrize("board", BOARDS)
def test_a_classifier(board, tmp_path):
    train, *_ = zoo.digits()
    model = tvm_ergo.compile(zoo.DIGITS_MODEL, calibration=train[:32], post=Softmax(k=3))
    tvm_ergo.export_c(model, tmp_path / "out", name="net")
    assert not (tmp_path / "out" / "post_boxes.c").exists()  # only what the network calls
    assert run_on(board, tmp_path / "out", "net") == expected(*model.programs.values())
