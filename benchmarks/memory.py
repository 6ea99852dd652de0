"""Peak activation memory of every CNN of the manifest: layers whole, least with the frame resident, least with the
input streamed.

Counted is everything in the activation area at its fullest: the frame (where it is resident), outputs, windows of rows,
tiles, alignment. Not the constants (weights, biases, tables), which no peer counts either, and nothing is compressed.
*live*: most bytes alive at one time in the order chosen; *placed*: what the addresses reach, which is what a chip must
have. MACs, cycles and energy are beside layers run whole (`machine.Trace`)."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.common import parse, parser, show
from tvm_ergo.codegen.compile import emit_program
from tvm_ergo.codegen.graph import Graph
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.space import Objective, choose
from tvm_ergo.codegen.stream import streamed
from tvm_ergo.evaluation.nets import BIG_MEMORY_BYTES, TFLITE, ChipPart, chip_parts, compile_net, inputs_of
from tvm_ergo.evaluation.tasks import TASKS
from tvm_ergo.target.chip import Chip, chip
from tvm_ergo.target.machine import Trace

KIB = 1024
NO_CNN = (
    "ad01_int8",
    "ad01_autoencoder_fp32",
    "ad01_autoencoder_qdq_int8",
    "bnn_lfc_w1a1_mnist",
    "tfc_1w1a_mnist",
    "mnist_lstm20",
    "all_minilm_l6_v2_trim",
    "stories260k_s256",
)
MAX_MACS = Options().mac_overhead
FRAME_SHARE = 1.1
"""With the frame resident, the goal is this times the frame, wherever the frame is the largest tensor."""
STREAMED_GOALS_KIB = {
    "tf2_mobilenet_v2_1.0_224_ptq": 64.0,
    "vww_96_int8": 10.0,
    "pretrainedResnet_quant": 10.0,
    "vww": 10_000 / KIB,
    "mcunetv2_large": 100.0,
}
FRAME_NETS = ("tf2_mobilenet_v2_1.0_224_ptq", "vww_96_int8", "vww", "mcunetv2_large")
"""Nets for which the frame's goal is stated though the frame is not their largest tensor."""
# On the same files. The first three with the frame resident and counted (measured): TFLite Micro's arena head, Vela 5.2
# (U55-128, Shared_Sram). "patches": planners of patches, the input streamed, as they count, with their factor of
# multiply-accumulates where it is known.
PEERS_KIB = {
    "tf2_mobilenet_v2_1.0_224_ptq": {
        "TFLM": 1470.0,
        "Vela Perf.": 1474.0,
        "Vela Size": 353.5,
        "patches": "MCUNetV2 168.0 (1.10x)",
    },
    "vww_96_int8": {"TFLM": 72.0, "Vela Perf.": 72.7, "Vela Size": 48.0},
    "pretrainedResnet_quant": {"TFLM": 48.0, "Vela Perf.": 50.6, "Vela Size": 35.0},
    "kws_ref_model": {"TFLM": 15.6, "Vela Perf.": 21.7, "Vela Size": 15.6},
    "mcunetv2_large": {"TFLM": 2394.0, "Vela Perf.": 1475.0, "Vela Size": 735.0, "patches": "TinyEngine 398.8"},
    "vww": {"patches": "msf-CNN 13.06 (1.35x), 11.72 (1.96x); TinyEngine 31.25"},
}
PEERS = ("TFLM", "Vela Perf.", "Vela Size", "patches")


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
        yield {
            "net": part.net,
            "input": "streamed" if graph.streams else "resident",
            "frame KiB": frame_bytes(graph) / KIB,
            "whole KiB": whole.activation_bytes / KIB,
            "live KiB": plan.live_bytes / KIB,
            "placed KiB": plan.activation_bytes / KIB,
            "MACs x": space["mac_overhead"],
            "copied KiB": space["copied_bytes"] / KIB,
            "cycles x": small.cycles / trace.cycles,
            "energy x": small.energy_pj / trace.energy_pj,
            "search s": seconds,
            "goal KiB": goal,
            "reached": None
            if goal is None
            else "yes"
            if plan.activation_bytes <= goal * KIB and space["mac_overhead"] <= MAX_MACS
            else "no",
            **{peer: PEERS_KIB.get(part.net, {}).get(peer) for peer in PEERS},
        }


