"""Top-1 against size without retraining: allocation, layer-wise reconstruction, int8, on whole test sets or their first
images.

Sizes are those of real weight streams (the smallest codec of each layer, headers and tables included) and 9 bytes a
channel for bias and requantization. "fp32" is 4 bytes for every weight and bias of the folded net, "int8" one for every
weight and the same 9 a channel. Top-1 is measured twice: with float activations, and quantized (``quantize``, as
``tvm_ergo.compile`` does). Calibration images are never test images, labels are never used. --methods: what the single
steps bring on the first net at two sizes. --layers RATIO: what each layer became."""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from benchmarks.common import parse, parser, show
from tvm_ergo import frontend
from tvm_ergo.evaluation import TASKS, evaluate
from tvm_ergo.evaluation.lookup import input_shapes_of
from tvm_ergo.evaluation.nets import model_path
from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.relay_passes.macro import normalize
from tvm_ergo.relay_passes.micro.allocate import AllocateOptions, choose, measure
from tvm_ergo.relay_passes.micro.cluster import Cluster
from tvm_ergo.relay_passes.micro.prune import Prune
from tvm_ergo.relay_passes.micro.quantize import quantize
from tvm_ergo.relay_passes.micro.reconstruct import Reconstruct, Target
from tvm_ergo.relay_passes.micro.weight_layers import weight_layers, with_weights
from tvm_ergo.relay_passes.micro.weight_sizes import CHANNEL_BYTES, network_sizes

NETS = ("resnet20_cifar10", "resnet56_cifar10", "mobilenet_v1_0.25_128_fp32", "mobilenet_v2_1.0_224_fp32")
RATIOS = (6, 8, 10, 12, 14, 16, 18, 20)
QUANTIZED_WITH = 64  # calibration samples of the activations' ranges


class Net:
    """A float net of the manifest in normal form, its test, and its calibration inputs."""

    def __init__(self, name: str, samples: int, images: int | None):
        self.name, self.task, self.images = name, TASKS[name], images
        imported = frontend.load(model_path(name), input_shapes=input_shapes_of(self.task))
        self.mod = normalize(imported.mod)
        self.names = dict(zip((i.name for i in imported.inputs), imported.parameters))
        self.test = next((t for t in self.task.tests if t.figures and t.name != "imagenet_sample"), self.task.tests[0])
        source = dataclasses.replace(self.task.calibration, count=max(samples, self.task.calibration.count))
        self.calibration = [self.renamed(feeds) for feeds in source.inputs(samples)]
        layers = weight_layers(self.mod).values()
        self.weights, self.channels = sum(w.size for w in layers), sum(len(w.weight) for w in layers)

    def renamed(self, feeds: dict) -> dict:
        return {self.names.get(key, key): array for key, array in feeds.items()}

    @property
    def fp32_bytes(self) -> int:
        return 4 * (self.weights + self.channels)

    def top1(self, mod) -> float:
        run = Interpreter(mod)
        outcome = evaluate(self.test, lambda feeds: run.run(self.renamed(feeds)), limit=self.images)
        self.seen = outcome.samples
        return outcome.figures[outcome.primary]

    def quantized(self, mod):
        return quantize(mod, self.calibration[:QUANTIZED_WITH])

    def row(self, label, mod, seconds: float, int8: bool = True) -> dict:
        sizes = network_sizes(mod)
        total = sum(s.bytes for s in sizes)
        return {
            "net": self.name,
            "what": label,
            "bytes": total,
            "x fp32": self.fp32_bytes / total,
            "x int8": (self.weights + CHANNEL_BYTES * self.channels) / total,
            "bits/weight": 8 * sum(s.stream_bytes for s in sizes) / self.weights,
            "density %": 100 * sum(s.density * s.weights for s in sizes) / self.weights,
            "float act. top-1": self.top1(mod),
            "int8 top-1": self.top1(self.quantized(mod)) if int8 else None,
            "images": self.seen,
            "seconds": seconds,
        }


def curve(net: Net, ratios, options: AllocateOptions) -> list[dict]:
    start = time.perf_counter()
    ways = measure(net.mod, net.calibration, options)
    measured = time.perf_counter() - start
    rows = [net.row("as it is", net.mod, measured)]
    for ratio in ratios:
        start = time.perf_counter()
        rows.append(
            net.row(f"1/{ratio:g}", made(net, ways, net.fp32_bytes / ratio, options), time.perf_counter() - start)
        )
        print(rows[-1], flush=True)
    return rows


