"""Post-processing behind compiled networks, against floating point on what the same networks give without it."""

from __future__ import annotations

import numpy as np
import pytest

import tvm_ergo
from tvm_ergo.evaluation import detection
from tvm_ergo.post import Anomaly, Argmax, Ctc, Keypoints, Sigmoid, Softmax, Ssd, TopK, Yolov5, Yolov8, Yolox, named
from tvm_ergo.post.measured import detections
from tvm_ergo.target.errors import InputError, OutOfMemoryError, UnsupportedError
from tvm_ergo.target.isa import CpuCall
from tvm_ergo.target.machine import Machine
from tvm_ergo.target.program import BufferKind

from . import nets

UNIT, REAL, PIXEL = 2.0**-30, 2.0**-16, 2.0**-6


def pictures(size: int, count: int = 4) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((count, 3, size, size)).astype(np.float32)


class Pair:
    """A network without and with post-processing."""

    def __init__(self, model, size: int, post, **options):
        self.images = pictures(size)
        options = {"calibration": self.images, "quantize": tvm_ergo.QuantizeOptions(equalize=False), **options}
        self.plain, self.post = (tvm_ergo.compile(model, post=p, **options) for p in (None, post))

    def outputs(self, image=None):
        """Of the plain network in float, and of the other; every way of running gives the latter the same bits."""
        image = self.images[:1] if image is None else image
        result = self.post.run(image)
        (call,) = result.calls
        ((_, program),) = self.post.programs.items()
        for options in (dict(native=False), dict(strict=True)):
            again = Machine(program, self.post.chip, **options).run(call.inputs)
            assert all(np.array_equal(again.outputs[name], array) for name, array in result.outputs.items())
        return list(self.plain.run(image).outputs.values()), result.outputs


def same_boxes(found: detection.Detections, expected: detection.Detections, least: int = 3) -> None:
    """Scores alike; boxes and classes too where the score is no near tie."""
    assert len(found.scores) == len(expected.scores) >= least
    assert np.abs(found.scores - expected.scores).max() < 1e-4
    order = np.abs(np.diff(expected.scores, prepend=2)) > 1e-4
    alone = order & np.append(order[1:], True)
    assert alone.any()
    assert np.array_equal(found.classes[alone], expected.classes[alone])
    assert np.abs(found.boxes[alone] - expected.boxes[alone]).max(initial=0) < 0.1


def suppressed(boxes, scores, options) -> detection.Detections:
    """boxes [n, 4], scores [n, classes], as the evaluation does it."""
    kept = []
    for cls in range(scores.shape[1]):
        at = np.flatnonzero(scores[:, cls] > options.score)
        kept += [(scores[i, cls], cls, i) for i in at[detection.suppress(boxes[at], scores[at, cls], options.iou)]]
    kept = sorted(kept, key=lambda k: -k[0])[: options.most]
    index = np.array([k[2] for k in kept], int)
    return detection.Detections(boxes[index], np.array([k[0] for k in kept]), np.array([k[1] for k in kept]))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_yolox():
    options = Yolox(score=0.3, iou=0.5, most=20)
    pair = Pair(nets.yolox(), 64, options)
    (rows,), outputs = pair.outputs()
    rows[..., 4:] = np.clip(rows[..., 4:], 0, 1)  # stored sigmoids may end a step above 1
    expected = detection.detect(rows[0], size=64, score_threshold=0.3, nms_threshold=0.5, most=20)
    same_boxes(detections(outputs), expected)
    assert [o.shape for o in pair.post.outputs] == [(20, 4), (20,), (20,), (1,)] and pair.post.fallbacks == ()
    assert len(pair.plain.programs) == 1 and pair.post.chain is not None


@pytest.mark.parametrize("stream, memory", [(False, None), (True, "28KiB")])
def test_yolov5(stream, memory):
    options = Yolov5(score=0.3, iou=0.45)
    pair = Pair(nets.heads(3 * 7), 64, options, stream=stream, memory=memory)
    levels, outputs = pair.outputs()
    boxes, scores, anchors = [], [], options.anchors.reshape(3, 3, 2)
    for raw, stride, sizes in zip(levels, options.strides, anchors):
        x = sigmoid(raw[0].reshape(3, 7, *raw.shape[2:]).transpose(2, 3, 0, 1).astype(np.float64))
        h, w = x.shape[:2]
        cells = np.stack(np.meshgrid(np.arange(w), np.arange(h)), -1)[:, :, None]
        centre, size = (2 * x[..., :2] - 0.5 + cells) * stride, (2 * x[..., 2:4]) ** 2 * sizes
        boxes.append(np.concatenate([centre - size / 2, centre + size / 2], -1).reshape(-1, 4))
        scores.append((x[..., 4:5] * x[..., 5:]).reshape(-1, 2))
    same_boxes(detections(outputs), suppressed(np.concatenate(boxes), np.concatenate(scores), options))


