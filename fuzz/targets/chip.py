"""Chip files, and what a chip's target option says."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from fuzz import mutate
from fuzz.engine import Target
from tvm_ergo.target.chip import chip, load_chip

FILE = Path(tempfile.mkdtemp(prefix="ergo-fuzz-")) / "chip.json"


def change(rng, seed: bytes, other: bytes) -> bytes:
    if rng.random() < 0.3:
        return mutate.some_bytes(rng, seed, other)
    return json.dumps(mutate.json_value(rng, json.loads(seed))).encode("utf-8", "replace")


def run(data: bytes) -> None:
    FILE.write_bytes(data)
    found = load_chip(FILE)
    found.to_json()
    for point in found.points:
        found.leakage_pj(1000, point)


TARGET = Target(lambda: [json.dumps(chip(name).to_json()).encode() for name in ("ergo/1", "ergo/2")], change, run)
