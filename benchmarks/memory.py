"""Peak activation memory of every CNN of the manifest: layers whole, least with the frame resident, least with the input streamed.

Counted is everything in the activation area at its fullest: the frame (where it is resident), outputs, windows of rows, tiles, alignment. Not the
constants (weights, biases, tables), which no peer counts either, and nothing is compressed. *live*: most bytes alive at one time in the order
chosen; *placed*: what the addresses reach, which is what a chip must have. MACs, cycles and energy are beside layers run whole (`machine.Trace`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.common import parse, parser, show
from tvm_ergo import evaluation
from tvm_ergo.codegen.compile import emit_program
from tvm_ergo.codegen.graph import Graph
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.space import Objective, choose
from tvm_ergo.codegen.stream import streamed
from tvm_ergo.evaluation.nets import BIG_MEMORY_BYTES, TFLITE, ChipPart, chip_parts
from tvm_ergo.target.chip import Chip, chip
from tvm_ergo.target.machine import Trace

KIB = 1024
NO_CNN = ("ad01_int8", "ad01_autoencoder_fp32", "ad01_autoencoder_qdq_int8", "bnn_lfc_w1a1_mnist", "tfc_1w1a_mnist", "mnist_lstm20",
          "all_minilm_l6_v2_trim", "stories260k_s256")
MAX_MACS = Options().mac_overhead
FRAME_SHARE = 1.1
"""With the frame resident, the goal is this times the frame, wherever the frame is the largest tensor."""
STREAMED_GOALS_KIB = {"tf2_mobilenet_v2_1.0_224_ptq": 64.0, "vww_96_int8": 10.0, "pretrainedResnet_quant": 10.0, "vww": 10_000 / KIB, "mcunetv2_large": 100.0}
# Peers on the same files, KiB, frame resident and counted (measured): TFLite Micro's arena head, Vela 5.2 (U55-128, Shared_Sram).
PEERS_KIB = {"tf2_mobilenet_v2_1.0_224_ptq": (1470.0, 1474.0, 353.5), "vww_96_int8": (72.0, 72.7, 48.0), "pretrainedResnet_quant": (48.0, 50.6, 35.0),
             "kws_ref_model": (15.6, 21.7, 15.6), "mcunetv2_large": (2394.0, 1475.0, 735.0)}
# Planners of patches, KiB as they count, input streamed; with their factor of multiply-accumulates where known.
PATCHES = {"tf2_mobilenet_v2_1.0_224_ptq": "MCUNetV2 168.0 (1.10x)", "vww": "msf-CNN 13.06 (1.35x), 11.72 (1.96x); TinyEngine 31.25",
           "mcunetv2_large": "TinyEngine 398.8"}


def measure(part: ChipPart, on: Chip) -> Iterator[dict]:
    """A row for the frame resident and one for the input streamed."""
    whole = choose(part.graph, on, BIG_MEMORY_BYTES)
    trace = Trace(emit_program(whole, on), on)
    for graph in dict.fromkeys((part.graph, streamed(part.graph))):
        start = time.process_time()
        plan = choose(graph, on, BIG_MEMORY_BYTES, Options(), Objective.MEMORY)
        seconds = time.process_time() - start
        program = emit_program(plan, on)
        space, small = program.meta["space"] or {"mac_overhead": 1.0, "copied_bytes": 0}, Trace(program, on)
        goal = goal_kib(part.net, graph)
        peers = PEERS_KIB.get(part.net, (None,) * 3)
        yield {"net": part.net, "input": "streamed" if graph.streams else "resident", "frame KiB": frame_bytes(graph) / KIB,
               "whole KiB": whole.activation_bytes / KIB, "live KiB": plan.live_bytes / KIB, "placed KiB": plan.activation_bytes / KIB,
               "MACs x": space["mac_overhead"], "copied KiB": space["copied_bytes"] / KIB, "cycles x": small.cycles / trace.cycles,
               "energy x": small.energy_pj / trace.energy_pj, "search s": seconds, "goal KiB": goal,
               "reached": None if goal is None else "yes" if plan.activation_bytes <= goal * KIB and space["mac_overhead"] <= MAX_MACS else "no",
               "TFLM": peers[0], "Vela Perf.": peers[1], "Vela Size": peers[2], "patches": PATCHES.get(part.net)}


def frame_bytes(graph: Graph) -> int:
    """Bytes of all inputs, resident or not."""
    return sum(graph.tensors[t].size_bytes for t in graph.inputs)


def goal_kib(net: str, graph: Graph) -> float | None:
    """What is to be reached; with the frame resident where it is the largest tensor, and for the nets that have a goal when streamed."""
    if graph.streams:
        return STREAMED_GOALS_KIB.get(net)
    frame = frame_bytes(graph)
    is_largest = frame >= max(t.size_bytes for t in graph.tensors if t.data is None)
    return frame * FRAME_SHARE / KIB if is_largest or net in STREAMED_GOALS_KIB else None


def main(argv=None) -> None:
    arguments = parse(parser(__doc__), argv)
    names = arguments.nets or [n for n in (*TFLITE, *evaluation.TASKS) if n not in NO_CNN]
    on = chip("ergo/1").with_memory(BIG_MEMORY_BYTES)
    parts = (part for name in names for part in chip_parts(name, calibration_samples=2))  # what is calibrated does not change the plan
    show("peak activation memory", [row for part in parts for row in measure(part, on)], arguments.json)


if __name__ == "__main__":
    main()
