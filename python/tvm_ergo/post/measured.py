"""What metrics take of a network with post-processing behind it."""

from __future__ import annotations

import numpy as np

from tvm_ergo.evaluation.detection import Detections
from tvm_ergo.post.options import POSTS, Detection
from tvm_ergo.target.errors import InputError

UNIT, PIXEL = 2.0**-30, 2.0**-6


def post_of(model) -> dict | None:
    """``{"name", "options", "outputs", ...}`` of a compiled model's post-processing, None without."""
    return next((p.meta["post"] for p in model.programs.values() if p.meta.get("post")), None)


def detections(outputs: dict[str, np.ndarray]) -> Detections:
    """Boxes in pixels, scores 0..1 and classes of what a run gave."""
    count = int(outputs["count"][0])
    boxes, scores, classes = (outputs[name][:count] for name in ("boxes", "scores", "classes"))
    return Detections(boxes * PIXEL, scores * UNIT, classes)


def measurable(model, outputs: dict[str, np.ndarray]) -> list:
    """The outputs as a metric takes them: detections, scores of all classes (those that are not given are the least),
    or as they are. Errors: InputError for post-processing that no metric here takes."""
    about = post_of(model)
    if about is None:
        return list(outputs.values())
    if issubclass(POSTS.get(about["name"], object), Detection):
        return [detections(outputs)]
    if "classes" in outputs:
        scores = np.full((1, int(about["classes"])), -np.inf)
        scores[0, outputs["classes"]] = np.asarray(outputs["scores"], np.float64)
        return [scores]
    if "probabilities" in outputs:
        return [outputs["probabilities"][None]]
    raise InputError(
        "there is no metric for what this network gives",
        where=f"post-processing {about['name']}",
        available=", ".join(outputs),
        remedy="eval the network without --post",
    )
