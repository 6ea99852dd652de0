"""Seconds and peak resident memory to compile each net, each in a process of its own (import of TVM apart)."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

from benchmarks.common import parse, parser, show
from tvm_ergo import evaluation
from tvm_ergo.evaluation.nets import TFLITE, compile_net


def child(name: str) -> None:
    """Runs in the child process: one compilation, with calibration on 32 samples where the net is float."""
    import tvm  # noqa: F401  not counted: any user of TVM pays it

    start = time.perf_counter()
    compiled = compile_net(name)
    seconds = time.perf_counter() - start
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    instructions = sum(len(p.instructions) for p in compiled.programs.values())
    print(json.dumps({"net": name, "seconds": seconds, "peak MiB": peak_mib, "instructions": instructions, "host ops": len(compiled.fallbacks)}))


def measure(name: str) -> dict:
    done = subprocess.run([sys.executable, "-m", "benchmarks.compile_time", "--child", name], capture_output=True, text=True)
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