def test_yolov8():
    options = Yolov8(score=0.6, bins=4)
    pair = Pair(nets.heads(16 + 3), 64, options)
    levels, outputs = pair.outputs()
    boxes, scores = [], []
    for raw, stride in zip(levels, options.strides):
        x = raw[0].transpose(1, 2, 0).astype(np.float64)
        h, w = x.shape[:2]
        e = np.exp(x[..., :16].reshape(h, w, 4, 4))
        far = (e * np.arange(4)).sum(-1) / e.sum(-1)
        cells = np.stack(np.meshgrid(np.arange(w), np.arange(h)), -1) + 0.5
        places = np.concatenate([cells - far[..., :2], cells + far[..., 2:]], -1) * stride
        boxes.append(places.reshape(-1, 4))
        scores.append(sigmoid(x[..., 16:]).reshape(-1, 3))
    same_boxes(detections(outputs), suppressed(np.concatenate(boxes), np.concatenate(scores), options))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_ssd(activation):
    rng = np.random.default_rng(6)
    anchors = np.concatenate([rng.uniform(8, 56, (40, 2)), rng.uniform(6, 40, (40, 2))], 1)
    options = Ssd(score=0.3, anchors=anchors, activation=activation, order="yxhw")
    pair = Pair(nets.ssd(), 64, options)
    (places, kinds), outputs = pair.outputs()
    t, kinds, p = places[0].astype(np.float64), kinds[0].astype(np.float64), anchors
    e = np.exp(kinds)
    scores = (e / e.sum(1, keepdims=True) if activation == "softmax" else sigmoid(kinds))[:, 1:]
    centre, size = p[:, :2] + 0.1 * t[:, 1::-1] * p[:, 2:], np.exp(0.2 * t[:, 3:1:-1]) * p[:, 2:]
    boxes = np.concatenate([centre - size / 2, centre + size / 2], 1)
    same_boxes(detections(outputs), suppressed(boxes, scores, options))


def test_classes():
    flat = nets.Net(16)
    flat.conv("image", 3, 12, 16, relu=False)
    flat.give(flat.shape("conv0", [1, 12]), 1, 12)
    model = flat.model()
    pair = Pair(model, 16, Softmax())
    (logits,), outputs = pair.outputs()
    e = np.exp(logits[0] - logits[0].max())
    assert outputs["probabilities"].shape == (12,)
    assert np.abs(outputs["probabilities"] * UNIT - e / e.sum()).max() < 1e-4
    assert pair.post.outputs[0].scale == UNIT and pair.post.outputs[0].zero_point == 0
    pair = Pair(model, 16, Softmax(k=4))
    _, best = pair.outputs()
    order = np.argsort(-outputs["probabilities"], kind="stable")[:4]
    assert np.array_equal(best["classes"], order) and np.array_equal(best["scores"], outputs["probabilities"][order])
    _, best = Pair(model, 16, TopK(k=3)).outputs()
    assert (
        np.array_equal(best["classes"], order[:3]) and np.abs(best["scores"] * REAL - logits[0, order[:3]]).max() < 1e-4
    )
    _, outputs = Pair(model, 16, Sigmoid()).outputs()
    assert np.abs(outputs["probabilities"] * UNIT - sigmoid(logits[0])).max() < 1e-4
    with pytest.raises(InputError, match="more classes are asked for"):
        tvm_ergo.compile(model, calibration=pictures(16), post=TopK(k=13))


def test_maps_and_sequences():
    (heat,), outputs = Pair(nets.maps(), 32, Keypoints()).outputs()
    place = heat[0].reshape(3, -1).argmax(1)
    y, x = np.divmod(place, 8)
    assert np.abs(outputs["points"] * PIXEL - 4 * np.stack([x, y], 1)).max() <= 1
    assert np.abs(outputs["scores"] * REAL - heat[0].reshape(3, -1).max(1)).max() < 1e-3
    (scores,), outputs = Pair(nets.maps(5), 32, Argmax()).outputs()
    assert outputs["mask"].dtype == np.uint8 and np.array_equal(outputs["mask"], scores[0].argmax(0))
    (steps,), outputs = Pair(nets.sequence(), 16, Ctc(blank=-1)).outputs()
    best = steps[0].argmax(1)
    kept = [c for c, before in zip(best, [-1, *best]) if c not in (before, 5)]
    assert outputs["tokens"][: outputs["count"][0]].tolist() == kept


