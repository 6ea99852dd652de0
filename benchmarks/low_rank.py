"""Low-rank channel projection: how many coordinates the tensors of real nets need, what projection saves, and what it
costs in top-1.

Four tables. default: nets compiled without and with projection at several bounds of the output error; memory and
multiplications of the whole net, and top-1 on the emulated chip (first images of the test that holds no calibration
image). --ranks: coordinates for 99 and 99.9 % of the energy of every set of tensors, plain (KLT) and weighted by what
the readers do with them. --codec: the fixed-rate codec against plain rounding at the same rate. --entropy: the
transform before an ideal entropy code. The last two take the tensors that wait (`benchmarks.activations`), learn from
the first eight test images and measure on the ninth, and leave out tensors of which eight images show fewer than four
pixels per channel."""

from __future__ import annotations

import time

import numpy as np

import tvm_ergo
from benchmarks.activations import tensors_of
from benchmarks.common import parse, parser, show
from tvm_ergo import frontend
from tvm_ergo.evaluation import TASKS, evaluate
from tvm_ergo.evaluation.lookup import input_shapes_of
from tvm_ergo.evaluation.nets import compile_net, model_path
from tvm_ergo.relay_passes.macro import normalize
from tvm_ergo.relay_passes.macro.choose_ranks import PIXELS_PER_CHANNEL, RankOptions, measure_sites
from tvm_ergo.target.codecs.klt_learn import learn
from tvm_ergo.target.codecs.reduced import ReducedCodec

NETS = (
    "squeezenet1.0_deepcompression_fp32",
    "resnet18_ktb_small",
    "resnet20_cifar10",
    "mobilenet_v2_1.0_224_fp32",
    "mobilenet_v1_0.25_128_fp32",
)
SHARES = (0.99, 0.999)
LEARNED_FROM = 8


def rank_rows(name: str) -> list[dict]:
    """Every set of tensors that can be projected: coordinates for each share of energy, what they would save."""
    task = TASKS[name]
    imported = frontend.load(model_path(name), input_shapes=input_shapes_of(task))
    mod, names = normalize(imported.mod), dict(zip((i.name for i in imported.inputs), imported.parameters))
    data = [{names[key]: array for key, array in sample.items()} for sample in task.calibration.inputs(64)]
    plain, weighted = (measure_sites(mod, data, RankOptions(weighted=w))[0] for w in (False, True))
    rows = []
    for klt, best in zip(plain, weighted):
        ranks = {share: best.spectrum.rank_for(share) for share in SHARES}
        rows.append(
            {
                "net": name,
                "tensors": ", ".join(v.name for v in best.site.tensors[:2])
                + (f" +{len(best.site.tensors) - 2}" if len(best.site.tensors) > 2 else ""),
                "absorbed": "no" if best.site.inserted else "yes",
                "C": best.channels,
                "KLT 99 %": klt.spectrum.rank_for(0.99),
                "KLT 99.9 %": klt.spectrum.rank_for(0.999),
                "weighted 99 %": ranks[0.99],
                "weighted 99.9 %": ranks[0.999],
                "KiB": best.pixels * best.channels / 1024,
                "KiB at 99.9 %": best.pixels * ranks[0.999] / 1024,
                "MMAC": best.macs / 1e6,
                "MMAC at 99.9 %": best.macs_at(ranks[0.999]) / 1e6,
                "most without more MACs": best.limit(1.0),
            }
        )
    return rows


def compiled_row(name: str, options: RankOptions | None, images: int, objective: str) -> dict:
    """One compiled form of a net: what waits, what it takes, what it answers."""
    start = time.perf_counter()
    model = compile_net(
        name, calibration_samples=None, quantize=tvm_ergo.QuantizeOptions(project_channels=options), objective=objective
    )
    seconds = time.perf_counter() - start
    found, programs = model.projection, model.programs.values()
    test = next((t for t in TASKS[name].tests if t.figures and t.name != "imagenet_sample"), TASKS[name].tests[0])
    outcome = evaluate(test, lambda feeds: [np.asarray(o) for o in model.run(feeds).outputs.values()], limit=images)
    tensors = found.tensors if found else ()
    return {
        "net": name,
        "bound": options.error if options else None,
        "error": found.error if found else None,
        "sets": len(tensors),
        "absorbed": sum(not t.inserted for t in tensors),
        "their KiB": sum(t.bytes_before for t in tensors) / 1024,
        "projected KiB": sum(t.bytes_after for t in tensors) / 1024,
        "MMAC": sum(p.meta["macs"] for p in programs) / 1e6,
        "peak KiB": max(p.meta["activation_bytes"] for p in programs) / 1024,
        "constants KiB": sum(p.meta["constant_bytes"] for p in programs) / 1024,
        "samples": outcome.samples,
        outcome.primary: outcome.figures[outcome.primary],
        "compile s": seconds,
    }


def waiting(name: str) -> list[tuple[str, int, np.ndarray, np.ndarray]]:
    """(kind, zero point, pixels [n,C] to learn from, tensor [H,W,C] to measure on) of every tensor with enough
    pixels."""
    found = []
    for alike in zip(*tensors_of(name, LEARNED_FROM + 1)):
        *train, x = (x for x, _ in alike)
        pixels = np.concatenate([t.reshape(-1, x.shape[2]) for t in train])
        if len(pixels) >= PIXELS_PER_CHANNEL * x.shape[2]:
            found.append(("signed" if alike[0][1] > -128 else "after relu", alike[0][1], pixels, x))
    return found


