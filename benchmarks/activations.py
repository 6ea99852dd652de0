"""Bits per value of every activation codec on real activations at 8, 7, 6 and 5 bits, and what that coarseness does to
the network.

Footing of the anchors: every tensor's magnitudes are scaled so that its largest in the image becomes 2**bits - 1
(signed tensors: 2**(bits-1) - 1); ranges are calibrated to the extremes and weights are not equalized between layers
(both would change the distribution). Of SqueezeNet 1.0 exactly the 20 tensors that wait in memory: conv1, 8 squeeze, 8
concat and 3 pooling results. Of other nets every convolution, addition, pooling and concat result of at least 1,024
values except operands of a concat (they lie inside its result); of the binary nets their signs and pooled signs, not
what the signs are taken of. "int8" is the tensor as the chip has it. --bits takes numbers, int8, or lists such as
conv1=7,concat=6: tensors with such a word in their name have so many bits, the others stay as they are.

--top1 N: the network runs on the emulated chip and, whenever one of these tensors is complete, the tensor in the chip's
memory is replaced by the values that were coded: scaled to the levels, rounded, scaled back and rounded to int8. All
that follows computes from those. "change" is against the same compiled network left alone, "noise" the standard error
of that change over the images (root of the number of images whose answer became right or wrong).

Tables of the static code are learned from calibration images (of a net that came quantized: from test images behind
those measured), one set of frequencies per net and number of bits."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from benchmarks.common import parse, parser, show
from tvm_ergo.codegen.runtime.recording import watch
from tvm_ergo.evaluation import TASKS
from tvm_ergo.evaluation.nets import compile_net, inputs_of
from tvm_ergo.relay_passes.micro.quantize import QuantizeOptions
from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.registry import CODECS
from tvm_ergo.target.codecs.static import group_bytes, learn, table_bytes
from tvm_ergo.target.errors import ErgoError

WAITING = {"conv2d", "depthwise_conv2d", "add", "max_pool2d", "avg_pool2d", "concat"}
WAITING_SIGNS = {"table", "max_pool2d"}
SMALLEST = 1024
SQUEEZENET = "squeezenet1.0_deepcompression_fp32"
NETS = (
    SQUEEZENET,
    "mobilenet_v2_1.0_224_fp32",
    "mobilenet_v2_1.0_224_torchvision_qdq_int8",
    "mobilenet_v1_0.25_128_fp32",
    "mobilenet_v1_0.25_128_qdq_uint8",
    "resnet18_ktb_small",
    "resnet50_pqf_large",
    "resnet20_cifar10",
    "resnet56_cifar10",
    "ic_resnet8_fp32",
    "ic_resnet8_qdq_int8",
    "bnn_cnv_w1a1_cifar10",
    "bnn_cnv_w1a2_cifar10",
    "kws_dscnn_fp32",
    "kws_dscnn_qdq_int8",
    "vww96_fp32",
    "vww96_qdq_int8",
    "yolox_nano",
    "espcn_x3_superres",
)
"""The convolutional nets of the manifest that have data."""
LEARNED_FROM = 16  # images
LOSSLESS = {codec.name.lower(): cls for codec, cls in CODECS.items() if cls.lossless}
Tensor = tuple[np.ndarray, int]
"""int8[H, W, C] and its zero point."""
Named = tuple[str, np.ndarray, int]
Bits = int | str | None
"""Of every tensor; None: as it is; a list by words in the name."""


def waits(name: str, tensor, value: np.ndarray) -> bool:
    """Whether a watched tensor is one of those that are measured."""
    if (
        tensor.op not in (WAITING_SIGNS if name.startswith("bnn_") else WAITING)
        or value.ndim != 4
        or value.dtype != np.int8
        or value.size < SMALLEST
    ):
        return False
    return not (name == SQUEEZENET and ("expand" in tensor.name or tensor.name.startswith("conv10")))


def compile_plain(name: str):
    """The net as it is measured here."""
    return compile_net(name, quantize=QuantizeOptions(method="minmax", equalize=False))


def tensors_of(name: str, images: int) -> list[list[Tensor]]:
    """Per image the tensors that wait."""
    compiled = compile_plain(name)
    return [[tensor for _, *tensor in tensors_in(name, compiled, feeds)] for feeds in inputs_of(name, compiled, images)]


def tensors_in(name: str, compiled, feeds) -> list[Named]:
    """The tensors that wait in one run."""
    seen: list[Named] = []
    with watch(
        lambda tensor, value: (
            seen.append((tensor.name, value[0], tensor.out_zp)) if waits(name, tensor, value) else None
        )
    ):
        compiled.run(feeds)
    return seen


def bits_for(bits: Bits, name: str) -> int | None:
    """Bits of the tensor of that name."""
    if not isinstance(bits, str):
        return bits
    return next((int(number) for word, number in (part.split("=") for part in bits.split(",")) if word in name), None)


def scaling(value: np.ndarray, zero_point: int, bits: int) -> tuple[int, int, bool]:
    """(the largest magnitude, levels for it, whether there are values below the zero point)."""
    low, high = int(value.min()) - zero_point, int(value.max()) - zero_point
    return max(-low, high, 1), 2 ** (bits - (low < 0)) - 1, low < 0


def levels_of(zero_point: int, top: int, levels: int) -> np.ndarray:
    """int64[256]: the level of int8 ``v`` at ``v + 128``, where the magnitude ``top`` has the last of so many
    levels."""
    return np.floor((np.arange(-128, 128) - zero_point) * levels / top + 0.5).astype(np.int64)


def looked_up(table: np.ndarray, value: np.ndarray) -> np.ndarray:
    """int8 ``table[value + 128]``, clipped: entries of values that do not occur may lie anywhere."""
    return np.roll(np.clip(table, -128, 127).astype(np.int8), -128)[value.view(np.uint8)]


def requantized(value: np.ndarray, zero_point: int, bits: int | None) -> Tensor:
    """The levels that are coded, int8; None: the tensor as it is."""
    if bits is None:
        return value, zero_point
    top, levels, signed = scaling(value, zero_point, bits)
    new_zero = 0 if signed else -128
    return looked_up(levels_of(zero_point, top, levels) + new_zero, value), new_zero


def coarsened(value: np.ndarray, zero_point: int, bits: int) -> np.ndarray:
    """What a reader gets after `requantized`: the levels scaled back, int8."""
    top, levels, _ = scaling(value, zero_point, bits)
    return looked_up(
        np.floor(levels_of(zero_point, top, levels) * top / levels + 0.5).astype(np.int64) + zero_point, value
    )


def order0(x: np.ndarray) -> float:
    """Bits of an ideal code of the values, all together."""
    counts = np.bincount(x.view(np.uint8).ravel())
    return float((counts[counts > 0] * np.log2(x.size / counts[counts > 0])).sum())


def order0_by_channel(x: np.ndarray) -> float:
    """Bits of an ideal code for each channel."""
    pixels, channels = x.shape[0] * x.shape[1], x.shape[2]
    counts = np.bincount(
        (x.view(np.uint8) + (np.arange(channels, dtype=np.int32) << 8)).ravel(), minlength=channels << 8
    )
    return float((counts[counts > 0] * np.log2(pixels / counts[counts > 0])).sum())


class Rates:
    """Bits per value of the codecs at one number of bits, image by image."""

    def __init__(self, bits: Bits, codecs: list[str], examples: list[list[Named]]):
        self.bits, self.codecs, self.seen, self.tensors, self.values = bits, codecs, defaultdict(list), 0, 0
        self.tables = None
        if "static" in codecs:
            coded = [[self._coded(*image[t]) for image in examples] for t in range(len(examples[0]))]
            # whether a tensor is signed may differ between images; zero_point only folds, so the first image's stands
            # for all
            self.tables = learn([[x for x, _ in images] for images in coded], [images[0][1] for images in coded])

    def _coded(self, name: str, value: np.ndarray, zero_point: int) -> Tensor:
        return requantized(value, zero_point, bits_for(self.bits, name))

    def add(self, tensors: list[Named]) -> None:
        """Codes the tensors of one image."""
        coded = [self._coded(*tensor) for tensor in tensors]
        self.tensors, self.values = len(coded), sum(x.size for x, _ in coded)
        sizes = {
            "order-0 per tensor": sum(order0(x) for x, _ in coded),
            "order-0 per channel": sum(order0_by_channel(x) for x, _ in coded),
        }
        for name in self.codecs:
            sizes[name] = 8 * sum(
                len(self._codec(name, i, zero_point).encode(x)) for i, (x, zero_point) in enumerate(coded)
            )
        for name, size in sizes.items():
            self.seen[name].append(size / self.values)

    def _codec(self, name: str, tensor: int, zero_point: int):
        cls = LOSSLESS[name]
        return (
            cls(zero_point=zero_point, tables=self.tables[tensor])
            if cls.codec is Codec.STATIC
            else cls(zero_point=zero_point)
        )

    def rows(self, common: dict, answers: dict) -> list[dict]:
        common = common | {"tensors": self.tensors, "values": self.values}
        beside = {"static": table_bytes(self.tables[0]) + sum(map(group_bytes, self.tables))} if self.tables else {}
        return [
            common
            | {
                "codec": name,
                "images": len(seen),
                "bits/value": float(np.mean(seen)),
                "worst image": float(np.max(seen)),
                "vs fp32": float(32 / np.mean(seen)),
                "tables B": beside.get(name, 0),
            }
            | answers
            for name, seen in self.seen.items()
        ]


class Answers:
    """The network's figure with the waiting tensors at so many bits (None: left alone), and which samples it got
    right."""

    def __init__(self, test, bits: Bits):
        self.test, self.bits, self.metric, self.right = test, bits, test.metric(), []

    def add(self, name: str, compiled, feeds: list[dict], label) -> None:
        def coarse(tensor, value):
            bits = bits_for(self.bits, tensor.name)
            return coarsened(value, tensor.out_zp, bits) if bits and waits(name, tensor, value) else None

        if self.bits is None:
            outputs = [outputs_of(compiled, feed) for feed in feeds]
        else:
            with watch(coarse):
                outputs = [outputs_of(compiled, feed) for feed in feeds]
        self.metric.update(outputs, label)
        if self.metric.primary == "top1":
            alone = self.test.metric()
            alone.update(outputs, label)
            self.right.append(alone.result()["top1"] > 0)

    @property
    def figure(self) -> float | None:
        return self.metric.result()[self.metric.primary] if self.metric.count else None

    def row(self, plain: Answers) -> dict:
        """Columns of the table; plain : the same without coarsening."""
        if not self.metric.count:
            return dict.fromkeys(("figure", "samples", "reached", "change", "noise"))
        different = np.count_nonzero(np.array(self.right) != np.array(plain.right))
        noise = 100 * float(np.sqrt(max(different, 1))) / len(self.right) if self.right else None
        return {
            "figure": self.metric.primary,
            "samples": self.metric.count,
            "reached": round(self.figure, 3),
            "change": round(self.figure - plain.figure, 3),
            "noise": noise,
        }


def outputs_of(compiled, feeds) -> list[np.ndarray]:
    return [np.asarray(o) for o in compiled.run(feeds).outputs.values()]


def examples_of(name: str, compiled, measured: int) -> list[list[Named]]:
    """What tables are learned from: calibration images, or where there are none test images behind the first
    ``measured``."""
    task = TASKS[name]
    inputs = (
        list(task.calibration.inputs(LEARNED_FROM))
        if task.calibration
        else list(task.tests[0].source.inputs(measured + LEARNED_FROM))[measured:]
    )
    return [tensors_in(name, compiled, feeds) for feeds in inputs[:LEARNED_FROM]]


def measure(name: str, images: int, bits: list[Bits], codecs: list[str], top1: int) -> list[dict]:
    compiled, test = compile_plain(name), TASKS[name].tests[0]
    examples = examples_of(name, compiled, images) if "static" in codecs else []
    if "static" in codecs and not examples:
        codecs = [c for c in codecs if c != "static"]  # every sample is measured: nothing to learn from
    rates = [Rates(b, codecs, examples) for b in bits]
    answers = {b: Answers(test, b) for b in (None, *bits)}
    for index, (feeds, label) in enumerate(test.source.samples(max(images, top1))):
        if index < images:
            tensors = tensors_in(name, compiled, feeds[0])
            for rate in rates:
                rate.add(tensors)
        if index < top1:
            for answer in answers.values():
                answer.add(name, compiled, feeds, label)
    return [
        row
        for rate in rates
        for row in rate.rows({"net": name, "bits": rate.bits or "int8"}, answers[rate.bits].row(answers[None]))
    ]


def main(argv=None) -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--images", type=int, default=4, help="images per net that are coded")
    arguments.add_argument(
        "--bits", nargs="*", default=["7"], help="bits of a magnitude, 1 to 8, or int8, or WORD=BITS,..."
    )
    arguments.add_argument(
        "--codecs", nargs="*", default=list(LOSSLESS), choices=list(LOSSLESS), help="only these codecs"
    )
    arguments.add_argument(
        "--top1", type=int, default=0, metavar="N", help="also run the networks with the coarser tensors on N samples"
    )
    arguments.add_argument("--all", action="store_true", help="every convolutional net of the manifest")
    arguments = parse(arguments, argv)
    rows, bits = [], [None if b == "int8" else b if "=" in b else int(b) for b in arguments.bits]
    for name in arguments.nets or (NETS if arguments.all else NETS[:1]):
        try:
            rows += measure(name, arguments.images, bits, arguments.codecs, arguments.top1)
        except ErgoError as error:
            print(f"{name}: {error}")
        show("activation codecs", rows, arguments.json)  # after every net: a long run can be stopped


if __name__ == "__main__":
    main()
