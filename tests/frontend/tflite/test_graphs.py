"""Random networks of two to six operators, float and int8, against LiteRT; more by ``python -m
tvm_ergo.evaluation.tflite.graphs``."""

import pytest

pytest.importorskip("ai_edge_litert", reason="LiteRT is the reference of TFLite files")
from tvm_ergo.evaluation.tflite.graphs import judged, network  # noqa: E402


@pytest.mark.parametrize("first", range(0, 100, 10))
def test_random_networks_are_litert_s(first):
    found = [v for seed in range(first, first + 10) for v in judged(seed)]
    assert not [v for v in found if v.wrong or v.said.startswith("refused")]
    assert sum(v.said.startswith(("right", "within")) for v in found) >= 18


def test_the_networks_hold_what_they_should():
    codes = {op.code for seed in range(100) for op in network(seed).ops}
    assert {
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "TRANSPOSE_CONV",
        "FULLY_CONNECTED",
        "PRELU",
        "SPLIT",
        "TILE",
        "SOFTMAX",
        "CONCATENATION",
        "RESIZE_BILINEAR",
    } <= codes
