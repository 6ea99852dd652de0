"""Emulated inference against ONNX Runtime: the same QDQ model, the same machine, the same run, the same number of
threads.

The emulator's time is that of the whole call a user makes (TVM's virtual machine, quantize and dequantize on the host
included). ONNX Runtime runs the float model (what the aim of 4x refers to) and the QDQ model with its graph
optimisations on; the latter's numbers may be wrong on CPUs without VNNI, its time is what it is. Runs alternate, so
that a busy machine slows all alike; the best is kept. "chip ms" is the chip alone (`Machine.run`, without the host's
part), "chip by NumPy ms" the same with the native runtime switched off."""

from __future__ import annotations

import os
import time

import numpy as np
import onnxruntime as ort

from benchmarks.common import parse, parser, show
from tvm_ergo.evaluation import TASKS, model_bytes
from tvm_ergo.evaluation.nets import compile_net, inputs_of
from tvm_ergo.target.machine import Machine

NETS = (
    "mobilenet_v2_1.0_224_fp32",
    "mobilenet_v2_1.0_224_torchvision_qdq_int8",
    "resnet18_ktb_small",
    "resnet50_pqf_large",
    "all_minilm_l6_v2_trim",
    "stories260k_s256",
)


def session(name: str, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return ort.InferenceSession(model_bytes(TASKS[name].path), options, providers=["CPUExecutionProvider"])


def measure(name: str, threads: int, repeats: int) -> dict:
    compiled = compile_net(name, calibration_samples=4)
    feeds = inputs_of(name, compiled, 1)[0]
    reference = session(name, threads)
    made = compiled.run(feeds).calls
    native, plain = (
        [(Machine(call.program, compiled.chip, native=on), call.inputs) for call in made] for on in (True, False)
    )
    calls = {
        "emulator ms": lambda: compiled.run(feeds),
        "chip ms": lambda: [machine.run(inputs) for machine, inputs in native],
        "chip by NumPy ms": lambda: [machine.run(inputs) for machine, inputs in plain],
        "ORT ms": lambda: reference.run(None, feeds),
    }
    best = dict.fromkeys(calls, np.inf)
    for _ in range(repeats):
        for key, call in calls.items():
            start = time.perf_counter()
            call()
            best[key] = min(best[key], 1e3 * (time.perf_counter() - start))
    return {
        "net": name,
        "threads": threads,
        **best,
        "ratio": best["emulator ms"] / best["ORT ms"],
        "times NumPy": best["chip by NumPy ms"] / best["chip ms"],
    }


def main(argv=None) -> None:
    options = parser(__doc__.split("\n\n")[0])
    options.add_argument("--repeats", type=int, default=15)
    options.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)), help="for both (default: all cores)"
    )
    arguments = parse(options, argv)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    rows = [measure(name, arguments.threads, arguments.repeats) for name in arguments.nets or NETS]
    show("emulated inference beside ONNX Runtime (float32; the QDQ row: int8)", rows, arguments.json)


if __name__ == "__main__":
    main()
