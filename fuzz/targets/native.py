"""Programs of one instruction each in the native runtime that the sanitizers watch: their bytes are others behind a
right checksum; what validates is run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from fuzz import mutate, sanitized
from fuzz.engine import Target

sanitized.use()

from tvm_ergo.target.chip import chip  # noqa: E402  after the libraries are chosen
from tvm_ergo.target.isa import Halt  # noqa: E402
from tvm_ergo.target.isa import decode as decoded  # noqa: E402
from tvm_ergo.target.machine import Machine  # noqa: E402
from tvm_ergo.target.program import Port, Program  # noqa: E402

CHIP = chip("ergo/1")
SAMPLES = Path(__file__).resolve().parents[2] / "tests" / "target" / "isa_samples.py"


def seeds() -> list[bytes]:
    """Encoded instructions, one of each kind and form."""
    spec = importlib.util.spec_from_file_location("isa_samples", SAMPLES)
    samples = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(samples)
    found = []
    for instruction in samples.samples().values():
        try:
            run(instruction.encode())
        except Exception:  # one that needs ports, or data of its own
            continue
        found.append(instruction.encode())
    return found


def run(data: bytes) -> None:
    instruction, end = decoded(data, 0)
    if end != len(data):
        return
    content = np.random.default_rng(0).integers(0, 256, 1 << 16, np.uint8).tobytes()
    outputs = [Port(f"o{number}", operand) for number, operand in enumerate(instruction.writes())]
    program = Program(CHIP.name, [instruction, Halt()], [(0, content)], [], outputs, 1 << 16)
    Machine(program, CHIP).run({})


TARGET = Target(seeds, mutate.some_bytes, run, limited=False)
