"""Lossless coding of the codes of real compressed networks: bytes of the whole, for each codec and for the best one of
every layer.

The networks: SqueezeNet 1.0 as Deep Compression published it (26 layers, 8-bit codes, a codebook of 256 values each)
and the last layer of AlexNet (4-bit codes, a matrix of 4,097 columns). Counted is everything that is needed to get the
float32 weights back: headers, shapes, the codebooks as float32, tables of the codes, lengths of lanes, and the biases
as plain float32. Beside it the anchors: the published file, Huffman, and NNC's context coder, each for the same
network. Every stream is decoded and compared.

--compiled: instead, what the chip does with it: nets compiled with plain weights, with weights="auto" (coded where it
costs no time) and "coded" (fewest bytes), on the emulated chip: constants and what of them is weights, cycles and
energy; the outputs on --inputs inputs must be the same to the bit."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass

import numpy as np

from benchmarks.common import parse, parser, show
from tvm_ergo.codegen.choices import Weights
from tvm_ergo.evaluation.datasets import shared_root
from tvm_ergo.evaluation.nets import compile_net, inputs_of
from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.weights import CodedWeights, WeightCodes, decode, encode
from tvm_ergo.target.codecs.weights_registry import WEIGHT_CODECS

ANCHORS = {
    "squeezenet_deepcompression": {"fp32": 4_993_696, "file": 675_763, "Huffman": 556_569, "NNC": 549_881},
    "alexnet_fc8": {"fp32": 16_388_000, "file": 1_051_991, "Huffman": 885_572, "NNC": 866_764},
}
"""Bytes, measured on these very codes."""
CHOICES = {
    **{codec.name.lower(): (codec,) for codec in WEIGHT_CODECS},
    "best Huffman of each layer": (Codec.HUFFMAN, Codec.HUFFMAN_RUNS),
    "best of each layer": tuple(WEIGHT_CODECS),
}


COMPILED = (
    "bnn_lfc_w1a1_mnist",
    "tfc_1w1a_mnist",
    "bnn_cnv_w1a1_cifar10",
    "bnn_cnv_w1a2_cifar10",
    "squeezenet1.0_deepcompression_fp32",
    "resnet18_ktb_small",
    "mobilenet_v2_1.0_224_fp32",
    "ic_resnet8_qdq_int8",
    "ad01_autoencoder_qdq_int8",
)
CALIBRATION_SAMPLES = 16


@dataclass(frozen=True)
class Layer:
    """codes : uint8, rows first. bias : float32 or None."""

    name: str
    codes: np.ndarray
    codebook: np.ndarray
    bias: np.ndarray | None

    def weights(self) -> WeightCodes:
        return WeightCodes.with_codebook(self.codes, self.codebook, math.prod(self.codes.shape[2:]))


def layers_of(net: str) -> list[Layer]:
    """The layers of ``data/NET_codes.npz``."""
    data = np.load(shared_root() / "data" / f"{net}_codes.npz")
    names = [key.removesuffix("codes") for key in data.files if key.endswith("codes")]
    return [
        Layer(name.rstrip(".") or net, data[f"{name}codes"], data[f"{name}codebook"], data.get(f"{name}bias"))
        for name in names
    ]


def coded_layer(layer: Layer, weights: WeightCodes, codec: Codec, lanes: int) -> CodedWeights:
    """The stream, decoded again and compared with the float32 weights."""
    coded = encode(weights, codec, lanes)
    back, _ = decode(coded.data)
    if not np.array_equal(back.values(), layer.codebook[layer.codes].reshape(len(layer.codes), -1)):
        raise AssertionError(f"{layer.name} does not come back from {codec.name}")
    return coded


def measure(net: str, lanes: int) -> tuple[list[dict], list[dict]]:
    """A row per choice of codecs, and a row per layer."""
    layers, anchors = layers_of(net), ANCHORS[net]
    biases = sum(layer.bias.nbytes for layer in layers if layer.bias is not None)
    coded, seconds = [], dict.fromkeys(WEIGHT_CODECS, 0.0)
    for layer in layers:
        weights, found = layer.weights(), {}
        for codec in WEIGHT_CODECS:
            begin = time.process_time()
            found[codec] = coded_layer(layer, weights, codec, lanes)
            seconds[codec] += time.process_time() - begin
        coded.append(found)
    rows = []
    for choice, codecs in CHOICES.items():
        best = [min((found[codec] for codec in codecs), key=lambda c: len(c.data)) for found in coded]
        total = sum(len(c.data) for c in best) + biases
        rows.append(
            {
                "net": net,
                "codec": choice,
                "bytes": total,
                "of fp32": f"{anchors['fp32'] / total:.2f}x",
                "file": anchors["file"],
                "Huffman": anchors["Huffman"],
                "NNC": anchors["NNC"],
                "bits/weight": 8 * total / sum(layer.codes.size for layer in layers),
                "weights/step": sum(layer.codes.size for layer in layers) / sum(c.total_steps for c in best),
                "CPU s": sum(seconds[codec] for codec in codecs),
            }
        )
    detail = [
        {
            "net": net,
            "layer": layer.name,
            "weights": layer.codes.size,
            "density": float((layer.codes > 0).mean()),
            **{codec.name.lower(): len(found[codec].data) for codec in WEIGHT_CODECS},
        }
        for layer, found in zip(layers, coded)
    ]
    return rows, detail


def measure_compiled(name: str, inputs: int) -> list[dict]:
    """A row per form of the weights of a net."""
    rows, expected = [], None
    for how in (Weights.DENSE, Weights.AUTO, Weights.CODED):
        compiled = compile_net(name, calibration_samples=CALIBRATION_SAMPLES, weights=how.value)
        results = [compiled.run(feeds) for feeds in inputs_of(name, compiled, inputs)]
        outputs = [value for result in results for value in result.outputs.values()]
        expected = outputs if expected is None else expected
        if not all(map(np.array_equal, outputs, expected)):
            raise AssertionError(f"{name} computes something else with weights={how.value}")
        weights = [row for program in compiled.programs.values() for row in program.meta["weights"]]
        count, traces = sum(math.prod(row["shape"]) for row in weights), results[0].traces.values()
        codecs = Counter(row["codec"] for row in weights if row["codec"])
        rows.append(
            {
                "net": name,
                "weights": how.value,
                "density": sum(row["density"] * math.prod(row["shape"]) for row in weights) / count,
                "constants": sum(program.meta["constant_bytes"] for program in compiled.programs.values()),
                "of them weights": sum(row["coded_bytes"] for row in weights),
                "bits/weight": 8 * sum(row["coded_bytes"] for row in weights) / count,
                "coded": f"{codecs.total()} of {len(weights)}",
                "cycles": sum(trace.cycles for trace in traces),
                "uJ": sum(trace.energy_pj for trace in traces) / 1e6,
                "codecs": dict(codecs),
            }
        )
    return rows


def main(argv=None) -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--lanes", type=int, default=1, help="decoder lanes that each layer is divided among")
    arguments.add_argument("--layers", action="store_true", help="one row per layer instead")
    arguments.add_argument(
        "--compiled", action="store_true", help="instead: nets compiled with their weights in each form"
    )
    arguments.add_argument(
        "--inputs", type=int, default=2, help="with --compiled: inputs of each net whose outputs are compared"
    )
    options = parse(arguments, argv)
    if options.compiled:
        found = [row for name in options.nets or COMPILED for row in measure_compiled(name, options.inputs)]
        show(
            "Weights in the compiled network: bytes, cycles and energy of one inference",
            found,
            options.json,
            hidden=("codecs",),
        )
        return
    rows, detail = [], []
    for net in options.nets or ANCHORS:
        found = measure(net, options.lanes)
        rows += found[0]
        detail += found[1]
    show(
        f"Weights, coded losslessly, whole network, {options.lanes} lane(s): bytes",
        detail if options.layers else rows,
        options.json,
    )


if __name__ == "__main__":
    main()
