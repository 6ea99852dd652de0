"""Post-processing behind a network, on the chip's CPU: boxes, classes, keypoints and the like in place of tensors.

``tvm_ergo.compile(model, post=Yolox(score=0.3))``, ``tvm-ergo compile net.onnx --post yolox``; docs/post.md."""

from tvm_ergo.post.options import (
    POSTS,
    Anomaly,
    Argmax,
    Ctc,
    Keypoints,
    PostOptions,
    Sigmoid,
    Softmax,
    Ssd,
    TopK,
    Yolov5,
    Yolov8,
    Yolox,
    named,
    post_options,
)

__all__ = [
    "Anomaly",
    "Argmax",
    "Ctc",
    "Keypoints",
    "POSTS",
    "PostOptions",
    "Sigmoid",
    "Softmax",
    "Ssd",
    "TopK",
    "Yolov5",
    "Yolov8",
    "Yolox",
    "named",
    "post_options",
]
