"""SPMV: bit for bit the dense convolution, what it takes with what input, matrices nobody stored."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.target import numerics
from tvm_ergo.target.chip import chip
from tvm_ergo.target.codecs.eie import EieFormat, Pointers, encode
from tvm_ergo.target.errors import MachineError, ProgramError
from tvm_ergo.target.events import Event
from tvm_ergo.target.isa import DType, Engine, Halt, Operand, Spmv, contiguous
from tvm_ergo.target.machine import Machine, Trace, kernels
from tvm_ergo.target.program import Port, Program
from tvm_ergo.target.sparse.form import stored
from tvm_ergo.target.sparse.timing import Timing, Work

CHIP = chip("ergo/1")


def random_matrix(rng, outputs, inputs, density, values=15):
    table = np.setdiff1d(rng.integers(-128, 128, values), 0).astype(np.int8)
    return np.where(
        rng.random((outputs, inputs)) < density, table[rng.integers(0, table.size, (outputs, inputs))], 0
    ).astype(np.int8)


def parameters(rng, outputs):
    return (
        rng.integers(-(2**15), 2**15, outputs).astype(np.int32),
        rng.integers(2**23, 2**24, outputs).astype(np.int32),
        np.full(outputs, 33, np.int8),
    )


def program_of(matrix, vectors, rng, expected=350, out_dtype=DType.I8, data=None, **fields):
    """One SPMV; the matrix's bytes, then bias, mult, shift, input, output."""
    outputs, inputs = matrix.shape
    data = matrix.data if data is None else data
    sections, addr = [], 0
    for content in (data, *(a.tobytes() for a in parameters(rng, outputs))):
        sections.append((addr, content))
        addr += -(-len(content) // 16) * 16
    x, out = (
        contiguous(addr, "int8", (vectors, inputs)),
        Operand(
            addr + vectors * inputs // 16 * 16 + 16,
            out_dtype,
            (vectors, outputs),
            ((outputs + 3) * out_dtype.itemsize, out_dtype.itemsize),
        ),
    )
    spmv = Spmv(
        x=x,
        w=contiguous(0, "uint8", (len(data),)),
        bias=contiguous(sections[1][0], "int32", (outputs,)),
        mult=contiguous(sections[2][0], "int32", (outputs,)),
        shift=contiguous(sections[3][0], "int8", (outputs,)),
        out=out,
        in_zp=fields.get("in_zp", -128),
        out_zp=fields.get("out_zp", 3),
        lo=-100,
        hi=120,
        entries=matrix.entries,
        entry_bits=matrix.format.entry_bits,
        columns_per_word=matrix.columns_per_word if matrix.format.pointers is Pointers.WORDS else 0,
        expected=expected,
    )
    return Program(
        chip_name="ergo/1",
        instructions=[spmv, Halt()],
        data=sections,
        inputs=[Port("x", x)],
        outputs=[Port("y", out)],
        memory_bytes=out.extent[1] + 64,
    )


def inputs_of(rng, vectors, inputs, zero, density):
    return np.where(rng.random((vectors, inputs)) < density, rng.integers(-128, 128, (vectors, inputs)), zero).astype(
        np.int8
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_equals_the_dense_convolution(seed):
    """Random shapes, densities, formats, places of rows, zero points; int8 and raw sums; on the strict machine, through
    bytes and text."""
    rng = np.random.default_rng(seed)
    outputs, inputs, vectors = (int(n) for n in rng.integers(1, (200, 90, 4)))
    dense, zero, out_zp = (
        random_matrix(rng, outputs, inputs, rng.random()),
        int(rng.integers(-128, 128)),
        int(rng.integers(-128, 128)),
    )
    form = EieFormat(64, 4, int(rng.integers(0, 6)), list(Pointers)[int(rng.integers(0, 2))])
    matrix = (
        stored(dense, 64)
        if rng.random() < 0.5
        else encode(dense, form, rng.permutation(form.slots(outputs) * 64)[:outputs])
    )
    out_dtype = DType.I32 if rng.random() < 0.3 else DType.I8
    program = program_of(matrix, vectors, np.random.default_rng(seed), out_dtype=out_dtype, in_zp=zero, out_zp=out_zp)
    program = Program.from_text(Program.from_bytes(program.to_bytes()).to_text())
    x = inputs_of(rng, vectors, inputs, zero, rng.random())
    bias, mult, shift = parameters(np.random.default_rng(seed), outputs)
    sums = (x.astype(np.int64) - zero) @ dense.astype(np.int64).T + bias
    expected = sums if out_dtype == DType.I32 else numerics.requantize(sums, mult, shift, out_zp, -100, 120)
    np.testing.assert_array_equal(Machine(program, CHIP, strict=True).run({"x": x}).outputs["y"], expected)
    if out_dtype == DType.I8:
        conv = kernels.conv2d(
            x[None, None],
            dense[:, None, None],
            bias,
            mult,
            shift,
            strides=(1, 1),
            padding=(0,) * 4,
            dilation=(1, 1),
            groups=1,
            in_zp=zero,
            w_zp=0,
            out_zp=out_zp,
            lo=-100,
            hi=120,
        )
        np.testing.assert_array_equal(conv[0, 0], expected)


def test_a_run_takes_what_its_input_needs():
    """The trace of a run is that of its input, also after later runs; without a run it is what is expected."""
    rng = np.random.default_rng(5)
    dense = random_matrix(rng, 300, 400, 0.1)
    matrix = stored(dense, 64)
    machine = Machine(program_of(matrix, 2, rng), CHIP)
    results, vectors = [], [inputs_of(rng, 2, 400, -128, density) for density in (0.0, 0.2, 0.9)]
    for x in vectors:
        results.append(machine.run({"x": x}))
    work, timing = Work(matrix), Timing(CHIP.sparse.queue, CHIP.sparse.ahead, row_gap=False)
    for x, result in zip(vectors, results):
        activities = [work.run(row != -128, timing) for row in x]
        entry = result.trace.entries[0]
        assert (
            entry.engine == Engine.SPARSE
            and entry.cycles == CHIP.sparse.issue_cycles + sum(a.cycles for a in activities) + 2 * 2 * 5
        )
        assert entry.events.get(Event.MAC_8X8, 0) == ((x != -128).astype(int) @ (dense != 0).T.astype(int)).sum()
        assert result.trace.cycles == entry.cycles + 1
    assert results[0].trace.cycles < results[1].trace.cycles < results[2].trace.cycles
    assert results[0].trace.energy_pj < results[1].trace.energy_pj < results[2].trace.energy_pj
    assert machine.trace.cycles == Trace(machine.program, CHIP).cycles


@pytest.mark.parametrize(
    "outputs, inputs, weights, active",
    [(1000, 4096, 0.25, 0.4), (2000, 1000, 0.05, 0.2), (600, 2000, 0.1, 1.0), (500, 300, 0.3, 0.05)],
)
def test_the_estimate_is_near(outputs, inputs, weights, active):
    """With the right share of nonzero inputs: cycles within 15 %, energy within 10 %."""
    rng = np.random.default_rng(outputs)
    matrix = stored(random_matrix(rng, outputs, inputs, weights), 64)
    machine = Machine(program_of(matrix, 1, rng, expected=round(1000 * active)), CHIP)
    x = np.full((1, inputs), -128, np.int8)
    x[0, rng.permutation(inputs)[: round(inputs * active)]] = 5
    found = machine.run({"x": x}).trace
    assert abs(machine.trace.cycles / found.cycles - 1) < 0.15
    assert abs(machine.trace.dynamic_pj / found.dynamic_pj - 1) < 0.10


def test_bytes_that_are_no_matrix():
    rng = np.random.default_rng(1)
    matrix = stored(random_matrix(rng, 80, 40, 0.2), 64)
    for data in (bytes(len(matrix.data)), matrix.data[:-8], matrix.data[:40] + b"\xff" + matrix.data[41:]):
        with pytest.raises(MachineError, match="sparse matrix is broken"):
            Machine(program_of(matrix, 1, rng, data=data), CHIP).run({"x": np.zeros((1, 40), np.int8)})


def test_a_matrix_for_another_engine():
    rng = np.random.default_rng(1)
    with pytest.raises(MachineError, match="another number of processing elements"):
        Machine(program_of(stored(random_matrix(rng, 80, 40, 0.2), 32), 1, rng), CHIP).run(
            {"x": np.zeros((1, 40), np.int8)}
        )
    with pytest.raises(MachineError, match="output channels"):
        Machine(program_of(encode(random_matrix(rng, 5000, 3, 0.2)), 1, rng), CHIP)
    wide = encode(random_matrix(rng, 80, 40, 0.2).astype(np.int16))
    with pytest.raises(MachineError, match="16 bits"):
        Machine(program_of(wide, 1, rng), CHIP).run({"x": np.zeros((1, 40), np.int8)})


def test_preconditions():
    program = program_of(stored(np.eye(8, dtype=np.int8), 64), 1, np.random.default_rng(0))
    spmv = program.instructions[0]
    spmv.check()
    for bad in (
        dict(lo=5, hi=4),
        dict(entries=100_000),
        dict(w=Operand(0, DType.U8, (8,), (2,))),
        dict(x=contiguous(9000, "int8", (2, 8))),
    ):
        with pytest.raises(ProgramError, match="SPMV"):
            replace(spmv, **bad).check()
