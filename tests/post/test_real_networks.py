"""Post-processing behind trained networks on real inputs, against NumPy on what the same networks give without it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import tvm_ergo
from tvm_ergo import evaluation
from tvm_ergo.post import Anomaly, Argmax, Ctc, Keypoints, Softmax

pytestmark = pytest.mark.skipif(not evaluation.has_shared(), reason="needs the shared models (ERGO_SHARED)")
UNIT, REAL, PIXEL = 2.0**-30, 2.0**-16, 2.0**-6
IMAGES = 8


def model_of(name: str) -> onnx.ModelProto:
    return onnx.load_from_string(evaluation.datasets.model_bytes(evaluation.find_task(name).path))


def images_of(name: str) -> list[dict[str, np.ndarray]]:
    return [feed for feeds, _ in evaluation.find_task(name).tests[0].source.samples(IMAGES) for feed in feeds]


def class_maps(name: str) -> onnx.ModelProto:
    """A classifier without its pooling: the classifier at every place of the last features, [1, classes, H, W]."""
    model = model_of(name)
    weight, bias = (next(i for i in model.graph.initializer if i.name == n) for n in model.graph.node[-1].input[1:])
    features = model.graph.node[-3].input[0]
    del model.graph.node[-3:]
    kernel = numpy_helper.from_array(numpy_helper.to_array(weight)[:, :, None, None], "map_weight")
    model.graph.initializer.append(kernel)
    model.graph.node.append(helper.make_node("Conv", [features, "map_weight", bias.name], ["maps"]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("maps", 1, ["N", kernel.dims[0], 8, 8]))
    return model


def pairs(name: str, model, *posts):
    """(feeds, outputs without, outputs with each) for every image."""
    task = evaluation.find_task(name)
    options = {} if task.quantized else {"calibration": list(evaluation.calibration_inputs(name))[:8]}
    options |= {"memory": "64MiB", "input_shapes": evaluation.lookup.input_shapes_of(task)}
    plain, *others = [tvm_ergo.compile(model, post=post, **options) for post in (None, *posts)]
    for feeds in images_of(name):
        yield feeds, list(plain.run(feeds).outputs.values()), [other.run(feeds).outputs for other in others]


def test_keypoints_and_masks_of_class_maps():
    places = set()
    for _, (maps,), (points, mask) in pairs("resnet20_cifar10", class_maps("resnet20_cifar10"), Keypoints(), Argmax()):
        flat = maps[0].reshape(len(maps[0]), -1)
        y, x = np.divmod(flat.argmax(1), maps.shape[3])
        assert np.abs(points["points"] * PIXEL - 4 * np.stack([x, y], 1)).max() <= 1  # a quarter of a cell of 4 pixels
        assert np.abs(points["scores"] * REAL - flat.max(1)).max() < 1e-3
        assert np.array_equal(mask["mask"], maps[0].argmax(0))
        places |= set(zip(x.tolist(), y.tolist()))
    assert len(places) > 5


def test_anomaly_score_of_the_autoencoder():
    name, scores = "ad01_autoencoder_fp32", []
    for feeds, (again,), (found,) in pairs(name, model_of(name), Anomaly()):
        (x,) = feeds.values()
        scores.append(found["score"][0] * REAL)
        assert np.isclose(scores[-1], np.mean((again - x) ** 2), rtol=0.05), "stored input and output"
    assert np.ptp(scores) > 0


def test_best_words_of_keyword_spotting():
    name = "kws_dscnn_fp32"
    for _, (given,), (best,) in pairs(name, model_of(name), Softmax(k=3)):
        order = np.argsort(-given[0], kind="stable")[:3]
        assert best["classes"][0] == order[0] and given[0][best["classes"]].tolist() == given[0][order].tolist()


def test_greedy_tokens_of_a_language_model():
    """Trained scores of 512 tokens at 256 steps; repeats and the commonest token as blank."""
    name = "stories260k_s256"
    for _, (scores,), (found,) in pairs(name, model_of(name), Ctc(blank=0)):
        best = scores[0].argmax(1)
        expected = [int(c) for c, before in zip(best, [-1, *best]) if c not in (before, 0)]
        assert found["tokens"][: found["count"][0]].tolist() == expected and len(expected) > 50
        break
