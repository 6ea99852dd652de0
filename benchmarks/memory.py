"""Peak activation memory of every net, beside the live-bytes bound of its own order that peers reach (or exceed)."""

from __future__ import annotations

from benchmarks.common import parse, parser, show
from tvm_ergo import evaluation
from tvm_ergo.evaluation.nets import TFLITE, compile_net

# The column "bound" of the peers' comparison (KiB): live bytes in the given order, no tiling, frame included.
BOUND_KIB = {"tf2_mobilenet_v2_1.0_224_ptq": 1470, "vww_96_int8": 54.0, "pretrainedResnet_quant": 48.0, "kws_ref_model": 15.6,
             "ad01_int8": 0.75, "mcunetv2_large": 2394}


def measure(name: str) -> list[dict]:
    compiled = compile_net(name, calibration_samples=2)  # what is calibrated does not change the plan
    rows = []
    for symbol, program in compiled.programs.items():
        live, allocated = program.meta["live_bytes"], program.meta["activation_bytes"]
        rows.append({"net": name, "program": symbol, "order bound KiB": program.meta["bound_bytes"] / 1024, "live peak KiB": live / 1024, "allocated KiB": allocated / 1024,
                     "peers' bound KiB": BOUND_KIB.get(name), "constants KiB": program.meta["constant_bytes"] / 1024})
    return rows


def main(argv=None) -> None:
    arguments = parse(parser(__doc__), argv)
    names = arguments.nets or [*TFLITE, *(n for n in evaluation.TASKS)]
    show("peak activation memory (input frame included)", [row for name in names for row in measure(name)], arguments.json)


if __name__ == "__main__":
    main()