def test_anomaly_and_the_input_it_keeps():
    net = nets.Net(8, seed=7)
    net.give(net.conv(net.conv("image", 3, 6, 1), 6, 3, 1, relu=False), 1, 3, 8, 8)
    pair = Pair(net.model(), 8, Anomaly())
    (again,), outputs = pair.outputs()
    assert np.isclose(outputs["score"][0] * REAL, np.mean((again - pair.images[:1]) ** 2), rtol=0.05)
    (program,) = pair.post.programs.values()
    assert program.instructions[0].MNEMONIC == "COPY"
    with pytest.raises(UnsupportedError, match="streamed"):
        tvm_ergo.compile(net.model(), calibration=pair.images, post="anomaly", stream=True)


def test_memory_is_planned_and_shown(tmp_path):
    options = Yolox(score=0.3, most=10, room=40)
    model, images = nets.yolox(), pictures(64)
    compiled = tvm_ergo.compile(model, calibration=images, post=options)
    (program,) = compiled.programs.values()
    program.validate()
    calls = [i for i in program.instructions if isinstance(i, CpuCall)]
    assert [c.function.name for c in calls] == ["BOXES"] * 3 + ["SUPPRESS"]
    for operand in [o for c in calls for o in c.writes()]:
        low, high = operand.extent
        assert any(
            b.addr <= low and high <= b.addr + b.size_bytes and b.kind in (BufferKind.SCRATCH, BufferKind.OUTPUT)
            for b in program.buffers
        )
    assert program.meta["peak_bytes"] <= compiled.chip.memory_bytes
    assert max(b.addr + b.size_bytes for b in program.buffers) == program.meta["peak_bytes"]
    from tvm_ergo.report.build import build_report

    report = build_report("net", compiled.programs, compiled.chip, outputs=compiled.outputs)
    assert report.post.name == "yolox" and report.post.options["most"] == 10 and report.post.cycles > 1000
    assert report.post.scratch_bytes == calls[-1].inputs[0].size_bytes and "1/64 pixel" in report.post.outputs["boxes"]
    compiled.save(tmp_path / "net.ergo")
    loaded = tvm_ergo.load(tmp_path / "net.ergo", programs_only=True)
    first, second = (m.run(images[:1]).outputs for m in (compiled, loaded))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    peak = program.meta["peak_bytes"]
    with pytest.raises(OutOfMemoryError, match="post-processing does not fit"):
        tvm_ergo.compile(model, calibration=images, post=Yolox(room=100_000, most=10_000), memory=peak)


def test_wrong_heads_and_options():
    images = pictures(64)
    with pytest.raises(InputError, match="not those of a yolov5 head") as error:
        tvm_ergo.compile(nets.heads(11), calibration=images, post="yolov5")
    assert "8 x 8, 4 x 4, 2 x 2" in str(error.value) and "[1, 11, 8, 8]" in str(error.value)
    with pytest.raises(InputError, match="needs its anchors"):
        tvm_ergo.compile(nets.ssd(), calibration=images, post="ssd")
    with pytest.raises(InputError, match="not those of a softmax head"):
        tvm_ergo.compile(nets.heads(11), calibration=images, post="softmax")
    for call in (
        lambda: Yolox(score=2),
        lambda: Yolox(most=0),
        lambda: TopK(k=1.5),
        lambda: Yolox(strides=(0, 8)),
        lambda: Ssd(order="hw"),
        lambda: named("yolo", {}),
        lambda: named("yolox", {"scor": "0.3"}),
        lambda: tvm_ergo.compile(nets.heads(11), calibration=images, post=7),
    ):
        with pytest.raises(InputError):
            call()
    assert named("yolox", {"score": "0.5", "strides": "8,16", "most": "5"}) == Yolox(score=0.5, strides=(8, 16), most=5)
    net = nets.Net(16)
    net.give(net.add("Erf", [net.conv("image", 3, 4, 16, relu=False)], "out"), 1, 4, 1, 1)
    with pytest.raises((UnsupportedError, InputError)):
        tvm_ergo.compile(net.model(), calibration=pictures(16), post="anomaly")
