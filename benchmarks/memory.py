"""Peak activation memory of every net, beside the live-bytes bound of its own order that peers reach (or exceed)."""

from __future__ import annotations

import time

from benchmarks.common import parse, parser, show
from tvm_ergo import evaluation
from tvm_ergo.evaluation.nets import TFLITE, compile_net
from tvm_ergo.target.machine import Trace

# The column "bound" of the peers' comparison (KiB): live bytes in the given order, no tiling, frame included.
BOUND_KIB = {"tf2_mobilenet_v2_1.0_224_ptq": 1470, "vww_96_int8": 54.0, "pretrainedResnet_quant": 48.0, "kws_ref_model": 15.6,
             "ad01_int8": 0.75, "mcunetv2_large": 2394}


# What Vela 4.x reaches on the same files with its Size objective (KiB, frame resident).
VELA_KIB = {"tf2_mobilenet_v2_1.0_224_ptq": 353.5, "vww_96_int8": 48.0, "pretrainedResnet_quant": 35.0, "mcunetv2_large": 735.0}
BANDED = ("tf2_mobilenet_v2_1.0_224_ptq", "vww_96_int8", "pretrainedResnet_quant", "mcunetv2_large", "vww")


def measure(name: str) -> list[dict]:
    compiled = compile_net(name, calibration_samples=2)  # what is calibrated does not change the plan
    rows = []
    for symbol, program in compiled.programs.items():
        live, allocated = program.meta["live_bytes"], program.meta["activation_bytes"]
        rows.append({"net": name, "program": symbol, "order bound KiB": program.meta["bound_bytes"] / 1024, "live peak KiB": live / 1024,
                     "allocated KiB": allocated / 1024, "peers' bound KiB": BOUND_KIB.get(name),
                     "constants KiB": program.meta["constant_bytes"] / 1024})
    return rows


def measure_bands(name: str) -> dict:
    """The least activation memory beside layers run whole: every chip part of the net together, the largest peak of them."""
    start = time.perf_counter()
    small = compile_net(name, calibration_samples=2, objective="memory")
    seconds = time.perf_counter() - start
    plain = compile_net(name, calibration_samples=2)
    pairs = [(program, plain.programs[symbol]) for symbol, program in small.programs.items()]
    traces = [[Trace(program, small.chip) for program in pair] for pair in pairs]
    worst, whole = (max((pair[i] for pair in pairs), key=lambda p: p.meta["activation_bytes"]) for i in (0, 1))
    space = [program.meta["space"] or {"mac_overhead": 1.0, "copied_bytes": 0} for program, _ in pairs]
    macs = sum(program.meta["macs"] for program, _ in pairs)
    return {"net": name, "whole KiB": whole.meta["activation_bytes"] / 1024, "bands live KiB": worst.meta["live_bytes"] / 1024,
            "bands KiB": worst.meta["activation_bytes"] / 1024, "Vela Size KiB": VELA_KIB.get(name),
            "frame KiB": sum(port.operand.size_bytes for port in pairs[0][0].inputs) / 1024,
            "MACs x": sum(s["mac_overhead"] * p.meta["macs"] for s, (p, _) in zip(space, pairs)) / max(macs, 1),
            "copied KiB": sum(s["copied_bytes"] for s in space) / 1024,
            "cycles x": sum(t[0].cycles for t in traces) / sum(t[1].cycles for t in traces),
            "energy x": sum(t[0].energy_pj for t in traces) / sum(t[1].energy_pj for t in traces), "compile s": seconds}


def main(argv=None) -> None:
    options = parser(__doc__)
    options.add_argument("--objective", choices=["latency", "memory"], default="latency",
                         help="memory: least activation memory, layers in bands of rows, beside layers run whole")
    arguments = parse(options, argv)
    if arguments.objective == "memory":
        rows = [measure_bands(name) for name in arguments.nets or BANDED]
        show("least activation memory, layers in bands of rows (frame resident)", rows, arguments.json)
        return
    names = arguments.nets or [*TFLITE, *(n for n in evaluation.TASKS)]
    show("peak activation memory (input frame included)", [row for name in names for row in measure(name)], arguments.json)


if __name__ == "__main__":
    main()
