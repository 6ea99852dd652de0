"""Metrics against slow, obvious computations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tvm_ergo.evaluation import detection, metrics
from tvm_ergo.evaluation.datasets import Boxes


def test_topk_counts_by_hand_with_class_offset():
    metric = metrics.TopK(class_offset=1)
    scores = np.zeros((1, 11), np.float32)
    scores[0, :7] = [9, 8, 7, 6, 5, 4, 3]
    for label in (
        -1,
        0,
        3,
        4,
    ):  # class indices 0, 1, 4, 5 of the output: the first is the best, the first five are top-5
        metric.update([[scores]], label)
    assert metric.result() == {"top1": 25.0, "top5": 75.0}


def test_topk_head_of_one_row_is_a_threshold_at_zero():
    head = np.array([[1.0, -1.0]]), np.array([0.5])
    metric = metrics.TopK(head=head)
    metric.update([[np.array([[1.0, 0.0]])]], 1)
    metric.update([[np.array([[0.0, 2.0]])]], 0)
    metric.update([[np.array([[0.0, 2.0]])]], 1)
    assert metric.result()["top1"] == pytest.approx(200 / 3)


@given(st.lists(st.integers(0, 6), min_size=4, max_size=30))
@settings(deadline=None, max_examples=40)
def test_ranks_equal_scipy(values):
    assert np.allclose(metrics.ranks(np.array(values)), stats.rankdata(values) - 1)


def test_spearman_equals_scipy():
    rng = np.random.default_rng(0)
    metric, cosines, gold = metrics.Spearman(), [], []
    for _ in range(20):
        a, b, score = rng.standard_normal(5), rng.standard_normal(5), float(rng.integers(0, 5))
        metric.update([[a], [b]], score)
        cosines.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        gold.append(score)
    assert metric.result()["spearman"] == pytest.approx(100 * stats.spearmanr(cosines, gold).statistic)


def test_psnr_of_a_constant_error():
    metric = metrics.Psnr(crop=2)
    truth = np.full((12, 12), 100, np.uint8)
    image = np.full((12, 12), 110.0)
    image[:2] = 0  # inside the cropped border
    metric.update([[image[None, None] / 255]], truth)
    assert metric.result()["psnr"] == pytest.approx(20 * np.log10(255 / 10))


def test_next_token_is_the_mean_cross_entropy():
    rng = np.random.default_rng(1)
    logits, tokens = rng.standard_normal((1, 6, 9)) * 3, rng.integers(0, 9, 6)
    metric = metrics.NextToken()
    metric.update([[logits]], tokens)
    expected = [-np.log(np.exp(logits[0, t, tokens[t + 1]]) / np.exp(logits[0, t]).sum()) for t in range(5)]
    assert metric.result()["nll"] == pytest.approx(np.mean(expected))


def naive_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = width * height if width > 0 and height > 0 else 0.0
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def random_boxes(rng, count):
    low = rng.uniform(0, 50, (count, 2))
    return np.concatenate([low, low + rng.uniform(1, 40, (count, 2))], 1)


def test_iou_and_suppression_equal_the_naive_twins():
    rng = np.random.default_rng(2)
    for _ in range(20):
        boxes, scores = random_boxes(rng, 15), rng.uniform(0, 1, 15)
        table = detection.iou(boxes, boxes)
        assert np.allclose(table, [[naive_iou(a, b) for b in boxes] for a in boxes])
        kept = []
        for i in np.argsort(-scores):
            if all(naive_iou(boxes[i], boxes[k]) <= 0.4 for k in kept):
                kept.append(i)
        assert list(detection.suppress(boxes, scores, 0.4)) == kept


def test_crowd_overlap_is_over_the_detection_and_ignores():
    detection_box, crowd = np.array([[0.0, 0, 10, 10]]), np.array([[0.0, 0, 100, 100]])
    assert detection.iou(detection_box, crowd, np.array([True]))[0, 0] == pytest.approx(1.0)
    hit, ignored = detection.match(detection_box, crowd, np.array([True]), 0.5)
    assert not hit[0] and ignored[0]


def test_decode_puts_a_zero_output_on_the_cell_origin():
    output = np.zeros((3549, 7), np.float32)
    output[:, 4:] = [0.5, 0.25, 1.0]
    boxes, scores = detection.decode(output)
    assert np.allclose(boxes[1], [8 - 4, 0 - 4, 8 + 4, 0 + 4])  # second cell of the stride-8 grid, 8 x 8 pixels
    assert np.allclose(boxes[-1], [12 * 32 - 16] * 2 + [12 * 32 + 16] * 2)
    assert np.allclose(scores, [[0.125, 0.5]])


def test_average_precision_by_hand():
    # hits 1, 0, 1 of two truths: precision 1 up to recall .5, then 2/3 up to recall 1
    value = detection.average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]), 2)
    assert value == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    assert detection.average_precision(np.zeros(0), np.zeros(0, bool), 3) == 0.0


def test_map_is_100_for_the_truth_itself_and_0_for_the_wrong_class():
    boxes = np.array([[8.0, 8, 40, 40], [100, 100, 180, 180]])
    truth = Boxes(boxes, np.array([0, 1]), np.zeros(2, bool))

    def outcome(classes):
        metric = metrics.MeanAveragePrecision()
        metric.found.append(detection.Detections(boxes, np.array([0.9, 0.8]), np.array(classes)))
        metric.truth.append(truth)
        return metric.result()

    assert outcome([0, 1]) == {"mAP50": 100.0, "mAP": 100.0}
    assert outcome([1, 0])["mAP50"] == 0.0
