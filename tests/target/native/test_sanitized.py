"""Every instruction as a Program of its own, and mutated Programs, under the sanitizers: the same outputs as NumPy,
or refused."""

from __future__ import annotations

import hashlib
import random
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tvm_ergo.target.errors import ErgoError
from tvm_ergo.target.isa import DType, Halt, contiguous
from tvm_ergo.target.machine import Machine
from tvm_ergo.target.program import HEAD, MAGIC, Port, Program

from .executed import by_numpy
from .instructions import BUILDERS, scenes
from .sanitized import compiler, hashed, results, samples
from .scene import MEMORY_BYTES

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler: apt-get install gcc")
WORK = 1 << 22  # elements of the largest operand of a mutated Program that is still run


def drawn(kind: str, count: int) -> list:
    """So many scenes of a kind."""
    found = []

    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(scenes(kind))
    def collect(scene):
        found.append(scene)

    collect()
    return found[:count]


def alone(memory, instruction) -> Program:
    """A Program that loads all of the memory, executes one instruction and gives all of the memory back."""
    inputs = (
        [Port(f"in{number}", contiguous(0, DType.I8, (2000,)), True) for number in (0, 1)] if memory.streams else []
    )
    whole = contiguous(0, DType.U8, (MEMORY_BYTES,))
    return Program(
        chip_name="",
        instructions=[instruction, Halt()],
        data=[(0, memory.bytes.tobytes())],
        inputs=inputs,
        outputs=[Port("all", whole)],
        memory_bytes=MEMORY_BYTES,
    )


@pytest.mark.parametrize("kind", BUILDERS)
def test_every_instruction(kind, tmp_path):
    found = drawn(kind, 12)
    expected = []
    for memory, instruction in found:
        program = alone(memory, instruction)
        memory.streams = {number: array for number, array in enumerate(samples(program).values())}
        expected.append(hashed([by_numpy(memory, instruction)[0]]))
    assert results([alone(*scene).to_bytes() for scene in found], tmp_path) == expected


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed behind the header, the checksum made right again."""
    payload = bytearray(data[HEAD.size :])
    begin = 0 if rng.random() < 0.5 else max(0, len(payload) - 400)  # instructions stand last
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(begin, len(payload))
        payload[at] = rng.choice([0, 1, 2, 127, 128, 255, payload[at] ^ 1 << rng.randrange(8)])
    head = struct.pack("<HHQ", 2, 0, len(payload))
    digest = hashlib.sha256(MAGIC + head[:4] + head[4:] + payload).digest()
    return MAGIC + head[:4] + digest + head[4:] + bytes(payload)


def small(program: Program) -> bool:
    operands = [o for i in program.instructions for o in i.reads() + i.writes()] + [
        p.operand for p in program.inputs + program.outputs
    ]
    return program.memory_bytes <= 1 << 24 and all(o.elements <= WORK for o in operands)


@pytest.mark.parametrize("kind", [kind for kind in BUILDERS if kind not in {"maxmin", "copy", "fill", "requantize"}])
def test_mutated_programs(kind, tmp_path):
    rng, cases = random.Random(kind), []
    for memory, instruction in drawn(kind, 3):
        extent = max(o.extent[1] for o in instruction.reads() + instruction.writes())
        written = instruction.writes()[0].stored
        inputs = (
            [Port(f"in{number}", contiguous(0, DType.I8, (2000,)), True) for number in (0, 1)] if memory.streams else []
        )
        program = Program(
            chip_name="ergo/1",
            instructions=[instruction, Halt()],
            data=[(0, memory.bytes[:extent].tobytes())],
            inputs=inputs,
            outputs=[Port("y", written)],
            memory_bytes=extent,
        )
        cases += [mutated(program.to_bytes(), rng) for _ in range(60)]
    taken, expected = [], []
    for data in cases:
        try:
            program = Program.from_bytes(data)
            if not small(program):
                continue
            outputs = Machine(program, native=False).run(samples(program)).outputs
            expected.append(hashed([outputs[port.name] for port in program.outputs]))
        except ErgoError:
            expected.append(None)  # NumPy refuses it: whatever the runtime says, it must not do harm
        taken.append(data)
    for found, wanted in zip(results(taken, tmp_path), expected, strict=True):
        assert wanted is None or found == wanted or found.startswith("ERGO_"), (found, wanted)
    assert any(wanted is not None for wanted in expected)


def test_programs_that_are_not(tmp_path):
    good = Program(
        chip_name="ergo/1", instructions=[Halt()], data=[], inputs=[], outputs=[], memory_bytes=16
    ).to_bytes()
    other = good[:4] + b"\x09" + good[5:]
    cases = {
        b"": "ERGO_NOT_A_PROGRAM",
        b"GIF8" + good[4:]: "ERGO_NOT_A_PROGRAM",
        good[:20]: "ERGO_TRUNCATED",
        good[:-1]: "ERGO_TRUNCATED",
        good + b"\0": "ERGO_TRUNCATED",
        other: "ERGO_WRONG_VERSION",
        good[:-1] + bytes([good[-1] ^ 1]): "ERGO_CHECKSUM",
    }
    assert results(list(cases), tmp_path) == list(cases.values())
    assert results([good], tmp_path) == [hashed([])]


def test_hash_is_the_harness_one():
    assert hashed([np.array([1], np.uint8)]) == f"{(0xCBF29CE484222325 ^ 1) * 0x100000001B3 & (1 << 64) - 1:016x}"
