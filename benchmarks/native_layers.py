"""Where the emulator's time goes: each instruction alone, in the order of the Program, one thread; the best of several
runs.

*ms* is the instruction by the runtime in C ("how": packed, plain, or NumPy where the runtime leaves it), *G/s* its
products a second, *of peak* that by what the path's inner kernel reaches on operands that stay in the first cache
(measured in the same run, `ergo_host_tile`). Kinds of instructions are summed up below the slowest ones."""

from __future__ import annotations

import os
import time
from collections import defaultdict

from benchmarks.common import parse, parser, save, show
from tvm_ergo.evaluation.nets import compile_net, inputs_of
from tvm_ergo.target.machine import Machine
from tvm_ergo.target.machine.native import macs_of
from tvm_ergo.target.native.library import library, path_number

NETS = ("mobilenet_v2_1.0_224_fp32", "resnet18_ktb_small", "resnet50_pqf_large", "all_minilm_l6_v2_trim")


def peak() -> float:
    """Products a second of the best path's inner kernel."""
    rounds, best = 2000, 0.0
    for _ in range(20):
        start = time.perf_counter()
        products = library().ergo_host_tile(path_number(), rounds)
        best = max(best, products / (time.perf_counter() - start))
    return best


def timed(call, chip, repeats: int) -> list[tuple[float, str]]:
    """Seconds and kind of work of each instruction."""
    machine = Machine(call.program, chip)
    clock, best = [0.0], [(float("inf"), "")] * len(call.program.instructions)

    def watch(at, instruction, memory):
        seconds = time.perf_counter() - clock[0]
        best[at] = min(best[at], (seconds, machine.executed_by(at)))
        clock[0] = time.perf_counter()

    for _ in range(repeats):
        clock[0] = time.perf_counter()
        machine.run(call.inputs, watch)
    return best


def measure(name: str, repeats: int) -> list[dict]:
    compiled = compile_net(name, calibration_samples=4)
    top, rows = peak(), []
    for call in compiled.run(inputs_of(name, compiled, 1)[0]).calls:
        for instruction, (seconds, how) in zip(call.program.instructions, timed(call, compiled.chip, repeats)):
            macs = macs_of(instruction)
            rows.append(
                {
                    "net": name,
                    "instruction": instruction.MNEMONIC,
                    "node": call.program.nodes[instruction.node].name,
                    "how": how,
                    "ms": 1e3 * seconds,
                    "G/s": macs / seconds / 1e9 if macs else None,
                    "of peak": macs / seconds / top if macs else None,
                }
            )
    return rows


def summed(rows: list[dict]) -> list[dict]:
    """By net, mnemonic and how: number and time, the largest first."""
    found = defaultdict(lambda: [0, 0.0])
    for row in rows:
        entry = found[row["net"], row["instruction"], row["how"]]
        entry[0], entry[1] = entry[0] + 1, entry[1] + row["ms"]
    total = defaultdict(float)
    for row in rows:
        total[row["net"]] += row["ms"]
    return [
        {"net": net, "instruction": kind, "how": how, "number": n, "ms": ms, "share": ms / total[net]}
        for (net, kind, how), (n, ms) in sorted(found.items(), key=lambda item: (item[0][0], -item[1][1]))
    ]


def main(argv=None) -> None:
    options = parser(__doc__.split("\n\n")[0])
    options.add_argument("--repeats", type=int, default=15)
    options.add_argument("--slowest", type=int, default=8, help="instructions of each net that are shown one by one")
    arguments = parse(options, argv)
    os.environ["OMP_NUM_THREADS"] = "1"
    every = []
    for name in arguments.nets or NETS:
        rows = measure(name, arguments.repeats)
        every += rows
        slowest = sorted(rows, key=lambda row: -row["ms"])[: arguments.slowest]
        show(f"the slowest instructions of {name}", slowest)
    show("by kind of instruction", summed(every))
    if arguments.json:
        save("time of every instruction", every, arguments.json)


if __name__ == "__main__":
    main()
