"""The stage that compresses tensors while they wait: whether that is needed, measuring them on calibration data, and
the decided plans.

Measuring runs the uncompressed network once on each calibration input, on the emulated chip with memory enough.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.codegen.compression import Collector, compress, needs_compression, rows_of
from tvm_ergo.codegen.graph import Graph
from tvm_ergo.codegen.plan import make_plan
from tvm_ergo.codegen.runtime.recording import watch
from tvm_ergo.codegen.space.bound import least_possible_bytes
from tvm_ergo.codegen.stream import graph_of
from tvm_ergo.relay_passes import compat
from tvm_ergo.relay_passes.compile.partition import chip_functions
from tvm_ergo.relay_passes.micro.calibrate import samples_of
from tvm_ergo.target.tags import target_of_chip
from tvm_ergo.tuning.store import undecided

if TYPE_CHECKING:
    from tvm_ergo.pipeline import PipelineOptions

MOST_SAMPLES, FEWEST_SAMPLES = 32, 4
MEASURED_VALUES = 16_000_000
"""Values coded for statistics, about: networks of large tensors are measured on fewer inputs."""
NO_LIMIT = 1 << 40
LEAST = "ergo_compression_least"
"""Attribute of a chip function that compression did not make fit: bytes of memory with which it does."""


class Compression(Enum):
    """What may be compressed while it waits. LOSSLESS reserves the worst case for every tile."""

    AUTO = "auto"
    OFF = "off"
    LOSSLESS = "lossless"


def compress_waiting(mod: tvm.IRModule, options: PipelineOptions, collector: Collector | None = None) -> tvm.IRModule:
    """A partitioned module with compression in the chip functions that need it and gain by it, each with its decided
    plan.

    collector : statistics of the tensors (`measure`); measured here where they are needed and there are none.
    """
    if options.compression is Compression.OFF:
        return mod
    functions = undecided(mod)
    limits = _limits(functions, options)
    wanting = [
        name
        for name, func in functions.items()
        if limits[name] > 0 and needs_compression(func, options.chip, limits[name], options.objective)
    ]
    if not wanting:
        return mod
    if options.calibration is None:
        return mod  # code generation says so where it does not fit (`compression_advice`)
    collector = collector or measure(mod, {name: functions[name] for name in wanting}, options)
    mod = mod.clone()
    for name in wanting:
        statistics = collector.statistics(name)
        found, least_bytes = compress(
            functions[name],
            options.chip,
            limits[name],
            options.objective,
            statistics,
            lossless=options.compression is Compression.LOSSLESS,
        )
        if found is not None:
            mod[mod.get_global_var(name)] = found.annotated(rows_of(found.decisions, statistics))
        elif least_bytes > limits[name]:  # for the message
            mod[mod.get_global_var(name)] = functions[name].with_attr(
                LEAST, options.chip.memory_bytes - limits[name] + least_bytes
            )
    return relax.transform.Normalize()(mod)


def _limits(functions: dict[str, relax.Function], options: PipelineOptions) -> dict[str, int]:
    """Memory each chip function may take: the constants of all exist at once. Nothing where these alone exceed it:
    compression cannot help."""
    constants = {name: make_plan(graph_of(func), NO_LIMIT).constant_bytes for name, func in functions.items()}
    together = sum(constants.values())
    if together >= options.chip.memory_bytes:
        return dict.fromkeys(functions, 0)
    return {name: options.chip.memory_bytes - (together - constants[name]) for name in functions}


def compression_advice(functions: dict[str, relax.Function], options: PipelineOptions) -> str | None:
    """For networks that do not fit: what compression might do or did; None where it can do nothing.

    It makes no constant smaller, nor the frame or the outputs, nor what an operator reads or writes that only runs
    whole; and there has to be a tensor between layers."""
    if not any(
        limit > 0 and _might_help(graph_of(functions[name]), limit)
        for name, limit in _limits(functions, options).items()
    ):
        return None
    if options.compression is Compression.OFF:
        return (
            'compression of what waits was off: compression="auto" (--compression auto) with calibration data might do'
        )
    if options.calibration is None:
        return (
            "with calibration data (calibration=..., --calibration) tensors that wait are measured and compressed, "
            "with a bound: whether that is enough shows only then"
        )
    least = max(
        (int(func.attrs[LEAST]) for func in functions.values() if func.attrs is not None and LEAST in func.attrs),
        default=None,
    )
    reached = "" if least is None else f": the least with it is --memory {least}"
    if options.compression is Compression.LOSSLESS:
        return (
            f'compression with room for the worst case was tried and is not enough{reached}; compression="auto" '
            f"(--compression auto) saves more"
        )
    return f"compression of what waits was tried on the calibration data and is not enough{reached}"


def _might_help(graph: Graph, limit_bytes: int) -> bool:
    plan = make_plan(graph, NO_LIMIT)
    between = [
        t for node in graph.nodes for t in node.outputs if t not in graph.outputs and len(graph.tensors[t].shape) == 4
    ]
    return (
        bool(between)
        and least_possible_bytes(graph).size_bytes <= limit_bytes - plan.constant_bytes < plan.activation_bytes
    )


def measure(mod: tvm.IRModule, functions: dict[str, relax.Function], options: PipelineOptions) -> Collector:
    """Statistics of the functions' tensors over the calibration data."""
    from tvm_ergo.pipeline import host_build, run_stages  # it lists this stage

    graphs = {name: graph_of(func, name) for name, func in functions.items()}
    collector = Collector(graphs)
    roomy = _roomy(mod, options)
    with host_build():
        executable = relax.build(
            run_stages(mod, roomy, start="codegen"), target_of_chip(roomy.chip), relax_pipeline=None
        )
        machine = relax.VirtualMachine(executable.jit(), tvm.cpu())
    count = int(np.clip(MEASURED_VALUES // max(collector.values, 1), FEWEST_SAMPLES, MOST_SAMPLES))
    for number, sample in enumerate(samples_of(mod, options.calibration, count)):
        if options.progress:
            options.progress("measure tensors", number, count)
        with watch(collector):
            compat.flatten_result(
                machine["main"](*[tvm.runtime.tensor(np.ascontiguousarray(array)) for array in sample.values()])
            )
    return collector


def _roomy(mod: tvm.IRModule, options: PipelineOptions) -> PipelineOptions:
    """The options for a chip in whose memory all functions fit with whole layers."""
    from dataclasses import replace

    from tvm_ergo.codegen.space import Objective

    plans = [make_plan(graph_of(func), NO_LIMIT) for _, func in chip_functions(mod)]
    needed = sum(p.constant_bytes + 64 for p in plans) + max(p.activation_bytes for p in plans)
    return replace(
        options,
        chip=options.chip.with_memory(max(needed, options.chip.memory_bytes)),
        compression=Compression.OFF,
        objective=Objective.LATENCY,
        progress=None,
    )
