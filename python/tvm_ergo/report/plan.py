"""What was decided about the memory and why: order in time, subproblems, rows and tiles, from what codegen left in
``Program.meta``."""

from __future__ import annotations

from tvm_ergo.report.model import PlanReport, SubproblemRow
from tvm_ergo.target.program import Program

PJ_PER_UJ = 1e6


def plan_report(program: Program) -> PlanReport | None:
    """None for a Program that codegen did not make."""
    meta = program.meta
    if "live_bytes" not in meta:
        return None
    space = meta.get("space")
    return PlanReport(
        limit_bytes=program.memory_bytes,
        live_bytes=meta["live_bytes"],
        activation_bytes=meta["activation_bytes"],
        whole_bytes=meta["bound_bytes"],
        least_bytes=meta.get("least_bytes", 0),
        least_reason=meta.get("least_reason", ""),
        order=order_text(meta),
        in_space=space is not None,
        mac_overhead=space["mac_overhead"] if space else 1.0,
        copied_bytes=space["copied_bytes"] if space else 0,
        subproblems=[_subproblem(part) for part in space.get("subproblems", ())] if space else [],
    )


def order_text(meta: dict) -> str:
    """How good the order of layers is, as far as it is known."""
    live, bound = meta["live_bytes"], meta.get("order_bound_bytes")
    if meta.get("space") or bound is None:
        least = meta.get("least_bytes", 0)
        if live <= least:
            return "optimal: no order in time and space has fewer live bytes"
        return f"no order in time and space goes below {least:,} live bytes ({meta.get('least_reason', 'unknown')})"
    if meta.get("order_optimal"):
        return f"optimal: no order of whole layers has fewer live bytes than {bound:,}"
    return (
        f"within {100 * (live / bound - 1):.1f} % of the {bound:,} live bytes that no order of whole layers goes below"
        if bound
        else "bound unknown"
    )


def _subproblem(part: dict) -> SubproblemRow:
    return SubproblemRow(
        layers=part["layers"],
        how=part["how"],
        decisions=[
            *(_stage_text(stage, part["layers"]) for stage in part["stages"]),
            *_rows_texts(part["rolling_rows"]),
        ],
        peak_bytes=part["peak_bytes"],
        whole_bytes=part["whole_bytes"],
        cycles=part["cycles"],
        energy_uj=part["energy_pj"] / PJ_PER_UJ,
        mac_overhead=part["mac_overhead"],
        ways=part["ways"],
    )


def _stage_text(stage: dict, all_layers: list[str]) -> str:
    """ "a .. b (4 layers) in tiles of 2 of 56 rows x 14 columns"; only "all in tiles of ..." where these are all layers
    of the subproblem."""
    layers = stage["layers"]
    tile = f"{min(stage['rows'], stage['of_rows'])} of {stage['of_rows']} rows"
    tile += f" x {stage['columns']} columns" if stage["columns"] else ""
    tile += f" x {stage['channels']} channels" if stage["channels"] else ""
    span = (
        "all"
        if layers == all_layers
        else f"{layers[0]} .. {layers[-1]} ({len(layers)} layers)"
        if len(layers) > 1
        else layers[0]
    )
    return (
        f"{span} in one tile"
        if stage["rows"] >= stage["of_rows"] and not stage["columns"] and not stage["channels"]
        else f"{span} in tiles of {tile}"
    )


def _rows_texts(rolling: dict[str, int]) -> list[str]:
    """Layers that roll with equally many rows a step, together."""
    by_rows: dict[int, list[str]] = {}
    for layer, rows in rolling.items():
        by_rows.setdefault(rows, []).append(layer)
    return [
        f"{layers[0]}{f' and {len(layers) - 1} more' if len(layers) > 1 else ''} rolling, {rows} "
        f"row{'s' * (rows > 1)} a step"
        for rows, layers in by_rows.items()
    ]
