"""Plans in space against the same net in whole layers: every bit of the outputs on real inputs, in strict mode, at several memory limits.

For every chip part of every net of the manifest: limits between the least activation memory and that of whole layers, least memory and
least energy, the inputs resident and streamed. Each plan is judged by labels (`codegen.space.check`) too. Ends with status 1 if anything is wrong.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np

import tvm_ergo
from benchmarks.common import parse, parser, show
from tvm_ergo import evaluation
from tvm_ergo.codegen.compile import emit_program
from tvm_ergo.codegen.graph import Graph
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.space import Objective, SpacePlan, choose
from tvm_ergo.codegen.space.check import check
from tvm_ergo.codegen.stream import streamed
from tvm_ergo.evaluation.nets import BIG_MEMORY_BYTES, TFLITE, ChipPart, chip_parts
from tvm_ergo.target.chip import Chip, chip
from tvm_ergo.target.errors import OutOfMemoryError
from tvm_ergo.target.machine import Machine

SHARES = (0.75, 0.5, 0.3)
"""Limits tried, as shares of the activation bytes of whole layers."""
SLOW_S = 60.0


def limits(least_bytes: int, whole_bytes: int, shares: Sequence[float]) -> Iterator[tuple[str, int, Objective]]:
    """``(name, limit of activation bytes, objective)`` of the plans of a graph besides that of least memory; shares that cannot be met are left out."""
    yield "least", least_bytes, Objective.LATENCY
    for share in shares:
        if int(share * whole_bytes) > least_bytes:
            yield f"{share:.0%}", int(share * whole_bytes), Objective.LATENCY
    yield "energy", max(whole_bytes // 2, least_bytes), Objective.ENERGY


def measure(part: ChipPart, on: Chip, shares: Sequence[float] = SHARES) -> Iterator[dict]:
    """A row for every plan of a chip part: ``net, part, plan, input, limit KiB, reached KiB, search s, slow, inputs, wrong`` (empty: all is well)."""
    whole = choose(part.graph, on, BIG_MEMORY_BYTES)
    program = emit_program(whole, on, BIG_MEMORY_BYTES)
    expected = [_strict(program, on, inputs) for inputs in part.inputs]
    yield _row(part, "whole", False, None, whole, 0.0, "")
    for graph in dict.fromkeys((part.graph, streamed(part.graph))):
        least, row = _planned(part, graph, on, expected, "memory", BIG_MEMORY_BYTES, Objective.MEMORY)
        yield row
        for name, limit, objective in limits(least.activation_bytes, whole.activation_bytes, shares):
            yield _planned(part, graph, on, expected, name, limit + least.constant_bytes, objective)[1]


def _planned(part: ChipPart, graph: Graph, on: Chip, expected, name: str, limit_bytes: int, objective: Objective):
    """``(plan or None, row)``."""
    start = time.process_time()
    plan, wrong = None, ""
    try:
        plan = choose(graph, on, limit_bytes, Options(), objective)
    except OutOfMemoryError as error:
        wrong = f"limit {limit_bytes} not met: {str(error).splitlines()[0]}"
    seconds = time.process_time() - start
    if plan is not None:
        wrong = judge(plan, on, limit_bytes, part, expected)
    limit = limit_bytes - plan.constant_bytes if plan is not None and limit_bytes < BIG_MEMORY_BYTES else None
    return plan, _row(part, name, bool(graph.streams), limit, plan, seconds, wrong)


def judge(plan, on: Chip, limit_bytes: int, part: ChipPart, expected: list[dict[str, np.ndarray]]) -> str:
    """What is wrong with a plan; empty if nothing."""
    violation = check(plan) if isinstance(plan, SpacePlan) else None
    if violation is not None:
        return str(violation)
    if plan.memory_bytes > limit_bytes:
        return f"{plan.memory_bytes} bytes, the limit was {limit_bytes}"
    program = emit_program(plan, on, limit_bytes)
    for inputs, outputs in zip(part.inputs, expected, strict=True):
        found = _strict(program, on, inputs)
        differing = [name for name, value in outputs.items() if not np.array_equal(found[name], value)]
        if differing or found.keys() != outputs.keys():
            return f"outputs differ: {', '.join(differing)}"
    return ""


def _strict(program, on: Chip, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return Machine(program, on, strict=True).run(inputs).outputs


def _row(part: ChipPart, name: str, stream: bool, limit: int | None, plan, seconds: float, wrong: str) -> dict:
    return {"net": part.net, "part": part.symbol, "plan": name, "input": "streamed" if stream else "resident",
            "limit KiB": None if limit is None else limit / 1024, "reached KiB": None if plan is None else plan.activation_bytes / 1024,
            "search s": seconds, "slow": "slow" if seconds > SLOW_S else "", "inputs": len(part.inputs), "wrong": wrong}


def main(argv=None) -> None:
    options = parser(__doc__)
    options.add_argument("--inputs", type=int, default=2, metavar="N", help="real inputs per net (default: 2)")
    arguments = parse(options, argv)
    rows = []
    for name in arguments.nets or [*TFLITE, *evaluation.TASKS]:
        quantize = tvm_ergo.QuantizeOptions(samples=4, attention_on_chip=True)  # bits are compared, not accuracy
        for part in chip_parts(name, arguments.inputs, calibration_samples=4, quantize=quantize):
            for row in measure(part, chip("ergo/1").with_memory(BIG_MEMORY_BYTES)):
                rows.append(row)
                print(*(f"{v:.1f}" if isinstance(v, float) else v for v in row.values()), file=sys.stderr, flush=True)
    show("plans in space against whole layers", rows, arguments.json)
    if any(row["wrong"] for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
