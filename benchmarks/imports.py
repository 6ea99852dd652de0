"""Every file of the shared folder through the product: does it load, what share of it runs on the chip, does it agree
with its reference, at what cost.

*MACs on the chip*: share of the multiply-accumulates of convolutions and matrix products. *whole*: no operator is left
to the host. *error*: rms error relative to the reference's deviation on eight inputs, of the output with most values;
*worst*: of the output where it is largest (probabilities that are near 0 throughout have little deviation); the
reference is ONNX Runtime or LiteRT on the same file without its optimisations. Networks with a state carry it: both
sides from their own outputs. Seconds and peak memory are of `tvm_ergo.compile` with 16 calibration inputs, in a process
of its own. Inputs: evaluation data where the shared folder has some, else photographs, tones with noise, or noise
(column *inputs*)."""

from __future__ import annotations

import json
import lzma
import resource
import subprocess
import sys
import time
from itertools import islice
from math import prod
from pathlib import Path

import numpy as np

from benchmarks.common import parse, parser, show
from tvm_ergo.evaluation import datasets
from tvm_ergo.evaluation.datasets import shared_root
from tvm_ergo.evaluation.lookup import input_shapes_of
from tvm_ergo.evaluation.nets import BIG_MEMORY_BYTES
from tvm_ergo.evaluation.tasks import TASKS
from tvm_ergo.evaluation.tflite_inputs import REAL_INPUTS, tflite_inputs

CALIBRATION, COMPARED = 16, 8
SHAPES = {
    "silero_vad_16k_sequence": {"input": (4, 576)},
    "pp_ocrv4_det": {"x": (1, 3, 320, 320)},
    "pp_ocr_cls": {"x": (1, 3, 48, 192)},
    "microwakeword_alexa": None,
}
STATES = {"silero_vad_openvino_16k": {"stateN": "state"}, "silero_vad_16k_sequence": {"hn": "h", "cn": "c"}}
"""Outputs that are inputs of the next run."""
SECONDS = 1200


def files() -> dict[str, Path]:
    root = shared_root() / "models"
    found = sorted(p for suffix in ("*.onnx", "*.onnx.xz", "*.tflite") for p in root.rglob(suffix))
    return {f"{p.parent.name}/{p.name}": p for p in found}


def stem(path: Path) -> str:
    return path.name.removesuffix(".xz").rsplit(".", 1)[0]


# ---- inputs ---------------------------------------------------------------------------------------------------------
def inputs_of(path: Path, infos, count: int) -> tuple[str, list[dict[str, np.ndarray]]]:
    """Where they come from, and feeds by the file's names; states are zero."""
    name = stem(path)
    if path.suffix != ".tflite" and name in TASKS:
        task = TASKS[name]
        return "evaluation data", list(islice((task.calibration or task.tests[0].source).inputs(count), count))
    if path.suffix == ".tflite" and name in REAL_INPUTS:
        (info,) = infos
        return "evaluation data", [
            {info.name: value} for value in tflite_inputs(name, path.read_bytes(), info.dtype, count)
        ]
    kinds = {"picture": "photographs", "audio": "tones with noise", "bytes": "source text", "noise": "noise"}
    kind = _kind(path, infos)
    return kinds[kind], [{info.name: _value(kind, info, i, name) for info in infos} for i in range(count)]


def _kind(path: Path, infos) -> str:
    main = max(infos, key=lambda i: prod(i.shape))
    if "silero" in path.name or "basic_pitch" in path.name:
        return "audio"
    if len(main.shape) == 4 and 3 in (main.shape[1], main.shape[3]):
        return "picture"
    return "bytes" if "magika" in path.name else "noise"


