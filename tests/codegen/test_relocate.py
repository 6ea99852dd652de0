"""Several Programs in one memory: constants apart, one activation area, the same results."""

from random import Random

import numpy as np
import pytest

from tvm_ergo.codegen.compile import compile_function
from tvm_ergo.codegen.relocate import share_memory
from tvm_ergo.codegen.testing import RandomFunction
from tvm_ergo.target.chip import chip
from tvm_ergo.target.errors import OutOfMemoryError
from tvm_ergo.target.machine import Machine
from tvm_ergo.target.program import BufferKind


def random_programs(seed: int, count: int) -> dict:
    programs = {}
    for i in range(count):
        func = RandomFunction(Random(100 * seed + i), 2).grow(6).finish(2)["main"]
        programs[f"part{i}"] = compile_function(func, chip("ergo"))
    return programs


@pytest.mark.parametrize("seed", range(6))
def test_moved_programs_compute_the_same(seed):
    programs = random_programs(seed, 3)
    moved = share_memory(programs, chip("ergo").memory_bytes)
    constants = sorted(
        (b.addr, b.addr + b.size_bytes)
        for p in moved.values()
        for b in {(c.addr, c.size_bytes): c for c in p.buffers if c.kind == BufferKind.CONSTANT}.values()
    )
    assert all(end <= begin for (_, end), (begin, _) in zip(constants, constants[1:]))
    top = constants[-1][1] if constants else 0
    for name, program in moved.items():
        assert all(b.addr >= top for b in program.buffers if b.kind != BufferKind.CONSTANT)
        rng = np.random.default_rng(seed)
        inputs = {
            p.name: rng.integers(-128, 128, p.operand.shape).astype(p.operand.dtype.numpy) for p in program.inputs
        }
        expected, got = Machine(programs[name], strict=True).run(inputs), Machine(program, strict=True).run(inputs)
        assert expected.outputs.keys() == got.outputs.keys()
        for port in expected.outputs:
            np.testing.assert_array_equal(expected.outputs[port], got.outputs[port])


def test_all_constants_count():
    programs = random_programs(1, 3)
    alone = max(p.meta["peak_bytes"] for p in programs.values())
    with pytest.raises(OutOfMemoryError) as caught:
        share_memory(programs, alone)
    assert "together" in str(caught.value) and "remedy" in str(caught.value)


def test_one_program_stays_as_it_is():
    programs = random_programs(2, 1)
    assert share_memory(programs, 1) == programs
