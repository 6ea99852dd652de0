"""Metrics that gather one sample after the other: ``update(outputs, label)``, then ``result() -> {figure: value}``.

``outputs`` is the list of the net's outputs for this sample, one list per run (a sentence pair takes two runs).
Percentages are 0..100, PSNR in dB, nll in nats. ``primary`` names the figure that judges quantization;
``higher_is_better`` its direction.
"""

from __future__ import annotations

import numpy as np

from tvm_ergo.evaluation import detection
from tvm_ergo.evaluation.datasets import Boxes
from tvm_ergo.target.errors import InputError


class Metric:
    """Base: counts samples. Subclasses add ``update`` and ``result``."""

    primary = "top1"
    higher_is_better = True

    def __init__(self):
        self.count = 0

    def update(self, outputs: list[list[np.ndarray]], label) -> None:
        raise NotImplementedError

    def result(self) -> dict[str, float]:
        raise NotImplementedError


class TopK(Metric):
    """Top-1 and (of more than five classes) top-5 accuracy, %. Output [1, classes]; ``class_offset`` is subtracted from
    the class index (1 for 1001 classes). Errors: InputError for a label that is no class."""

    def __init__(self, class_offset: int = 0, head: tuple[np.ndarray, np.ndarray] | None = None):
        super().__init__()
        self.class_offset, self.head, self.hits, self.classes = class_offset, head, np.zeros(2), 0

    def update(self, outputs, label):
        scores = np.asarray(outputs[0][0], np.float64).reshape(-1)
        if self.head is not None:
            scores = self.head[0] @ scores + self.head[1]
            scores = np.array([0.0, scores[0]]) if len(scores) == 1 else scores
        if not -self.class_offset <= label < len(scores) - self.class_offset:
            raise InputError(
                "a label is not one of the network's classes",
                where=f"sample {self.count}",
                available=str(label),
                required=f"{-self.class_offset} to {len(scores) - self.class_offset - 1}, as the network has "
                f"{len(scores)} outputs",
                remedy="give labels that number the network's classes from 0 on",
            )
        self.classes = len(scores) - self.class_offset
        order = np.argsort(-scores, kind="stable") - self.class_offset
        self.hits += (order[0] == label, label in order[:5])
        self.count += 1

    def result(self):
        top1, top5 = 100 * self.hits / max(self.count, 1)
        return {"top1": float(top1), "top5": float(top5)} if self.classes > 5 else {"top1": float(top1)}


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0, ties share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts + ends - 1) / 2)[inverse]


class Spearman(Metric):
    """Rank correlation (x 100) between gold scores and the cosine of a pair's two embeddings."""

    primary = "spearman"

    def __init__(self):
        super().__init__()
        self.cosines, self.gold = [], []

    def update(self, outputs, label):
        a, b = (np.asarray(run[0], np.float64).reshape(-1) for run in outputs)
        self.cosines.append(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12))
        self.gold.append(label)
        self.count += 1

    def result(self):
        if self.count < 2:
            return {"spearman": 0.0}
        return {"spearman": float(100 * np.corrcoef(ranks(np.array(self.cosines)), ranks(np.array(self.gold)))[0, 1])}


class Psnr(Metric):
    """Mean over images of the peak signal-to-noise ratio, dB: peak 255, output clipped, not rounded, ``crop`` border
    pixels left out."""

    primary = "psnr"

    def __init__(self, crop: int = 6):
        super().__init__()
        self.crop, self.total = crop, 0.0

    def update(self, outputs, label):
        image = np.clip(np.asarray(outputs[0][0], np.float64).reshape(label.shape) * 255, 0, 255)
        inside = (slice(self.crop, -self.crop),) * 2
        error = np.mean((image[inside] - label[inside].astype(np.float64)) ** 2)
        self.total += float(10 * np.log10(255**2 / max(error, 1e-12)))
        self.count += 1

    def result(self):
        return {"psnr": self.total / max(self.count, 1)}


class NextToken(Metric):
    """Mean cross-entropy per token (nats) and top-1 accuracy (%) of predicting the next token; output [1, length,
    vocabulary]."""

    primary, higher_is_better = "nll", False

    def __init__(self):
        super().__init__()
        self.nll, self.hits, self.tokens = 0.0, 0, 0

    def update(self, outputs, label):
        logits = np.asarray(outputs[0][0], np.float64)[0, :-1]
        target = label[1:].astype(int)
        top = logits.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
        self.nll += float((log_sum - logits[np.arange(len(target)), target]).sum())
        self.hits += int((logits.argmax(axis=1) == target).sum())
        self.tokens += len(target)
        self.count += 1

    def result(self):
        return {"nll": self.nll / max(self.tokens, 1), "top1": 100 * self.hits / max(self.tokens, 1)}


class MeanAveragePrecision(Metric):
    """COCO-style mAP (IoU .50:.95) and mAP50, %, averaged over the classes present in the images seen."""

    primary = "mAP"

    def __init__(self, size: int = 416):
        super().__init__()
        self.size, self.found, self.truth = size, [], []

    def update(self, outputs, label: Boxes):
        first = outputs[0]
        if len(first) == 1 and isinstance(first[0], detection.Detections):  # the network gives boxes itself
            self.found.append(first[0])
        else:
            self.found.append(detection.detect(np.asarray(first[0])[0], size=self.size))
        self.truth.append(label)
        self.count += 1

    def _class_precision(self, cls: int, threshold: float) -> float:
        scores, hits = [], []
        for found, truth in zip(self.found, self.truth):
            mine, wanted = found.classes == cls, truth.classes == cls
            hit, ignored = detection.match(found.boxes[mine], truth.boxes[wanted], truth.crowd[wanted], threshold)
            scores.append(found.scores[mine][~ignored])
            hits.append(hit[~ignored])
        positives = sum(int(np.sum((t.classes == cls) & ~t.crowd)) for t in self.truth)
        return detection.average_precision(np.concatenate(scores), np.concatenate(hits), positives)

    def result(self):
        classes = sorted({int(c) for t in self.truth for c in t.classes[~t.crowd]})
        if not classes:
            return {"mAP50": 0.0, "mAP": 0.0}
        table = np.array([[self._class_precision(c, t) for t in detection.IOU_THRESHOLDS] for c in classes])
        return {"mAP50": float(100 * table[:, 0].mean()), "mAP": float(100 * table.mean())}


class NoMetric(Metric):
    """For nets without labelled data: counts runs only."""

    primary = "runs"

    def update(self, outputs, label):
        self.count += 1

    def result(self):
        return {"runs": float(self.count)}
