"""Compiled models: bytes of the file, its sections with the checksum made anew, its JSON, its Programs. What is read is
reported, printed as text and run, without its library."""

from __future__ import annotations

import hashlib
import json
import struct
import tempfile
from pathlib import Path

import numpy as np

from fuzz import mutate
from fuzz.engine import Target
from fuzz.targets.nets import small_models
from tvm_ergo import container, load
from tvm_ergo.report.build import build_report
from tvm_ergo.report.html import html_page
from tvm_ergo.target import program

FOLDER = Path(tempfile.mkdtemp(prefix="ergo-fuzz-"))


def seeds() -> list[bytes]:
    return [model.to_bytes() for model in small_models()]


def _sections(data: bytes) -> dict[str, bytes]:
    (FOLDER / "seed.ergo").write_bytes(data)
    return container.read(FOLDER / "seed.ergo")


def _program(rng, data: bytes) -> bytes:
    """Other bytes behind a checksum that is right; half of them in the meta, which is JSON."""
    payload = data[program.HEAD.size :]
    if rng.random() < 0.5:
        (chip,) = struct.unpack_from("<I", payload, 0)
        at = 4 + chip + 8
        (size,) = struct.unpack_from("<I", payload, at)
        meta = json.dumps(mutate.json_value(rng, json.loads(payload[at + 4 : at + 4 + size]))).encode(
            "utf-8", "replace"
        )
        payload = payload[:at] + struct.pack("<I", len(meta)) + meta + payload[at + 4 + size :]
    else:
        payload = mutate.some_bytes(rng, payload)
    digest = hashlib.sha256(program.MAGIC + struct.pack("<HHQ", program.VERSION, 0, len(payload)) + payload).digest()
    return program.HEAD.pack(program.MAGIC, program.VERSION, 0, digest, len(payload)) + payload


def change(rng, seed: bytes, other: bytes) -> bytes:
    if rng.random() < 0.1:
        return mutate.some_bytes(rng, seed, other)
    sections = _sections(seed)
    name = rng.choice(list(sections))
    if name in ("meta", "chain", "places"):
        sections[name] = json.dumps(mutate.json_value(rng, json.loads(sections[name]))).encode("utf-8", "replace")
    elif name.startswith(container.PROGRAM):
        sections[name] = _program(rng, sections[name])
    else:
        sections[name] = mutate.some_bytes(rng, sections[name])
    if rng.random() < 0.05:
        del sections[name]
    return container.packed(sections)


def run(data: bytes) -> None:
    path = FOLDER / "net.ergo"
    path.write_bytes(data)
    model = load(path, programs_only=True)
    for one in model.programs.values():
        one.to_text()
    if model.module is None and model.chain is not None:
        rng = np.random.default_rng(0)
        model.run({i.name: rng.integers(0, 100, i.shape).astype(i.dtype) for i in model.inputs})
    html_page(
        build_report(
            "net", model.programs, model.chip, host=model.fallbacks, inputs=model.inputs, outputs=model.outputs
        )
    )


TARGET = Target(seeds, change, run)
