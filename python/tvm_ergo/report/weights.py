"""The weights of a program as they stand in the memory, from what codegen left in ``Program.meta``, and how reports
write them."""

from __future__ import annotations

import math
from dataclasses import replace

from tvm_ergo.report.model import ProgramReport, WeightsRow
from tvm_ergo.target.isa import DType, contiguous
from tvm_ergo.target.machine import Trace
from tvm_ergo.target.program import Program

KIB = 1024.0
MUCH = 1 / 3
"""Share of all cycles that decoding may take before reports say so."""
WEIGHTS_HEADER = (
    "layer",
    "codec",
    "shape",
    "density",
    "values",
    "bits/weight",
    "entropy",
    "KiB plain",
    "KiB coded",
    "panels",
)


def weights_rows(program: Program) -> list[WeightsRow]:
    """One row a constant."""
    return [
        WeightsRow(**row, bits_per_weight=8 * row["coded_bytes"] / max(1, math.prod(row["shape"])))
        for row in program.meta.get("weights", ())
    ]


def decoding_cycles(trace: Trace) -> int:
    """Cycles by which instructions take longer because their decoders do not keep up. (The sparse engine computes on
    its form; nothing of that counts here.)"""
    total = 0
    for instruction in trace.program.instructions:
        coded = [name for name in instruction.WEIGHTS if getattr(instruction, name).codec.of_weights]
        if coded:
            plain = {name: contiguous(0, DType.I8, getattr(instruction, name).shape) for name in coded}
            total += max(0, instruction.cost(trace.chip).cycles - replace(instruction, **plain).cost(trace.chip).cycles)
    return total


def weights_text(program: ProgramReport) -> str | None:
    """ "427.8 of 1,215.3 KiB (2.82 bits a weight), 25 of 26 constants coded", and what decoding costs where that is
    much; None without weights."""
    rows = program.weights
    if not rows:
        return None
    plain, stands, count = (
        sum(r.dense_bytes for r in rows),
        sum(r.coded_bytes for r in rows),
        sum(math.prod(r.shape) for r in rows),
    )
    coded = sum(r.codec is not None for r in rows)
    text = (
        f"{stands / KIB:,.1f} of {plain / KIB:,.1f} KiB ({8 * stands / count:.2f} bits a weight), {coded} of "
        f"{len(rows)} constants coded"
    )
    if program.decoding_cycles <= MUCH * program.cycles:
        return text
    return (
        f"{text}; engines wait {program.decoding_cycles:,} cycles for decoders, of {program.cycles:,} in all "
        "(--weights auto codes no more than the memory needs, --weights dense nothing)"
    )


def weights_table(program: ProgramReport) -> list[tuple[str, ...]]:
    """The cells under `WEIGHTS_HEADER`, a row a constant, then their sum."""
    rows = [
        (
            ", ".join(r.layers),
            r.codec or "plain",
            "x".join(map(str, r.shape)),
            f"{100 * r.density:.1f} %",
            f"{r.distinct}",
            f"{r.bits_per_weight:.2f}",
            f"{r.entropy_bits:.2f}",
            f"{r.dense_bytes / KIB:,.1f}",
            f"{r.coded_bytes / KIB:,.1f}",
            f"{r.panels}" if r.codec else "",
        )
        for r in program.weights
    ]
    if not rows:
        return []
    count = sum(math.prod(r.shape) for r in program.weights)
    density = sum(r.density * math.prod(r.shape) for r in program.weights) / count
    stands = sum(r.coded_bytes for r in program.weights)
    return [
        *rows,
        (
            "all",
            "",
            "",
            f"{100 * density:.1f} %",
            "",
            f"{8 * stands / count:.2f}",
            "",
            f"{sum(r.dense_bytes for r in program.weights) / KIB:,.1f}",
            f"{stands / KIB:,.1f}",
            "",
        ),
    ]
