"""Reports as ``compare`` reads them, its conditions, and the options of post-processing."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from fuzz import mutate
from fuzz.engine import Target
from tvm_ergo.card.build import build_card
from tvm_ergo.card.conditions import parse_condition
from tvm_ergo.card.difference import difference_of
from tvm_ergo.card.model import KINDS
from tvm_ergo.card.page import card_page
from tvm_ergo.post import named
from tvm_ergo.report.saved import read_report

FILE = Path(tempfile.mkdtemp(prefix="ergo-fuzz-")) / "report.json"
CONDITIONS = ("memory > 512KiB or host_ops > 0", "latency<3ms and energy >= 1e-3uJ", "macs != .5 or cycles == 7")
POSTS = {"softmax": {"k": "5"}, "yolox": {"score": "0.3", "iou": "0.5"}, "ctc": {}, "ssd": {"score": "0.2"}}


def seeds() -> list[dict]:
    import tvm_ergo
    from tvm_ergo import zoo
    from tvm_ergo.report.build import build_report

    model = tvm_ergo.compile(zoo.DIGITS_MODEL, calibration=zoo.digits()[0][:8])
    report = build_report("digits", model.programs, model.chip, inputs=model.inputs, outputs=model.outputs)
    return [
        {"report": report.model_dump(mode="json"), "condition": condition, "post": post}
        for condition, post in zip(CONDITIONS, POSTS.items())
    ]


def change(rng, seed: dict, other: dict) -> dict:
    kind = rng.randrange(3)
    if kind == 0:
        return {**seed, "report": mutate.json_value(rng, seed["report"])}
    if kind == 1:
        text = mutate.some_bytes(rng, seed["condition"].encode(), other["condition"].encode())
        return {**seed, "condition": text.decode("utf-8", "replace")}
    return {**seed, "post": mutate.json_value(rng, list(other["post"]))}


def run(made: dict) -> None:
    FILE.write_text(json.dumps(made["report"]), encoding="utf-8", errors="replace")
    report = read_report(FILE)
    difference_of(report, report)
    if report.power:
        card = build_card(report)
        card_page(card)
        parse_condition(made["condition"], KINDS).met(card.figures())
    post = made["post"]
    if isinstance(post, (list, tuple)) and len(post) == 2 and isinstance(post[1], dict):
        named(str(post[0]), {str(key): str(value) for key, value in post[1].items()})


TARGET = Target(seeds, change, run)
