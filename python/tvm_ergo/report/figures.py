"""How the report writes its figures, and what it derives from them; shared by the terminal and the HTML page."""

from __future__ import annotations

from tvm_ergo.relay_passes.port_scales import meaning
from tvm_ergo.report.model import (
    BufferRow,
    InputRow,
    KindRow,
    PlanReport,
    PortRow,
    PowerRow,
    ProgramReport,
    Report,
    SubproblemRow,
)
from tvm_ergo.target.errors import one_line

KIB = 1024.0
HOST_NOTE = "time and energy are those of the chip alone: the operators on the host CPU are not counted"


def size(count: int) -> str:
    """ "43.3 KiB (44,312 bytes)"; "96 KiB" and "490 bytes" where that says it exactly."""
    if count < KIB:
        return f"{count:,} bytes"
    return f"{count // 1024:,} KiB" if count % 1024 == 0 else f"{count / KIB:,.1f} KiB ({count:,} bytes)"


def memory_text(report: Report) -> tuple[str, str]:
    """What the addresses reach, and of how much: "fits in 96 KiB"."""
    fits = "fits in" if report.memory_bytes <= report.chip_memory_bytes else "DOES NOT FIT in"
    return size(report.memory_bytes), f"{fits} {size(report.chip_memory_bytes)}"


def activation_text(report: Report) -> tuple[str, str]:
    """What the addresses of activations reach, and how much of it is ever alive at one time: gaps between buffers make
    the difference."""
    frame = "rows of the streamed frame included" if report.streamed else "input frame included"
    return size(
        report.placed_activation_bytes
    ), f"{frame}; at most {report.peak_activation_bytes:,} bytes alive at once"


def energy(value_uj: float) -> str:
    """ "103.69 uJ", and two significant digits where that would round to nothing: "0.0025 uJ"."""
    return f"{value_uj:,.2f} uJ" if value_uj >= 0.1 or value_uj == 0 else f"{value_uj:.2g} uJ"


def latency(report: Report) -> str:
    return f"{report.latency_ms:,.4g} ms" if report.latency_ms >= 0.1 else f"{report.latency_ms * 1e3:,.4g} us"


def rate(per_second: float) -> str:
    return f"{per_second:,.0f}" if per_second >= 1000 else f"{per_second:,.1f}"


def idle_mw(report: Report, row: PowerRow) -> float:
    """The part of a frame rate's average power that is not the frames' energy."""
    return row.power_mw - report.energy_uj * row.frames_per_s / 1e3


def input_text(row: InputRow) -> str:
    """ "image 147 KiB, streamed: its rows are received as they are needed, at most 3.5 KiB (3,584 bytes) at once"."""
    if row.streamed:
        return (
            f"{row.name} {size(row.size_bytes)}, streamed: its rows are received as they are needed, at most "
            f"{size(row.held_bytes)} at once"
        )
    return (
        f"{row.name} {size(row.size_bytes)}, in the memory when the chip starts, its last bytes given over to others "
        f"after {row.end_us / 1e3:,.3f} ms"
    )


PORTS = {"input": "takes", "output": "gives", "state": "keeps"}
"""What reports say of a port, by its direction."""


def port_text(row: PortRow) -> str:
    """ "image: int8[1, 32, 32, 3], real = 0.5 * (q + 128)"."""
    return f"{one_line(row.name)}: {row.dtype}{list(row.shape)}{meaning(row.scale, row.zero_point)}"


DYNAMIC = "dynamic uJ"
"""The energy of layers: leakage is of the chip, whatever it does, and in the total only."""
KIND_NAMES = {
    "constant": "weights and other constants",
    "input": "input frame",
    "activation": "activations",
    "compressed": "compressed activations",
    "output": "outputs",
    "scratch": "CPU and scratch",
    "state": "kept between runs",
}


def kind_texts(program: ProgramReport) -> list[tuple[str, str]]:
    """Each kind of content of the unified memory with its own peak. Between constants there are gaps, which count in
    their sum only."""

    def text(row: KindRow) -> str:
        gaps = program.constant_bytes - row.peak_bytes if row.kind == "constant" else 0
        return (f"{row.peak_bytes:,} bytes" if row.peak_bytes else "none") + (
            f" and {gaps:,} to align them" if gaps > 0 and row.peak_bytes else ""
        )

    return [(KIND_NAMES[row.kind], text(row)) for row in program.kinds]