def _value(kind: str, info, index: int, name: str) -> np.ndarray:
    if info.name in STATES.get(name, {}).values():
        return np.zeros(info.shape, info.dtype)
    if kind == "audio":
        return _audio(index, prod(info.shape)).reshape(info.shape)
    if kind == "picture":
        return _picture(info, index, name)
    if kind == "bytes":
        text = Path(__file__).read_bytes() + Path(__file__).read_bytes()
        return np.frombuffer(text, np.uint8)[index * 97 :][: prod(info.shape)].astype(info.dtype).reshape(info.shape)
    rng = np.random.default_rng(index)
    return (
        rng.integers(-128, 128, info.shape).astype(info.dtype)
        if info.dtype in ("int8", "uint8")
        else rng.normal(size=info.shape).astype(info.dtype)
    )


def _audio(index: int, samples: int) -> np.ndarray:
    """A voice-like sum of harmonics with a gliding pitch and pauses, 16 kHz, in noise; one signal, cut into pieces."""
    rng, t = np.random.default_rng(index), (index * samples + np.arange(samples)) / 16000
    phase = 2 * np.pi * (130 * t + 8 * np.sin(2 * np.pi * 0.7 * t))
    loud = np.clip(np.sin(2 * np.pi * 2.9 * t) + 0.4, 0, None)
    return (0.05 * loud * sum(np.sin(k * phase) / k for k in range(1, 16)) + rng.normal(size=samples) * 0.003).astype(
        np.float32
    )


def _picture(info, index: int, name: str) -> np.ndarray:
    from PIL import Image

    last = info.shape[3] == 3
    height, width = info.shape[1:3] if last else info.shape[2:4]
    photo = Image.fromarray(np.asarray(datasets.imagenet_nips17()[index][0])).resize((width, height), Image.BILINEAR)
    value = np.asarray(photo, np.float32)[None] / (255.0 if "hand" in name else 127.5) - (0 if "hand" in name else 1)
    return (value if last else value.transpose(0, 3, 1, 2)).astype(np.float32)


# ---- references -----------------------------------------------------------------------------------------------------
def reference_of(path: Path):
    """A function of a feed."""
    if path.suffix == ".tflite":
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        made = Interpreter(
            model_content=path.read_bytes(),
            num_threads=1,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        made.allocate_tensors()

        def run(feeds):
            for d in made.get_input_details():
                made.set_tensor(d["index"], feeds[d["name"]].astype(d["dtype"]))
            made.invoke()
            return {d["name"]: made.get_tensor(d["index"]) for d in made.get_output_details()}

        return run
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level, options.intra_op_num_threads = ort.GraphOptimizationLevel.ORT_DISABLE_ALL, 1
    session = ort.InferenceSession(
        lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes(), options
    )
    names = [o.name for o in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(None, feeds)))


def carried(run, feeds: list[dict], follows: dict[str, str]) -> tuple[list[dict], list[dict]]:
    """Feeds as they were with the states, and outputs."""
    state, given, results = {}, [], []
    for feed in feeds:
        given.append({**feed, **state})
        results.append(run(given[-1]))
        state = {follows[name]: value for name, value in results[-1].items() if name in follows}
    return given, results


# ---- figures --------------------------------------------------------------------------------------------------------
def host_share(compiled) -> float:
    """Multiply-accumulates of convolutions and products that are left in float, over all of the float network's."""
    from tvm_ergo.relay_passes.relax_utils import bindings_of, main_of

    whole = sum(_macs(value) for _, value in bindings_of(main_of(compiled.reference)))
    left = sum(_macs(value) for _, value in bindings_of(main_of(compiled.lowered)))
    return left / whole if whole else 0.0


def _macs(value) -> int:
    from tvm_ergo.relay_passes.relax_utils import op_name, shape_of

    name = op_name(value)
    if name == "relax.matmul":
        return prod(shape_of(value)) * shape_of(value.args[0])[-1]
    if name == "relax.nn.conv2d":
        return prod(shape_of(value)) * prod(shape_of(value.args[1])[1:])
    return (
        prod(shape_of(value.args[0])) * prod(shape_of(value.args[1])[:3]) if name == "relax.nn.conv2d_transpose" else 0
    )


