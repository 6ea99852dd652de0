"""The memory map as rows: who holds which bytes when, what is the frame's, what waits compressed and what it would take
otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tvm_ergo.report.model import BufferRow, KindRow, TensorRow
from tvm_ergo.target.program import BufferKind, Program

KINDS = ("constant", "input", "activation", "compressed", "output", "scratch", "state")


def buffer_rows(program: Program, frames: set[str], time_us: Callable[[int], float]) -> list[BufferRow]:
    """frames : names of buffers that hold rows of a streamed frame; they count as input."""
    coded = compressed_rows(program)
    rows = []
    for b in program.buffers:
        found = _coded(b.name, coded)
        kind = b.kind.name.lower()
        if b.kind == BufferKind.ACTIVATION and (found or b.name in frames):
            kind = "compressed" if found else "input"
        raw = b.size_bytes * found["raw_bytes"] // max(found["stored_bytes"], 1) if found else b.size_bytes
        rows.append(
            BufferRow(
                name=b.name,
                kind=kind,
                address_bytes=b.addr,
                size_bytes=b.size_bytes,
                raw_bytes=raw,
                first=b.first,
                last=b.last,
                start_us=time_us(b.first),
                end_us=time_us(b.last),
            )
        )
    return rows


def compressed_rows(program: Program) -> list[dict]:
    """What the compiler left of compressed tensors (``Program.meta["compression"]``); none where nothing is
    compressed."""
    return list(program.meta.get("compression") or ())


def _coded(name: str, coded: Sequence[dict]) -> dict | None:
    """The compressed tensor whose slots a buffer holds."""
    return next(
        (
            row
            for row in coded
            if name == row["name"] + "_slots"
            or name.startswith(row["name"] + "_slots")
            and name[len(row["name"]) + len("_slots") :].isdecimal()
        ),
        None,
    )


def kind_rows(buffers: Sequence[BufferRow], count: int) -> list[KindRow]:
    """The most bytes of each kind at one time, in a program of ``count`` instructions; kinds without buffers are left
    out, but for scratch."""
    rows = []
    for kind in KINDS:
        mine = [b for b in buffers if b.kind == kind]
        if mine or kind == "scratch":
            rows.append(
                KindRow(
                    kind=kind,
                    peak_bytes=int(bytes_over_time(mine, count).max(initial=0)),
                    buffers=len({b.name for b in mine}),
                )
            )
    return rows


def bytes_over_time(buffers: Sequence[BufferRow], count: int, raw: bool = False) -> np.ndarray:
    """int64[count]: bytes of these buffers while each instruction runs. raw : what compressed ones would take."""
    steps = np.zeros(count + 1, np.int64)
    for b in buffers:
        size = b.raw_bytes if raw else b.size_bytes
        steps[min(b.first, count)] += size
        steps[min(b.last, count)] -= size
    return steps.cumsum()[:count]


def tensor_rows(program: Program, buffers: Sequence[BufferRow]) -> list[TensorRow]:
    """One row a tensor that has bytes of its own (constants apart), in order of appearance."""
    coded, count = compressed_rows(program), len(program.instructions)
    sizes = (program.meta.get("space") or {}).get("sizes", {})
    names = dict.fromkeys(b.name for b in buffers if b.kind != "constant")
    rows = []
    for name in names:
        mine = [b for b in buffers if b.name == name and b.kind != "constant"]
        held, found = int(bytes_over_time(mine, count).max(initial=0)), _coded(name, coded)
        rows.append(
            TensorRow(
                name=found["name"] if found else name,
                kind=mine[0].kind,
                held_bytes=held,
                whole_bytes=found["raw_bytes"] if found else max(sizes.get(name, held), held),
                first=min(b.first for b in mine),
                last=max(b.last for b in mine),
                codec=found["codec"] if found else None,
                bits_mean=found["bits_mean"] if found else None,
                bits_worst=found["bits_worst"] if found else None,
                max_error=found["max_error"] if found else None,
            )
        )
    return sorted(rows, key=lambda row: (row.first, row.last))
