"""Folders of tuning results: manifest, plans (their digest made anew) and trials; what is read is carried out."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import tvm_ergo
from fuzz import mutate
from fuzz.engine import Target
from fuzz.targets.nets import function_of, two_convolutions
from tvm_ergo.codegen.tuning.log import Log
from tvm_ergo.tuning.store import digest_of

FOLDER = Path(tempfile.mkdtemp(prefix="ergo-fuzz-"))
NAMES = ("manifest.json", "best.json", "trials.jsonl")
NET = function_of((1, 12, 12, 3), "int8", two_convolutions)


def seeds() -> list[dict]:
    made = FOLDER / "seed"
    tvm_ergo.tune(NET, out=made, memory=2048, trials=8)
    return [{name: (made / name).read_text() for name in NAMES}]


def change(rng, seed: dict, other: dict) -> dict:
    name, made = rng.choice(NAMES), dict(seed)
    if rng.random() < 0.2:
        made[name] = mutate.some_bytes(rng, made[name].encode()).decode("utf-8", "replace")
    elif name == "trials.jsonl":
        lines = made[name].splitlines(keepends=True)
        at = rng.randrange(len(lines))
        lines[at] = json.dumps(mutate.json_value(rng, json.loads(lines[at]))) + "\n"
        made[name] = "".join(lines)
    else:
        value = mutate.json_value(rng, json.loads(made[name]))
        if name == "best.json" and isinstance(value, dict) and "functions" in value and rng.random() < 0.9:
            value["digest"] = digest_of(value["functions"])
        made[name] = json.dumps(value)
    return made


def run(files: dict) -> None:
    folder = FOLDER / "forged"
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", errors="replace")
    Log(folder / "trials.jsonl", resume=True)
    tvm_ergo.compile(NET, memory=2048, database=folder)


TARGET = Target(seeds, change, run)