def child(name: str, sixteen_bits: float | None = None) -> None:
    import tvm_ergo
    from tvm_ergo import frontend

    path = files()[name]
    key, suffix = stem(path), path.suffix
    shapes = input_shapes_of(TASKS[key]) if suffix != ".tflite" and key in TASKS else SHAPES.get(key)
    row = {
        "file": name,
        "loads": "no",
        "MACs on the chip %": None,
        "whole": "",
        "host operators": "",
        "error": None,
        "worst": None,
        "s": None,
        "peak MiB": None,
        "inputs": "",
        "reason": "",
    }
    start = time.perf_counter()
    try:
        imported = frontend.load(path, input_shapes=shapes)
        row["loads"] = "yes"
        row["inputs"], feeds = inputs_of(path, imported.inputs, CALIBRATION + COMPARED)
        reference, follows = reference_of(path), STATES.get(key, {})
        given, _ = carried(reference, feeds[:CALIBRATION], follows)
        start = time.perf_counter()
        options = tvm_ergo.QuantizeOptions(sixteen_bits=sixteen_bits)
        compiled = tvm_ergo.compile(imported, calibration=given, memory=BIG_MEMORY_BYTES, quantize=options)
        row["s"], row["peak MiB"] = (
            time.perf_counter() - start,
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        )
        hosts = sorted({f.op for f in compiled.fallbacks})
        row["MACs on the chip %"], row["whole"], row["host operators"] = (
            100 * (1 - host_share(compiled)),
            "no" if hosts else "yes",
            ", ".join(hosts),
        )
        held = feeds[CALIBRATION:] or feeds[:COMPARED]
        _, want = carried(reference_of(path), held, follows)
        _, got = carried(lambda feed: compiled.run(feed).outputs, held, follows)
        errors = {
            o: _error([g[o] for g in got], [w[o] for w in want])
            for o in sorted(want[0], key=lambda o: -want[0][o].size)
            if o in got[0]
        }
        row["outputs"] = {o: round(e, 4) for o, e in errors.items()}
        row["error"], row["worst"] = next(iter(errors.values())), max(errors.values())
    except Exception as error:  # noqa: BLE001  whatever a file brings up is a row of the table
        row["reason"] = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        row["s"] = row["s"] or time.perf_counter() - start
    print(json.dumps(row))


def _error(got, want) -> float:
    got, want = (np.array(a).astype(np.float64) for a in (got, want))
    return float(np.sqrt(np.mean((got - want) ** 2)) / max(want.std(), 1e-12))


def measure(name: str, sixteen_bits: float | None = None) -> dict:
    extra = [] if sixteen_bits is None else ["--sixteen-bits", str(sixteen_bits)]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.imports", "--child", name, *extra],
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        return json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, IndexError, json.JSONDecodeError) as error:
        return {
            "file": name,
            "loads": "?",
            "MACs on the chip %": None,
            "whole": "",
            "host operators": "",
            "error": None,
            "worst": None,
            "s": None,
            "peak MiB": None,
            "inputs": "",
            "reason": f"{type(error).__name__}",
        }


def main(argv: list[str] | None = None) -> None:
    command = parser(__doc__.split("\n\n")[0])
    command.add_argument("--child", metavar="FILE", help="one file in this process; prints its figures")
    command.add_argument("--sixteen-bits", type=float, metavar="LOSS", help="as that of tvm-ergo compile")
    arguments = parse(command, argv)
    if arguments.child:
        return child(arguments.child, arguments.sixteen_bits)
    rows = []
    for name in [n for n in files() if not arguments.nets or any(wanted in n for wanted in arguments.nets)]:
        rows.append(measure(name, arguments.sixteen_bits))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    whole = sum(row["whole"] == "yes" for row in rows)
    show(f"files: {len(rows)}, of which {whole} whole on the chip", rows, arguments.json)


if __name__ == "__main__":
    main()
