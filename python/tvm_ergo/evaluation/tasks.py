"""Which net is measured on which data, how, and calibrated from what: the table behind ``tvm-ergo eval``.

``figures`` are the manifest's float (or QDQ) figures on all samples, measured with ONNX Runtime; they are what a
quantized net is compared with. Calibration sources never use labels. Where no data outside the test set exists, the
source is its first part, and ``note`` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from tvm_ergo.evaluation import datasets, metrics, preprocess
from tvm_ergo.evaluation.preprocess import Affine

# Measured with ONNX Runtime and this package's metric (COCO's crowd rule, scores above 0.001, 100 boxes an image). The
# manifest says 50.52 / 32.70; treating crowds as ordinary boxes and cutting scores at 0.01 gives 50.49 / 32.64.
YOLOX_FIGURES = {"mAP50": 51.46, "mAP": 33.34}

Feeds = dict[str, np.ndarray]


@dataclass(frozen=True)
class Source:
    """``count`` samples of a data set, evenly spaced from ``start`` (None = all that follow), and how the net sees
    them."""

    dataset: Callable[[], datasets.Samples]
    prepare: Callable[[object], list[Feeds]]
    start: int = 0
    count: int | None = None
    spread: bool = False
    note: str = ""

    def indices(self, limit: int | None = None) -> list[int]:
        size = len(self.dataset())
        count = min(x for x in (self.count, limit, size - self.start) if x is not None)
        if self.spread:
            return [int(i) for i in np.linspace(self.start, size - 1, count).round()]
        return list(range(self.start, self.start + count))

    def samples(self, limit: int | None = None) -> Iterator[tuple[list[Feeds], object]]:
        """Yields ``(feeds, label)``; at most ``limit`` samples."""
        data = self.dataset()
        for index in self.indices(limit):
            raw, label = data[index]
            yield self.prepare(raw), label

    def inputs(self, limit: int | None = None) -> Iterator[Feeds]:
        """Yields the inputs alone, one feed (batch 1) after the other: what ``calibrate`` takes."""
        for feeds, _ in self.samples(limit):
            yield from feeds


@dataclass(frozen=True)
class Test:
    """One measurement: samples, metric, and the float figures of the manifest on all of them."""

    __test__ = False  # not a pytest class

    name: str
    source: Source
    metric: Callable[[], metrics.Metric]
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A net of the manifest: ``path`` below models/, its tests, its calibration source (None for QDQ nets, which bring
    their own)."""

    path: str
    tests: tuple[Test, ...]
    calibration: Source | None = None

    @property
    def stem(self) -> str:
        return self.path.rsplit("/", 1)[-1].removesuffix(".xz").rsplit(".", 1)[0]

    @property
    def quantized(self) -> bool:
        return self.calibration is None


def _figures(*values: float) -> dict[str, float]:
    return dict(zip(("top1", "top5"), values))


def _imagenet(path, prepare, nips, sample, *, offset=0, float_net=True) -> Task:
    def metric():
        return metrics.TopK(class_offset=offset)

    tests = (
        Test("imagenet_nips17", Source(datasets.imagenet_nips17, prepare), metric, _figures(*nips)),
        Test(
            "imagenet_sample",
            Source(datasets.imagenet_sample, prepare, note="holds the calibration images"),
            metric,
            _figures(*sample),
        ),
    )
    source = Source(
        datasets.imagenet_sample, prepare, count=64, spread=True, note="64 of the 1000 images of imagenet_sample"
    )
    return Task(path, tests, source if float_net else None)


def _cifar(path, prepare, figures, float_net=True) -> Task:
    source = Source(datasets.cifar10_train, prepare, count=128, note="first 128 of 1000 CIFAR-10 training images")
    return Task(
        path,
        (Test("cifar10_test", Source(datasets.cifar10_test, prepare), metrics.TopK, figures),),
        source if float_net else None,
    )


def _mnist(path, prepare, figures) -> Task:
    source = Source(datasets.mnist_train, prepare, count=128, note="first 128 of 60000 MNIST training images")
    return Task(path, (Test("mnist_test", Source(datasets.mnist_test, prepare), metrics.TopK, figures),), source)


def _tinyml_pair() -> list[Task]:
    kws_first = Source(
        datasets.kws, preprocess.kws_mfcc, count=100, note="first 100 of the 1000 test clips: there is no other data"
    )
    vww_input = Affine("input", scale=(1 / 255,) * 3, size=(96, 96))
    # ImageNet photographs are no substitute: they reach 60 % of the logits' range on COCO photographs (2.9 against
    # 4.4).
    vww_first = Source(
        datasets.vww, vww_input, count=32, note="first 32 of the 128 test images: there is no other data of the kind"
    )
    # No data: normal values filling the input range the published int8 net was quantized with, -84.8 to 14.9.
    logmel = Source(
        lambda: datasets.gaussian((640,), -35.0, 15.0),
        preprocess.vector,
        note="synthetic: no data in the shared folder",
    )
    runs = (Test("synthetic", logmel, metrics.NoMetric),)

    def kws_test(top1):
        return (Test("kws", Source(datasets.kws, preprocess.kws_mfcc), metrics.TopK, _figures(top1)),)

    vww_test = (Test("vww", Source(datasets.vww, vww_input), metrics.TopK, _figures(85.16)),)
    return [
        Task("tinyml/kws_dscnn_fp32.onnx", kws_test(90.1), kws_first),
        Task("tinyml/kws_dscnn_qdq_int8.onnx", kws_test(90.2)),
        Task("tinyml/vww96_fp32.onnx", vww_test, vww_first),
        Task("tinyml/vww96_qdq_int8.onnx", vww_test),
        Task("tinyml/ad01_autoencoder_fp32.onnx", runs, logmel),
        Task("tinyml/ad01_autoencoder_qdq_int8.onnx", runs),
    ]