def _by_kind(name: str, rates, measure) -> list[tuple[str, object, np.ndarray]]:
    """(what tensors, rate, measure(zero point, pixels, tensor, rate) of each [n, ...]) for the tensors of each kind and
    each rate."""
    tensors = waiting(name)
    kinds = [
        (f"{len(some)} {kind}", some)
        for kind in ("after relu", "signed")
        if (some := [t for t in tensors if t[0] == kind])
    ]
    return [(label, rate, np.array([measure(*t[1:], rate) for t in some])) for label, some in kinds for rate in rates]


def codec_rows(name: str) -> list[dict]:
    """Rms error of all waiting tensors together, % of their rms distance from the zero point, at 2, 3 and 4 bits per
    value."""
    rows = []
    for label, bits, measured in _by_kind(name, (2, 3, 4), _codec_errors):
        power, klt, rounded, projected, size = measured.T
        rows.append(
            {
                "net": name,
                "tensors": label,
                "bits/value": bits,
                "KLT rms %": 100 * np.sqrt(klt.sum() / power.sum()),
                "rounded rms %": 100 * np.sqrt(rounded.sum() / power.sum()),
                "better of both %": 100 * np.sqrt(np.minimum(klt, rounded).sum() / power.sum()),
                "KLT better": int((klt < rounded).sum()),
                "pixels projected": (projected * size).sum() / size.sum(),
            }
        )
    return rows


def _codec_errors(zero_point: int, pixels: np.ndarray, x: np.ndarray, bits: int) -> tuple[float, ...]:
    """(power, squared error by KLT, by rounding, share of projected pixels, values)."""
    report, plain = (
        learn(pixels, zero_point, bits * x.shape[2]).error_of(x),
        ReducedCodec(zero_point=zero_point, budget_bits=bits),
    )
    wrong = plain.decode(plain.encode(x), x.shape).astype(float) - x
    return (
        float(np.square(x.astype(float) - zero_point).sum()),
        report.mean_squared * x.size,
        float(np.square(wrong).sum()),
        report.projected,
        x.size,
    )


def entropy_rows(name: str) -> list[dict]:
    """Chmiel et al.'s principle, ideally coded: bits per value of eigen-coordinates and of the values themselves, both
    in steps of one size."""
    rows = []
    for label, step, measured in _by_kind(name, (1, 4, 16), _entropies):
        power, size, *figures = measured.T
        plain_bits, klt_bits, plain_lost, klt_lost = figures
        rows.append(
            {
                "net": name,
                "tensors": label,
                "step": step,
                "values: bits/value": plain_bits.sum() / size.sum(),
                "values: rms %": 100 * np.sqrt(plain_lost.sum() / power.sum()),
                "KLT: bits/value": klt_bits.sum() / size.sum(),
                "KLT: rms %": 100 * np.sqrt(klt_lost.sum() / power.sum()),
                "KLT fewer bits": int((klt_bits < plain_bits).sum()),
            }
        )
    return rows


def _entropies(zero_point: int, pixels: np.ndarray, x: np.ndarray, step: float) -> tuple[float, ...]:
    """(power, values, bits of the values, bits of the coordinates, squared errors of both); order-0 entropy per channel
    and per coordinate."""
    learned_from = pixels.astype(float) - zero_point
    vectors = np.linalg.eigh(learned_from.T @ learned_from)[1]
    values = x.reshape(-1, x.shape[2]).astype(float) - zero_point
    levels, coordinates = np.rint(values / step), np.rint(values @ vectors / step)
    bits = [sum(order0(side[:, c]) * len(side) for c in range(side.shape[1])) for side in (levels, coordinates)]
    return (
        float(np.square(values).sum()),
        x.size,
        *bits,
        float(np.square(levels * step - values).sum()),
        float(np.square(coordinates * step @ vectors.T - values).sum()),
    )


def order0(levels: np.ndarray) -> float:
    """Entropy in bits of how often each level occurs."""
    p = np.unique(levels, return_counts=True)[1] / levels.size
    return float(-(p * np.log2(p)).sum())


def main(argv=None) -> None:
    options = parser(__doc__.split("\n\n")[0])
    options.add_argument("--ranks", action="store_true", help="coordinates needed per tensor, nothing compiled")
    options.add_argument("--codec", action="store_true", help="the fixed-rate codec against plain rounding")
    options.add_argument(
        "--entropy", action="store_true", help="bits of an ideal entropy code with and without the transform"
    )
    options.add_argument("--errors", type=float, nargs="*", default=[0.05, 0.1, 0.2], help="bounds of the output error")
    options.add_argument(
        "--mac-limit", type=float, default=1.0, help="multiplications of projected layers against before, at most"
    )
    options.add_argument("--plain", action="store_true", help="principal components, not weighted by the readers")
    options.add_argument("--absorbed", action="store_true", help="only where nothing is inserted")
    options.add_argument("--images", type=int, default=300, help="test images")
    options.add_argument(
        "--objective", choices=["latency", "memory"], default="latency", help="memory: layers in bands of rows"
    )
    arguments = parse(options, argv)
    table = next((TABLES[name] for name in TABLES if getattr(arguments, name)), None)
    rows = []
    for name in arguments.nets or NETS:
        rows += table[1](name) if table else []
        for error in () if table else (None, *arguments.errors):
            chosen = error and RankOptions(
                error=error, mac_limit=arguments.mac_limit, weighted=not arguments.plain, insert=not arguments.absorbed
            )
            rows.append(compiled_row(name, chosen, arguments.images, arguments.objective))
        show(
            table[0] if table else "low-rank channel projection", rows, arguments.json
        )  # after every net: a long run can be stopped


TABLES = {
    "ranks": ("coordinates needed", rank_rows),
    "codec": ("KLT codec against rounding", codec_rows),
    "entropy": ("ideal entropy code of values and of coordinates", entropy_rows),
}


if __name__ == "__main__":
    main()