def made(net: Net, ways, size_bytes: float, options: AllocateOptions):
    return options.pass_for(net.calibration, {name: way.target for name, way in choose(ways, size_bytes).items()})(
        net.mod
    )


def layer_rows(net: Net, ratio: float, options: AllocateOptions) -> list[dict]:
    ways = measure(net.mod, net.calibration, options)
    picked = choose(ways, net.fp32_bytes / ratio)
    mod = options.pass_for(net.calibration, {name: way.target for name, way in picked.items()})(net.mod)
    whole = sum(way.error for way in picked.values())
    return [
        {
            "layer": s.name,
            "weights": s.weights,
            "density %": 100 * s.density,
            "values": s.distinct,
            "bits by entropy": s.entropy_bits,
            "bits stored": 8 * s.stream_bytes / s.weights,
            "codec": s.codec,
            "stream": s.stream_bytes,
            "bytes": s.bytes,
            "share of error %": 100 * picked[s.name].error / whole if s.name in picked else None,
        }
        for s in network_sizes(mod)
    ]


def step_of(mod, multiple: float) -> dict[str, Target]:
    return {
        n: Target(step=multiple * float(np.sqrt(np.mean(np.square(w.weight))))) for n, w in weight_layers(mod).items()
    }


def rounded(mod, multiple: float):
    """Nearest multiples of a step, nothing made up for."""
    layers, targets = weight_layers(mod), step_of(mod, multiple)
    return with_weights(
        mod, layers, {n: np.rint(w.weight / targets[n].step) * np.float32(targets[n].step) for n, w in layers.items()}
    )


def method_rows(net: Net, options: AllocateOptions) -> list[dict]:
    """Ways to about an eighth and a fourteenth."""
    mod, data = net.mod, net.calibration
    made_by = {
        "prune 30 %, cluster 16 values": lambda: Cluster(16)(Prune(0.3)(mod)),
        "prune 30 %, reconstruct, 16 values": lambda: Reconstruct(data, Target(values=15, density=0.3), samples=None)(
            mod
        ),
        "prune 2:4, reconstruct, 16 values": lambda: Reconstruct(
            data,
            {n: Target(values=15, mask=w.weight != 0) for n, w in weight_layers(Prune(pattern=(2, 4))(mod)).items()},
            samples=None,
        )(mod),
        "cluster 8 values": lambda: Cluster(8)(mod),
        "reconstruct, 8 values": lambda: Reconstruct(data, Target(values=8), samples=None)(mod),
        "4 bits a channel": lambda: Reconstruct(data, Target(bits=4), samples=None)(mod),
        "3 bits a channel": lambda: Reconstruct(data, Target(bits=3), samples=None)(mod),
        "ternary": lambda: Reconstruct(data, Target(bits=2), samples=None)(mod),
    }
    for multiple in (0.3, 1.0):
        made_by[f"step {multiple} rms, nearest"] = lambda m=multiple: rounded(mod, m)
        made_by[f"step {multiple} rms, feedback"] = lambda m=multiple: Reconstruct(
            data, step_of(mod, m), samples=None, asymmetric=False
        )(mod)
        made_by[f"step {multiple} rms, feedback on what is read"] = lambda m=multiple: Reconstruct(
            data, step_of(mod, m), samples=None
        )(mod)
    rows = []
    for label, make in made_by.items():
        start = time.perf_counter()
        rows.append(net.row(label, make(), time.perf_counter() - start))
        print(rows[-1], flush=True)
    return rows


def main(argv=None) -> None:
    options = parser(__doc__.split("\n\n")[0])
    options.add_argument("--samples", type=int, default=256, help="calibration inputs")
    options.add_argument("--images", type=int, help="test images (default: all)")
    options.add_argument("--ratios", type=float, nargs="*", default=RATIOS, help="sizes asked for, as divisors of fp32")
    options.add_argument("--methods", action="store_true", help="single steps, on one net")
    options.add_argument("--layers", type=float, metavar="RATIO", help="what each layer became at this ratio")
    arguments = parse(options, argv)
    allocate = AllocateOptions(samples=arguments.samples)
    rows = []
    for name in arguments.nets or NETS[:1]:
        net = Net(name, arguments.samples, arguments.images)
        if arguments.layers:
            show(f"{name} at 1/{arguments.layers:g}", layer_rows(net, arguments.layers, allocate), arguments.json)
            continue
        rows += method_rows(net, allocate) if arguments.methods else curve(net, arguments.ratios, allocate)
        show("one shot", rows, arguments.json, hidden=("net",) if len(arguments.nets or ()) < 2 else ())


if __name__ == "__main__":
    main()
