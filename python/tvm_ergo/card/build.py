"""From a report, and what was measured on labelled data, to a card."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from tvm_ergo.card.model import Card, MeasuredRow, PeerRow, PeersRow
from tvm_ergo.report.model import Report

PEERS = Path(__file__).with_name("peers.json")
MACS_APART = 0.1
"""A network is taken for a reference whose multiply-accumulates differ by at most this share: rows computed again, and
padding that is or is not counted, make such differences."""


def build_card(report: Report, measured: Iterable[MeasuredRow] = ()) -> Card:
    """The card of one report. The power is that at the report's last frame rate."""
    power = report.power[-1]
    accuracy = report.accuracy
    return Card(
        model=report.model,
        chip=report.chip,
        chip_memory_bytes=report.chip_memory_bytes,
        fits=report.memory_bytes <= report.chip_memory_bytes,
        whole=not report.host,
        host=report.host,
        memory_bytes=report.memory_bytes,
        constant_bytes=report.constant_bytes,
        activation_bytes=report.placed_activation_bytes,
        macs=report.macs,
        cycles=report.cycles,
        latency_us=report.latency_ms * 1e3,
        inferences_per_s=report.inferences_per_s,
        energy_uj=report.energy_uj,
        frames_per_s=power.frames_per_s,
        power_mw=power.power_mw,
        gated_mw=power.gated_mw,
        sleep=next((row for row in report.sleep if row.chosen and row.frames_per_s == power.frames_per_s), None),
        battery=next((row for row in report.battery if row.frames_per_s == power.frames_per_s), None),
        loss=None if accuracy is None else accuracy.loss,
        loss_samples=None if accuracy is None else accuracy.samples,
        measured=list(measured),
        peers=peers_of(report),
    )


@cache
def _known() -> dict:
    return json.loads(PEERS.read_text(encoding="utf-8"))


def peers_of(report: Report) -> PeersRow | None:
    """Published figures of the network that this one looks like: the same values in and out, as many
    multiply-accumulates. None where it looks like none, or a part of it is not on the chip."""
    if report.host:
        return None
    sizes = [
        [math.prod(port.shape) for port in report.ports if port.direction == direction]
        for direction in ("input", "output")
    ]
    for row in _known()["networks"]:
        alike = sizes == [[row["inputs"]], [row["outputs"]]]
        if alike and abs(report.macs - row["macs"]) <= MACS_APART * row["macs"]:
            return PeersRow(
                network=row["name"],
                source=_known()["source"],
                note=_known()["note"],
                rows=[PeerRow(device=device, energy_uj=value) for device, value in row["energy_uj"].items()],
            )
    return None


def measured_rows(rows: Iterable[dict]) -> list[MeasuredRow]:
    """From what `tvm-ergo eval` measures (``cli.eval_command.measure``): one row a test, chip beside float."""
    rows = list(rows)
    found = []
    for row in rows:
        if row["network"] == "float":
            continue
        beside = next((r for r in rows if r["network"] == "float" and r["test"] == row["test"]), None)
        name = row["primary"]
        reference = beside["figures"] if beside else row["float reference"] if row["loss"] is not None else {}
        drop = row["loss"]
        if beside is not None and drop is None:
            drop = (beside["figures"][name] - row["figures"][name]) * (1 if row["higher_is_better"] else -1)
        found.append(
            MeasuredRow(
                test=row["test"],
                samples=row["samples"],
                figure=name,
                chip=row["figures"][name],
                float_network=reference.get(name),
                drop=drop,
            )
        )
    return found