def measure_compressed(name: str, samples: int) -> Iterator[dict]:
    """Least memory without and with tensors that wait compressed, resident and streamed: the slots' sizes come from
    ``samples`` of the calibration data (for nets that came quantized: the first test inputs), the rest from as many
    real inputs.

    Slots do not vary with the data, so the memory is the same for every input; what varies is how full they are, and
    how many tiles do not fit."""
    data = TASKS[name].calibration or TASKS[name].tests[0].source
    calibration = list(data.inputs(samples))[:samples]
    for stream in (False, True):
        plain, packed = (
            compile_net(
                name,
                calibration_samples=samples,
                objective="memory",
                stream=stream,
                compression=how,
                calibration=calibration,
            )
            for how in ("off", "auto")
        )
        before, after = (max(p.meta["activation_bytes"] for p in c.programs.values()) for c in (plain, packed))
        kept = [row for program in packed.programs.values() for row in program.meta["compression"]]
        values = sum(row["raw_bytes"] for row in kept)
        counted = (
            [count for feeds in inputs_of(name, packed, samples) for count in packed.run(feeds).compressed]
            if kept
            else []
        )
        yield {
            "net": name,
            "input": "streamed" if stream else "resident",
            "without KiB": before / KIB,
            "with KiB": after / KIB,
            "tensors": len(kept),
            "slot bits": 8 * sum(row["stored_bytes"] for row in kept) / values if kept else None,
            "mean bits": sum(row["bits_mean"] * row["raw_bytes"] for row in kept) / values if kept else None,
            "worst bits": sum(row["bits_worst"] * row["raw_bytes"] for row in kept) / values if kept else None,
            "tiles": sum(count["tiles"] for count in counted),
            "tiles reduced": sum(count["reduced"] for count in counted),
            "inputs": samples,
        }


def beside_peers(rows: list[dict]) -> list[dict]:
    """What is placed beside what the peers need, for the nets they were run on."""
    placed = {(row["net"], row["input"]): row["placed KiB"] for row in rows}
    return [
        {
            "net": net,
            "resident KiB": placed[net, "resident"],
            "streamed KiB": placed.get((net, "streamed")),
            **{p: peers.get(p) for p in PEERS},
        }
        for net, peers in PEERS_KIB.items()
        if (net, "resident") in placed
    ]


def frame_bytes(graph: Graph) -> int:
    """Bytes of all inputs, resident or not."""
    return sum(graph.tensors[t].size_bytes for t in graph.inputs)


def goal_kib(net: str, graph: Graph) -> float | None:
    """What is to be reached; with the frame resident where it is the largest tensor, and for the nets that have a goal
    when streamed."""
    if graph.streams:
        return STREAMED_GOALS_KIB.get(net)
    frame = frame_bytes(graph)
    is_largest = frame >= max(t.size_bytes for t in graph.tensors if t.data is None)
    return frame * FRAME_SHARE / KIB if is_largest or net in FRAME_NETS else None


def main(argv=None) -> None:
    options = parser(__doc__)
    options.add_argument(
        "--compression",
        type=int,
        metavar="N",
        help="instead: what compression gains, measured on N inputs (nets with data of their own)",
    )
    arguments = parse(options, argv)
    if arguments.compression:
        with_data = arguments.nets or [n for n in TASKS if n not in NO_CNN]
        show(
            "least activation memory without and with tensors that wait compressed",
            [row for name in with_data for row in measure_compressed(name, arguments.compression)],
            arguments.json,
        )
        return
    names = arguments.nets or [n for n in (*TFLITE, *TASKS) if n not in NO_CNN]
    on = chip("ergo/1").with_memory(BIG_MEMORY_BYTES)
    parts = (
        part for name in names for part in chip_parts(name, calibration_samples=2)
    )  # what is calibrated does not change the plan
    rows = [row for part in parts for row in measure(part, on)]
    show("peak activation memory", rows, arguments.json, hidden=PEERS)
    show("beside peers on the same files", beside_peers(rows))


if __name__ == "__main__":
    main()
