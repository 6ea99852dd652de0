"""Seconds and peak resident memory to compile each net, each in a process of its own (import of TVM apart).

*seconds*, *CPU s*: all of `tvm_ergo.compile`, layers whole. The other columns are the CPU seconds of planning and
lowering alone, which take the place of a second or less of that: least memory, least memory with the input streamed,
and half the activation memory of whole layers (or the least)."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

from benchmarks.common import parse, parser, show
from tvm_ergo import evaluation
from tvm_ergo.codegen.compile import emit_program
from tvm_ergo.codegen.graph import Graph
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.space import Objective, choose
from tvm_ergo.codegen.stream import streamed
from tvm_ergo.evaluation.nets import BIG_MEMORY_BYTES, TFLITE, compile_net, parts_of
from tvm_ergo.target.chip import Chip


def child(name: str) -> None:
    """Runs in the child process: one compilation, with calibration on 32 samples where the net is float; then its
    plans."""
    import tvm  # noqa: F401  not counted: any user of TVM pays it

    start, cpu = time.perf_counter(), time.process_time()
    compiled = compile_net(name)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    instructions = sum(len(p.instructions) for p in compiled.programs.values())
    figures = {
        "net": name,
        "seconds": seconds,
        "CPU s": cpu,
        "peak MiB": _peak_mib(),
        "instructions": instructions,
        "host ops": len(compiled.fallbacks),
        "memory s": 0.0,
        "streamed s": 0.0,
        "half s": 0.0,
    }
    for part in parts_of(name, compiled):
        whole = choose(part.graph, compiled.chip, BIG_MEMORY_BYTES)
        least, taken = _planned(part.graph, compiled.chip, BIG_MEMORY_BYTES, Objective.MEMORY)
        figures["memory s"] += taken
        figures["streamed s"] += _planned(streamed(part.graph), compiled.chip, BIG_MEMORY_BYTES, Objective.MEMORY)[1]
        half = max(least.activation_bytes, whole.activation_bytes // 2) + max(
            least.constant_bytes, whole.constant_bytes
        )
        figures["half s"] += _planned(part.graph, compiled.chip, half, Objective.LATENCY)[1]
    print(json.dumps({**figures, "with plans MiB": _peak_mib()}))


def _planned(graph: Graph, on: Chip, memory_bytes: int, objective: Objective):
    """``(plan, CPU seconds to find and lower it)``."""
    start = time.process_time()
    plan = choose(graph, on, memory_bytes, Options(), objective)
    emit_program(plan, on, memory_bytes)
    return plan, time.process_time() - start


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.compile_time", "--child", name], capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"compiling {name} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main(argv=None) -> None:
    options = parser(__doc__)
    options.add_argument("--child", metavar="NAME", help="compile one net in this process and print its figures")
    arguments = parse(options, argv)
    if arguments.child:
        return child(arguments.child)
    names = arguments.nets or [*TFLITE, *evaluation.TASKS]
    show("time and memory to compile", [measure(name) for name in names], arguments.json)


if __name__ == "__main__":
    main()
