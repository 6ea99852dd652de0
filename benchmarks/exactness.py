"""Plans in space against the same net in whole layers: every bit of the outputs on real inputs, in strict mode, at
several memory limits.

For every chip part of every net of the manifest: limits between the least activation memory and that of whole layers,
least memory and least energy, the inputs resident and streamed. Each plan is judged by labels (`codegen.space.check`)
too. Before that, the whole net in whole layers is compared with TVM's own build of the same module for the CPU. Instead
of these, ``--slots``: every tensor that can waits compressed without loss, by every codec; ``--compression``: what the
front door makes with compression, of least memory and within the limit that this reached. Ends with status 1 if
anything is wrong."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np
from tvm import relax

import tvm_ergo
from benchmarks.common import parse, parser, show
from tvm_ergo import evaluation
from tvm_ergo.codegen.compile import emit_program
from tvm_ergo.codegen.compression.statistics import candidates
from tvm_ergo.codegen.fuse import fuse
from tvm_ergo.codegen.graph import Graph, from_function
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.space import Objective, SpacePlan, choose
from tvm_ergo.codegen.space.check import check
from tvm_ergo.codegen.stream import streamed
from tvm_ergo.evaluation.nets import BIG_MEMORY_BYTES, TFLITE, ChipPart, compile_net, inputs_of, parts_of
from tvm_ergo.relay_passes.compile.insert_compression import Decision, insert
from tvm_ergo.relay_passes.compile.partition import Partition, chip_functions
from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.target.chip import Chip, chip
from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.slots import SLOT_CODECS, lossless_slot_bytes
from tvm_ergo.target.errors import OutOfMemoryError
from tvm_ergo.target.machine import Machine

SHARES = (0.75, 0.5, 0.3)
"""Limits tried, as shares of the activation bytes of whole layers."""
SLOW_S = 60.0


def limits(least_bytes: int, whole_bytes: int, shares: Sequence[float]) -> Iterator[tuple[str, int, Objective]]:
    """``(name, limit of activation bytes, objective)`` of the plans of a graph besides that of least memory; shares
    that cannot be met are left out."""
    yield "least", least_bytes, Objective.LATENCY
    for share in shares:
        if int(share * whole_bytes) > least_bytes:
            yield f"{share:.0%}", int(share * whole_bytes), Objective.LATENCY
    yield "energy", max(whole_bytes // 2, least_bytes), Objective.ENERGY


def measure(part: ChipPart, on: Chip, shares: Sequence[float] = SHARES) -> Iterator[dict]:
    """A row for every plan of a chip part: ``net, part, plan, input, limit KiB, reached KiB, search s, slow, inputs,
    wrong`` (empty: all is well)."""
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
        wrong = _differing(_strict(program, on, inputs), outputs)
        if wrong:
            return wrong
    return ""


def _strict(program, on: Chip, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return Machine(program, on, strict=True).run(inputs).outputs


def _row(part: ChipPart, name: str, stream: bool, limit: int | None, plan, seconds: float, wrong: str) -> dict:
    return {
        **_NOTHING,
        "net": part.net,
        "part": part.symbol,
        "plan": name,
        "input": "streamed" if stream else "resident",
        "limit KiB": None if limit is None else limit / 1024,
        "reached KiB": None if plan is None else plan.activation_bytes / 1024,
        "search s": seconds,
        "slow": "slow" if seconds > SLOW_S else "",
        "inputs": len(part.inputs),
        "wrong": wrong,
    }


def against_tvm(name: str, compiled, count: int) -> dict:
    """A row: the net in whole layers, on the chip and the host, against TVM's build of the same quantized module for
    the CPU."""
    reference, wrong = build_cpu(compiled.lowered), ""
    for feeds in inputs_of(name, compiled, count):
        on_cpu = reference(*compiled.check_inputs(feeds))
        found = compiled.run(feeds).outputs
        wrong = wrong or _differing(found, dict(zip(found, (np.asarray(o) for o in on_cpu), strict=True)))
    return {**_NOTHING, "net": name, "part": "all", "plan": "TVM", "inputs": count, "wrong": wrong}


def measure_slots(
    part: ChipPart, func: relax.Function, on: Chip, codecs: Sequence[Codec] = SLOT_CODECS
) -> Iterator[dict]:
    """A row for every codec and shape of plan with every tensor that can wait in slots that hold anything, and every
    reader reading from them: far more is compressed than any limit asks for. Whole layers with tiles of two rows, least
    memory with single rows (in the engines where they can)."""
    expected = [
        _strict(emit_program(choose(part.graph, on, BIG_MEMORY_BYTES), on), on, inputs) for inputs in part.inputs
    ]
    for codec, rows in itertools.product(codecs, (2, 1)):
        decisions = {
            t.name: Decision(
                codec.name,
                min(rows, t.shape[1]),
                lossless_slot_bytes((min(rows, t.shape[1]), *t.shape[2:])),
                part.graph.producer[t.id].op.out_zp,
                keep_plain=False,
            )
            for t in candidates(part.graph)
        }
        if not decisions:
            return
        graph = from_function(insert(func, decisions), part.symbol)
        graph, objective = (fuse(graph), Objective.MEMORY) if rows == 1 else (graph, Objective.LATENCY)
        for stream in (False, True) if rows == 1 else (False,):
            name = f"slots {codec.name.lower()} {'rows' if rows == 1 else 'whole'}"
            row = _planned(part, streamed(graph) if stream else graph, on, expected, name, BIG_MEMORY_BYTES, objective)[
                1
            ]
            yield {**row, "tensors": len(decisions)}


def measure_compressed(name: str, count: int, samples: int, hows: Sequence[str], quantize) -> Iterator[dict]:
    """A row for every compressed plan of a net: ``auto`` may lose low bits where a tile does not fit (counted),
    ``lossless`` never."""
    whole = compile_net(name, calibration_samples=samples, quantize=quantize, compression="off")
    inputs = inputs_of(name, whole, count + samples)
    expected = [whole.run(feeds).outputs for feeds in inputs[:count]]
    data = {"calibration": inputs[count:]} if name not in evaluation.TASKS or evaluation.TASKS[name].quantized else {}
    for stream in (False, True):
        plain = _peak(
            compile_net(
                name,
                calibration_samples=samples,
                quantize=quantize,
                compression="off",
                objective="memory",
                stream=stream,
            )
        )
        for how in hows:
            options = dict(calibration_samples=samples, quantize=quantize, compression=how, stream=stream, **data)
            least, row = _compressed(name, f"{how} least", inputs[:count], expected, objective="memory", **options)
            yield row
            if least is not None and len(least.programs) == 1 and _peak(least) < plain:
                yield _compressed(name, f"{how} limit", inputs[:count], expected, memory=_peak(least), **options)[1]


def _compressed(name: str, plan: str, inputs: Sequence[dict], expected: Sequence[dict], **options):
    """``(CompiledModel or None, row)``. Every call of the chip is carried out again in strict mode."""
    row = {
        **_NOTHING,
        "net": name,
        "part": "all",
        "plan": plan,
        "input": "streamed" if options["stream"] else "resident",
        "inputs": len(inputs),
    }
    row["limit KiB"] = options["memory"] / 1024 if "memory" in options else None
    start = time.process_time()
    try:
        compiled = compile_net(name, **options)
    except OutOfMemoryError as error:
        return None, {**row, "wrong": f"limit not met: {str(error).splitlines()[0]}"}
    seconds = time.process_time() - start
    wrong, reduced = "", 0
    for feeds, outputs in zip(inputs, expected, strict=True):
        result = compiled.run(feeds)
        reduced += (lost := sum(tensor["reduced"] for tensor in result.compressed))
        wrong = wrong or ("" if lost and plan.startswith("auto") else _differing(result.outputs, outputs))
        wrong = wrong or next(
            (w for c in result.calls if (w := _differing(_strict(c.program, compiled.chip, c.inputs), c.outputs))), ""
        )
    tensors = sum(len(p.meta["compression"]) for p in compiled.programs.values())
    return compiled, {
        **row,
        "reached KiB": _peak(compiled) / 1024,
        "search s": seconds,
        "slow": "slow" if seconds > SLOW_S else "",
        "tensors": tensors,
        "tiles reduced": reduced,
        "wrong": wrong,
    }


def _peak(compiled) -> int:
    """Bytes a chip must have: constants and activations of the largest Program."""
    return max((p.meta["peak_bytes"] for p in compiled.programs.values()), default=0)


def _differing(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> str:
    names = [name for name, value in expected.items() if not np.array_equal(found[name], value)]
    return f"outputs differ: {', '.join(names)}" if names or found.keys() != expected.keys() else ""


_NOTHING = {
    "net": "",
    "part": "",
    "plan": "",
    "input": "resident",
    "limit KiB": None,
    "reached KiB": None,
    "search s": 0.0,
    "slow": "",
    "inputs": 0,
    "tensors": 0,
    "tiles reduced": 0,
    "wrong": "",
}


def rows_of(name: str, arguments) -> Iterator[dict]:
    """All rows of one net."""
    quantize = tvm_ergo.QuantizeOptions(samples=4, attention_on_chip=True)  # bits are compared, not accuracy
    if arguments.compression:
        yield from measure_compressed(name, arguments.inputs, 4, arguments.compression, quantize)
        return
    on = chip("ergo/1").with_memory(BIG_MEMORY_BYTES)
    compiled = compile_net(name, calibration_samples=4, quantize=quantize)
    functions = dict(chip_functions(Partition()(compiled.lowered)))
    if not arguments.slots:
        yield against_tvm(name, compiled, arguments.inputs)
    for part in parts_of(name, compiled, arguments.inputs):
        yield from (
            measure_slots(part, functions[part.symbol], on) if arguments.slots else measure(part, on, arguments.shares)
        )


def main(argv=None) -> None:
    options = parser(__doc__)
    options.add_argument("--inputs", type=int, default=2, metavar="N", help="real inputs per net (default: 2)")
    options.add_argument(
        "--shares",
        type=float,
        nargs="*",
        default=SHARES,
        metavar="X",
        help="limits, as shares of the activation memory of whole layers",
    )
    options.add_argument(
        "--compression",
        nargs="*",
        choices=("auto", "lossless"),
        metavar="HOW",
        help="instead: plans compressed in these ways, auto or lossless",
    )
    options.add_argument(
        "--slots",
        action="store_true",
        help="instead: every tensor that can waits compressed, in slots that hold anything",
    )
    arguments = parse(options, argv)
    rows = []
    for name in arguments.nets or [*TFLITE, *evaluation.TASKS]:
        for row in rows_of(name, arguments):
            rows.append(row)
            print(*(f"{v:.1f}" if isinstance(v, float) else v for v in row.values()), file=sys.stderr, flush=True)
    show("plans against whole layers", rows, arguments.json)
    if any(row["wrong"] for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
