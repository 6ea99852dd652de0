"""Bits per value of every activation codec on real activations, requantized to fewer bits.

Footing of the anchors: every tensor's magnitudes are scaled so that its largest in the image becomes 2**bits - 1; ranges are calibrated
to the extremes and weights are not equalized between layers (both would change the distribution). Of SqueezeNet exactly
the 20 tensors that wait in memory: conv1, 8 squeeze, 8 concat and 3 pooling results. Of other nets every convolution, addition, pooling and concat result
of at least 1,024 values except operands of a concat (they lie inside its result).
"""

from __future__ import annotations

import numpy as np

from benchmarks.common import parse, parser, show
from tvm_ergo.codegen.runtime.recording import watch
from tvm_ergo.evaluation.nets import compile_net, inputs_of
from tvm_ergo.relay_passes.micro.quantize import QuantizeOptions
from tvm_ergo.target.codecs.registry import CODECS

WAITING = {"conv2d", "depthwise_conv2d", "add", "max_pool2d", "avg_pool2d", "concat"}
SMALLEST = 1024
SQUEEZENET = "squeezenet1.0_deepcompression_fp32"


def waits(name: str, tensor, value: np.ndarray) -> bool:
    """Whether a watched tensor is one of those that are measured."""
    if tensor.op not in WAITING or value.ndim != 4 or value.dtype != np.int8 or value.size < SMALLEST:
        return False
    return not (name == SQUEEZENET and ("expand" in tensor.name or tensor.name.startswith("conv10")))


def tensors_of(name: str, images: int) -> list[list[tuple[np.ndarray, int]]]:
    """Per image the tensors (int8[H, W, C], zero point) that wait."""
    compiled = compile_net(name, quantize=QuantizeOptions(method="minmax", equalize=False))
    result = []
    for feeds in inputs_of(name, compiled, images):
        seen: list[tuple[np.ndarray, int]] = []
        with watch(lambda tensor, value: seen.append((value[0], tensor.out_zp)) if waits(name, tensor, value) else None):
            compiled.run(feeds)
        result.append(seen)
    return result


def requantized(value: np.ndarray, zero_point: int, bits: int) -> tuple[np.ndarray, int]:
    """(int8 tensor of magnitudes up to ``2**bits - 1`` (signed tensors: ``2**(bits-1) - 1``), its zero point)."""
    magnitude = value.astype(np.int32) - zero_point
    signed = magnitude.min() < 0
    top = max(int(np.abs(magnitude).max()), 1)
    levels = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    scaled = np.floor(magnitude * levels / top + 0.5).astype(np.int32)
    new_zero = 0 if signed else -128
    return (scaled + new_zero).astype(np.int8), new_zero


def order0(u: np.ndarray) -> float:
    """Entropy of the values in bits, all together."""
    counts = np.bincount(u.astype(np.int64).ravel() + 128)
    p = counts[counts > 0] / u.size
    return float(-(p * np.log2(p)).sum())


def measure(name: str, images: int, bits: int, only: list[str] | None) -> list[dict]:
    per_image = [[requantized(*tensor, bits) for tensor in tensors] for tensors in tensors_of(name, images)]
    values = sum(x.size for x, _ in per_image[0])
    common = {"net": name, "bits": bits, "tensors": len(per_image[0]), "values": values}
    entropy = [sum(order0(x) * x.size for x, _ in tensors) / values for tensors in per_image]
    channel = [sum(order0(x[..., c]) * x[..., c].size for x, _ in tensors for c in range(x.shape[2])) / values for tensors in per_image]
    rows = [common | figures("order-0 per tensor (ideal)", entropy), common | figures("order-0 per channel (ideal)", channel)]
    for codec, cls in CODECS.items():
        if not cls.lossless or only and codec.name.lower() not in only:
            continue
        coded = np.zeros(images)
        for alike in zip(*per_image):
            for zero_point in {z for _, z in alike}:  # the images whose tensor has this zero point, in lockstep
                chosen = [i for i, (_, z) in enumerate(alike) if z == zero_point]
                coded[chosen] += [len(data) for data in cls(zero_point=zero_point).encode_many([alike[i][0] for i in chosen])]
        rows.append(common | figures(codec.name.lower(), coded * 8 / values))
    return rows


def figures(codec: str, bits_per_value) -> dict:
    mean, worst = float(np.mean(bits_per_value)), float(np.max(bits_per_value))
    return {"codec": codec, "bits/value mean": mean, "worst image": worst, "vs fp32": 32 / mean}


def main(argv=None) -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--images", type=int, default=4, help="images per net")
    arguments.add_argument("--bits", type=int, nargs="*", default=[7], help="bits of a magnitude, 1 to 8")
    arguments.add_argument("--codecs", nargs="*", help="only these codecs")
    arguments = parse(arguments, argv)
    rows = [row for name in arguments.nets or [SQUEEZENET] for bits in arguments.bits for row in measure(name, arguments.images, bits, arguments.codecs)]
    show("activation codecs", rows, arguments.json)


if __name__ == "__main__":
    main()
