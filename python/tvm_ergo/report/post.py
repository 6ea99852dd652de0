"""What a report says of post-processing behind a network."""

from __future__ import annotations

from collections.abc import Iterable

from tvm_ergo.report.model import PostRow, Report
from tvm_ergo.target.machine.trace import Trace
from tvm_ergo.target.program import BufferKind

PJ_PER_UJ = 1e6
LAYER = "post"
"""The layer that the calls' nodes name (`codegen.post.attach`)."""


def post_row(traces: Iterable[Trace]) -> PostRow | None:
    """Of the Program that has it; None where none does."""
    for trace in traces:
        about = trace.program.meta.get("post")
        if about is None:
            continue
        rows = [row for row in trace.by_node if row.layer == LAYER and row.op.startswith("post.")]
        buffers = [b for b in trace.program.buffers if b.name.startswith("post_") or b.name.endswith("_kept")]
        return PostRow(
            name=str(about["name"]),
            options={str(key): value for key, value in dict(about["options"]).items()},
            outputs={str(key): str(value) for key, value in dict(about["outputs"]).items()},
            cycles=sum(row.cycles for row in rows),
            energy_uj=sum(row.energy_pj for row in rows) / PJ_PER_UJ,
            constant_bytes=sum(b.size_bytes for b in buffers if b.kind == BufferKind.CONSTANT),
            scratch_bytes=sum(b.size_bytes for b in buffers if b.kind == BufferKind.SCRATCH),
        )
    return None


def post_lines(report: Report) -> list[tuple[str, str]]:
    """``(heading, text)`` for the terminal and the page."""
    row = report.post
    if row is None:
        return []
    options = ", ".join(f"{name} {_shown(value)}" for name, value in row.options.items() if value is not None)
    text = f"{row.name} on the chip's CPU" + (f" ({options})" if options else "")
    cost = (
        f"at most {row.cycles:,} cycles and {row.energy_uj:,.2f} uJ of the above, "
        f"{row.scratch_bytes:,} bytes of scratch, {row.constant_bytes:,} of constants"
    )
    return [("post", text), ("", cost), *(("", f"{name}: {unit}") for name, unit in row.outputs.items())]


def _shown(value) -> str:
    return ", ".join(f"{v:g}" for v in value) if isinstance(value, (list, tuple)) else str(value)