def _others() -> list[Task]:
    photos = Source(
        datasets.imagenet_sample,
        preprocess.letterbox_photo,
        count=64,
        spread=True,
        note="64 images of imagenet_sample, letterboxed: COCO images are kept for the test",
    )
    luma = Source(
        datasets.imagenet_sample,
        preprocess.luma_of_photo,
        count=64,
        spread=True,
        note="luma of 64 images of imagenet_sample: the 30 test images are kept for the test",
    )
    sentences = Source(
        lambda: datasets.text("calibration"), preprocess.minilm, count=128, note="128 SST-2 training sentences"
    )
    stories = Source(
        datasets.tinystories, preprocess.stories, count=4, note="first 4 of the 48 test windows: there is no other data"
    )

    def text(kind, name, metric, value, figure="top1"):
        return Test(name, Source(lambda: datasets.text(kind), preprocess.minilm), metric, {figure: value})

    return [
        Task(
            "detection/yolox_nano.onnx",
            (
                Test(
                    "coco128",
                    Source(datasets.coco128, Affine("images", bgr=True)),
                    metrics.MeanAveragePrecision,
                    YOLOX_FIGURES,
                ),
            ),
            photos,
        ),
        Task(
            "superres/espcn_x3_superres.onnx",
            (Test("superres", Source(datasets.superres, preprocess.luma), metrics.Psnr, {"psnr": 27.272}),),
            luma,
        ),
        Task(
            "nlp/all_minilm_l6_v2_trim.onnx.xz",
            (
                text("stsb", "stsb", metrics.Spearman, 82.03, "spearman"),
                text("sst2_test", "sst2_linear", lambda: metrics.TopK(head=datasets.text_head("sst2")), 81.33),
                text("trec_test", "trec_linear", lambda: metrics.TopK(head=datasets.text_head("trec")), 90.2),
            ),
            sentences,
        ),
        Task(
            "nlp/stories260k_s256.onnx",
            (
                Test(
                    "tinystories",
                    Source(datasets.tinystories, preprocess.stories),
                    metrics.NextToken,
                    {"nll": 1.3454, "top1": 63.5},
                ),
            ),
            stories,
        ),
    ]


def _all() -> list[Task]:
    torch, raw = preprocess.imagenet("input"), Affine("input")
    v1 = Affine("input", (128.0,) * 3, (1 / 128,) * 3, size=(128, 128))
    caffe = Affine("input", (104.0, 117.0, 123.0), bgr=True)
    return [
        _imagenet("imagenet/resnet50_pqf_large.onnx.xz", torch, (88.2, 97.3), (82.2, 95.7)),
        _imagenet("imagenet/resnet18_ktb_small.onnx.xz", torch, (78.2, 93.3), (75.2, 93.2)),
        _imagenet("imagenet/mobilenet_v2_1.0_224_fp32.onnx", torch, (88.8, 97.9), (83.6, 95.9)),
        _imagenet(
            "imagenet/mobilenet_v2_1.0_224_torchvision_qdq_int8.onnx",
            torch,
            (82.2, 97.4),
            (74.1, 95.5),
            float_net=False,
        ),
        _imagenet("imagenet/mobilenet_v1_0.25_128_fp32.onnx", v1, (42.8, 68.3), (43.3, 70.7), offset=1),
        _imagenet(
            "imagenet/mobilenet_v1_0.25_128_qdq_uint8.onnx", v1, (42.9, 68.9), (43.2, 69.9), offset=1, float_net=False
        ),
        _imagenet("imagenet/squeezenet1.0_deepcompression_fp32.onnx", caffe, (55.4, 81.9), (61.8, 83.8)),
        _cifar("cifar10/resnet20_cifar10.onnx", torch, _figures(91.5, 99.8)),
        _cifar("cifar10/resnet56_cifar10.onnx", torch, _figures(92.6, 99.8)),
        _cifar("cifar10/ic_resnet8_fp32.onnx", raw, _figures(88.1, 99.7)),
        _cifar("cifar10/ic_resnet8_qdq_int8.onnx", raw, _figures(87.7, 99.5), float_net=False),
        _cifar("cifar10/bnn_cnv_w1a1_cifar10.onnx.xz", preprocess.bnn_cifar, _figures(80.6, 97.8)),
        _cifar("cifar10/bnn_cnv_w1a2_cifar10.onnx.xz", preprocess.bnn_cifar, _figures(84.1, 97.8)),
        _mnist("mnist/bnn_lfc_w1a1_mnist.onnx.xz", preprocess.mnist_sign, _figures(98.34, 99.94)),
        _mnist("mnist/tfc_1w1a_mnist.onnx", preprocess.mnist_flat, _figures(92.96, 99.08)),
        _mnist("mnist/mnist_lstm20.onnx", preprocess.mnist_rows, _figures(98.53, 99.99)),
        *_tinyml_pair(),
        *_others(),
    ]


TASKS: dict[str, Task] = {task.stem: task for task in _all()}