def plan_texts(plan: PlanReport) -> list[tuple[str, str]]:
    """What was decided and why, in a few lines."""
    above = plan.activation_bytes - plan.live_bytes
    lines = [
        ("order", plan.order),
        (
            "addresses",
            f"{plan.live_bytes:,} bytes live at once, {plan.activation_bytes:,} reached"
            + (": no placement needs less" if not above else f", {100 * above / max(plan.live_bytes, 1):.1f} % above"),
        ),
    ]
    if not plan.in_space:
        lines.append(("space", "every layer runs whole: that fits, and nothing is computed twice"))
        return lines
    counts = {how: sum(part.how == how for part in plan.subproblems) for how in ("whole", "rows", "tiles")}
    parts = (
        f"{len(plan.subproblems)} subproblems, of which {counts['rows']} in rows, {counts['tiles']} in tiles, "
        f"{counts['whole']} whole; "
    )
    lines.append(
        (
            "space",
            f"whole layers would need {plan.whole_bytes:,} bytes; "
            f"{parts if plan.subproblems else ''}{plan.mac_overhead:.2f}x MACs, {plan.copied_bytes:,} bytes moved in "
            f"rolling buffers",
        )
    )
    return lines


def subproblem_rows(plan: PlanReport) -> list[tuple[str, str, str, str, str, str, str]]:
    """Layers, how, peak bytes, bytes if whole, MACs, cycles, uJ; neighbours that run whole are one row."""
    rows: list[list[SubproblemRow]] = []
    for part in plan.subproblems:
        if rows and part.how == rows[-1][-1].how == "whole":
            rows[-1].append(part)
        else:
            rows.append([part])
    return [_subproblem_row(parts) for parts in rows]


def _subproblem_row(parts: list[SubproblemRow]) -> tuple[str, str, str, str, str, str, str]:
    layers = list(dict.fromkeys(layer for part in parts for layer in part.layers))
    span = layers[0] if len(layers) == 1 else f"{layers[0]} .. {layers[-1]} ({len(layers)} layers)"
    how = "; ".join(text for part in parts for text in part.decisions) or "whole layers"
    return (
        span,
        how,
        f"{max(p.peak_bytes for p in parts):,}",
        f"{max(p.whole_bytes for p in parts):,}",
        f"{max(p.mac_overhead for p in parts):.2f}x",
        f"{sum(p.cycles for p in parts):,}",
        f"{sum(p.energy_uj for p in parts):,.2f}",
    )


SUBPROBLEM_HEADER = ("layers", "how", "peak bytes", "if whole", "MACs", "cycles", "uJ")
COMPRESSED_HEADER = (
    "tensor",
    "codec",
    "bits/value mean",
    "worst",
    "bytes held",
    "bytes raw",
    "lossy by at most",
    "instructions",
)


def compressed_rows(program: ProgramReport) -> list[tuple[str, str, str, str, str, str, str, str]]:
    return [
        (
            t.name,
            t.codec,
            f"{t.bits_mean:.2f}",
            f"{t.bits_worst:.2f}",
            f"{t.held_bytes:,}",
            f"{t.whole_bytes:,}",
            f"{t.max_error} steps" if t.max_error else "exact",
            f"{t.first} to {t.last}",
        )
        for t in program.tensors
        if t.codec
    ]


def at_peak(program: ProgramReport) -> list[BufferRow]:
    """The buffers (constants apart) alive at the instant with the most live bytes, largest first."""
    live = [row.activation_bytes for row in program.memory_over_time]
    if not live:
        return []
    worst = live.index(max(live))
    alive = [b for b in program.buffers if b.kind != "constant" and b.first <= worst < b.last]
    return sorted(alive, key=lambda b: -b.size_bytes)


def peak_text(program: ProgramReport, most: int = 4) -> str:
    """ "a 36,864 bytes, b 18,432 bytes, ...": what makes the peak, and so what has to become smaller to lower it."""
    alive = at_peak(program)
    names = [f"{b.name} {b.size_bytes:,} bytes" for b in alive[:most]]
    return ", ".join(names + ([f"{len(alive) - most} more"] if len(alive) > most else []))


def host_rows(report: Report, most: int = 6) -> list[tuple[str, str, str, str]]:
    """Node, operator, reason and remedy of what runs on the host; equal ones in one row: "n1, n2, ..., 4 more" and "10
    x take"."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for row in report.host:
        groups.setdefault((row.op, row.reason, row.remedy), []).append(row.name)
    made = []
    for (op, reason, remedy), names in groups.items():
        listed = ", ".join(names[:most] + ([f"{len(names) - most} more"] if len(names) > most else []))
        made.append((listed, op if len(names) == 1 else f"{len(names)} x {op}", reason, remedy))
    return made
