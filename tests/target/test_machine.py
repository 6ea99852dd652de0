"""The machine on hand-assembled programs: results, strict mode, inputs, intermediate tensors, repeated runs."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.target.chip import chip
from tvm_ergo.target.errors import ErgoError, InputError, MachineError, ProgramError
from tvm_ergo.target.isa import Add, Conv, Copy, DType, Engine, Fill, Halt, Operand, Receive, Table, contiguous
from tvm_ergo.target.machine import Machine, Memory, kernels
from tvm_ergo.target.machine.hazards import HazardCheck, vector_clocks
from tvm_ergo.target.program import Node, Port, Program

from .isa_samples import MEMORY_BYTES, TestMemory, fill_parameters, samples

CHIP = chip("ergo/1")


def i8(addr, *shape):
    return contiguous(addr, DType.I8, shape)


def program(instructions, inputs=(), outputs=(), data=(), memory_bytes=4096, **fields):
    """A Program with HALT appended."""
    return Program(
        chip_name="ergo/1",
        instructions=[*instructions, Halt()],
        data=list(data),
        inputs=[Port(n, o) for n, o in inputs],
        outputs=[Port(n, o) for n, o in outputs],
        memory_bytes=memory_bytes,
        nodes=[Node("first", "op", "layer")],
        **fields,
    )


def add(a, b, out, **fields):
    return Add(a=a, b=b, out=out, a_zp=0, b_zp=0, a_mult=1, b_mult=1, shift=0, out_zp=0, lo=-128, hi=127, **fields)


def copy(src, out, **waits):
    return Copy(src=src, out=out, waits={Engine[e]: n for e, n in waits.items()})


def conv_program(seed=0):
    """conv -> table in place -> strided copy; weights in data sections. Returns the program and its expected
    function."""
    rng = np.random.default_rng(seed)
    w, bias = rng.integers(-128, 128, (4, 3, 3, 2)).astype(np.int8), rng.integers(-99, 99, 4).astype(np.int32)
    mult, shift = rng.integers(1 << 23, 1 << 24, 4).astype(np.int32), np.full(4, 31, np.int8)
    lut = rng.integers(-128, 128, 256).astype(np.int8)
    data = [
        (0, w.tobytes()),
        (128, bias.tobytes()),
        (160, mult.tobytes()),
        (192, shift.tobytes()),
        (256, lut.tobytes()),
    ]
    x, y = i8(1024, 1, 6, 6, 2), i8(2048, 1, 6, 6, 4)
    z = i8(3072, 1, 6, 4, 6)
    fields = dict(
        strides=(1, 1), padding=(1, 1, 1, 1), dilation=(1, 1), groups=1, in_zp=3, w_zp=0, out_zp=-5, lo=-128, hi=127
    )
    instructions = [
        Conv(
            x=x,
            w=i8(0, 4, 3, 3, 2),
            bias=contiguous(128, DType.I32, (4,)),
            mult=contiguous(160, DType.I32, (4,)),
            shift=i8(192, 4),
            out=y,
            **fields,
        ),
        Table(x=y, lut=i8(256, 256), out=y, waits={Engine.TENSOR: 1}),
        Copy(src=Operand(2048, DType.I8, (1, 6, 4, 6), (144, 24, 1, 4)), out=z, waits={Engine.VECTOR: 1}),
    ]

    def expected(array):
        return kernels.table(kernels.conv2d(array, w, bias, mult, shift, **fields), lut).transpose(0, 1, 3, 2)

    return program(instructions, [("x", x)], [("z", z)], data), expected


@pytest.mark.parametrize("strict", [False, True])
def test_runs_are_exact_and_repeatable(strict):
    compiled, expected = conv_program()
    machine = Machine(compiled, CHIP, strict=strict)
    for seed in (1, 2, 1):
        x = np.random.default_rng(seed).integers(-128, 128, (1, 6, 6, 2)).astype(np.int8)
        result = machine.run({"x": x})
        np.testing.assert_array_equal(result.outputs["z"], expected(x))
        assert result.trace is machine.trace


def test_outputs_do_not_change_with_the_next_run():
    machine = Machine(conv_program()[0], CHIP)
    first = machine.run({"x": np.zeros((1, 6, 6, 2), np.int8)}).outputs["z"]
    kept = first.copy()
    machine.run({"x": np.full((1, 6, 6, 2), 100, np.int8)})
    np.testing.assert_array_equal(first, kept)


def test_watch_sees_every_intermediate_tensor():
    compiled, _ = conv_program()
    seen = []
    Machine(compiled, CHIP, strict=True).run(
        {"x": np.ones((1, 6, 6, 2), np.int8)},
        watch=lambda i, instruction, memory: seen.append(
            (i, instruction.MNEMONIC, [memory.view(o).copy() for o in instruction.writes()])
        ),
    )
    assert [(i, name) for i, name, _ in seen] == [(0, "CONV"), (1, "TABLE"), (2, "COPY"), (3, "HALT")]
    np.testing.assert_array_equal(seen[2][2][0], seen[1][2][0].transpose(0, 1, 3, 2))
    assert (seen[0][2][0] != seen[1][2][0]).any()


def test_weights_are_prepared_once_only_while_constant():
    compiled, _ = conv_program()
    machine = Machine(compiled, CHIP, native=False)
    for _ in range(2):
        machine.run({"x": np.ones((1, 6, 6, 2), np.int8)})
    assert len(machine.memory._prepared) == 1
    weights = i8(0, 72)
    compiled.inputs.append(Port("w", weights))  # now the host writes them
    machine = Machine(compiled, CHIP, strict=True)
    x = np.random.default_rng(3).integers(-128, 128, (1, 6, 6, 2)).astype(np.int8)
    results = [machine.run({"x": x, "w": np.full(72, value, np.int8)}).outputs["z"] for value in (1, 77, 1)]
    assert not machine.memory._prepared
    np.testing.assert_array_equal(results[0], results[2])
    assert (results[0] != results[1]).any()


@pytest.mark.parametrize("strict", [False, True])
def test_data_that_a_program_overwrites_is_restored(strict):
    x = i8(0, 4)
    double = program([add(x, x, x)], outputs=[("y", x)], data=[(0, bytes([1, 2, 3, 4]))])
    machine = Machine(double, CHIP, strict=strict)
    for _ in range(2):
        np.testing.assert_array_equal(machine.run({}).outputs["y"], [2, 4, 6, 8])


def test_every_instruction_gives_the_same_in_strict_mode_as_alone():
    instructions, memory, issued = [], TestMemory(), dict.fromkeys(Engine, 0)
    for sample in samples().values():
        fill_parameters(sample, memory)
        if not isinstance(sample, Halt):
            instructions.append(replace(sample, waits=dict(issued)))
            issued[sample.engine] += 1
    outputs = [(f"{i}.{k}", o) for i, ins in enumerate(instructions) for k, o in enumerate(ins.writes())]
    compiled = program(instructions, outputs=outputs, data=[(0, memory.bytes.tobytes())], memory_bytes=MEMORY_BYTES)
    size = max(i.source.extent[1] for i in instructions if isinstance(i, Receive))
    stream = memory.received(0, contiguous(0, "int8", (size,))).copy()
    compiled.inputs = [Port("stream", contiguous(0, "int8", (size,)), streamed=True)]
    compiled = Program.from_bytes(compiled.to_bytes())
    for instruction in instructions:
        instruction.execute(memory)
    for strict in (True, False):
        machine = Machine(compiled, CHIP, strict=strict)
        for _ in range(2):
            results = machine.run({"stream": stream}).outputs
            for name, operand in outputs:
                np.testing.assert_array_equal(results[name], memory.view(operand), err_msg=name)


def test_unwritten_read():
    a, b = i8(0, 1, 16), i8(64, 1, 16)
    bad = program([Fill(out=i8(0, 15), value=1), copy(a, b)], outputs=[("y", b)])
    with pytest.raises(MachineError, match=r"nobody wrote(?s:.*)instruction 1 \(node first\): COPY(?s:.*)first at 0xf"):
        Machine(bad, CHIP, strict=True)
    Machine(bad, CHIP).run({})  # without strict mode it runs


def test_unwritten_read_in_a_strided_operand():
    strided = Operand(0, DType.I8, (4, 3), (8, 2))
    bad = program([Fill(out=strided, value=1), copy(Operand(0, DType.I8, (4, 3), (8, 1)), i8(64, 4, 3))])
    with pytest.raises(MachineError, match="first at 0x1$|first at 0x1\n"):
        Machine(bad, CHIP, strict=True)
    Machine(
        program([Fill(out=strided, value=1), copy(Operand(0, DType.I8, (4, 3), (8, 2)), i8(64, 4, 3))]),
        CHIP,
        strict=True,
    )


def test_unwritten_output():
    with pytest.raises(MachineError, match="(?s)nobody wrote.*output 'y'"):
        Machine(program([Fill(out=i8(0, 4), value=1)], outputs=[("y", i8(0, 5))]), CHIP, strict=True)


def test_write_write_race():
    instructions = [Fill(out=i8(0, 8), value=1), add(i8(16, 8), i8(16, 8), i8(4, 8))]
    with pytest.raises(
        MachineError, match=r"(?s)not ordered.*instruction 1.*writes byte 0x4.*instruction 0.*writes.*1 DMA.*0 known"
    ):
        Machine(program(instructions, [("x", i8(16, 8))]), CHIP, strict=True)


def test_read_after_write_race():
    with pytest.raises(MachineError, match=r"(?s)not ordered.*ADD.*reads byte 0x0.*FILL.*writes"):
        Machine(program([Fill(out=i8(0, 8), value=1), add(i8(0, 8), i8(0, 8), i8(16, 8))]), CHIP, strict=True)


def test_write_after_read_race():
    instructions = [add(i8(0, 8), i8(0, 8), i8(16, 8)), Fill(out=i8(7, 8), value=1)]
    with pytest.raises(MachineError, match=r"(?s)not ordered.*FILL.*writes byte 0x7.*ADD.*reads"):
        Machine(program(instructions, [("x", i8(0, 8))]), CHIP, strict=True)


def test_waits_and_transitive_waits_order():
    x, y, z = i8(0, 8), i8(16, 8), i8(32, 8)
    chain = [
        Fill(out=x, value=1),
        add(x, x, y, waits={Engine.DMA: 1}),
        Copy(src=y, out=z, waits={Engine.VECTOR: 1}),
        add(z, z, x, waits={Engine.DMA: 2}),
    ]
    outputs = Machine(program(chain, outputs=[("x", x)]), CHIP, strict=True).run({}).outputs
    np.testing.assert_array_equal(outputs["x"], np.full(8, 4))
    # DMA 2 waits for VECTOR 1, which waited for DMA 1: a TENSOR instruction that knows DMA 2 knows them all.
    clocks, positions = vector_clocks(program(chain))
    assert clocks[3][Engine.DMA] == 2 and clocks[3][Engine.VECTOR] == 1 and positions.tolist() == [1, 1, 2, 2, 1]
    assert clocks[4][Engine.VECTOR] == 2  # HALT knows everything


def test_disjoint_interleaved_writes_do_not_race():
    even, odd = Operand(0, DType.I8, (8,), (2,)), Operand(1, DType.I8, (8,), (2,))
    x = i8(64, 8)
    fine = program([Fill(out=even, value=7), add(x, x, odd)], [("x", x)], [("y", i8(0, 16))])
    result = Machine(fine, CHIP, strict=True).run({"x": np.ones(8, np.int8)})
    np.testing.assert_array_equal(result.outputs["y"], [7, 2] * 8)


def test_broadcast_reads_are_checked_once_per_byte():
    row = Operand(0, DType.I8, (5, 4), (0, 1))
    fine = program([Fill(out=i8(0, 4), value=3), copy(row, i8(16, 5, 4))], outputs=[("y", i8(16, 5, 4))])
    assert (Machine(fine, CHIP, strict=True).run({}).outputs["y"] == 3).all()


def test_in_place_only_where_elements_stay_in_place():
    x = i8(0, 4, 4)
    Machine(program([add(x, x, x)], [("x", x)]), CHIP, strict=True)
    transposed = Operand(0, DType.I8, (4, 4), (1, 4))
    for wrong in (copy(transposed, x), add(i8(0, 16), i8(0, 16), i8(1, 16))):
        with pytest.raises(ProgramError, match="overlaps an input"):
            Machine(program([wrong], [("x", i8(0, 16))]), CHIP, strict=True)


def test_out_of_bounds_and_unaligned_views():
    memory = Memory(64)
    for operand in (
        i8(60, 5),
        Operand(2, DType.I8, (4,), (-1,)),
        i8(1 << 31, 1),
        Operand(0, DType.I8, (2, 2), (63, 1)),
    ):
        with pytest.raises(MachineError, match="outside the unified memory"):
            memory.view(operand)
    for operand in (contiguous(2, DType.I32, (1,)), Operand(0, DType.I16, (3,), (3,))):
        with pytest.raises(MachineError, match="not aligned"):
            memory.view(operand)
    assert memory.view(i8(60, 4)).shape == (4,)
    for strict in (False, True):
        with pytest.raises(ErgoError, match="outside the unified memory"):
            Machine(program([Fill(out=i8(4090, 8), value=0)]), CHIP, strict=strict)


def test_view_is_the_memory():
    memory = Memory(64)
    memory.view(Operand(3, DType.I8, (2, 2), (-2, 1)))[...] = [[1, 2], [3, 4]]
    assert memory.bytes[1:5].tolist() == [3, 4, 1, 2]


class _Undeclared(Fill):
    """Reads what it does not declare."""

    def execute(self, memory):
        memory.view(i8(0, 1))


class _WritesItsInput(Copy):
    def execute(self, memory):
        memory.view(self.src)[...] = 0


def test_strict_confines_instructions_to_their_operands():
    x = i8(0, 4)
    machine = Machine(program([_Undeclared(out=i8(16, 4), value=0)], [("x", x)]), CHIP, strict=True)
    with pytest.raises(MachineError, match="does not declare"):
        machine.run({"x": np.zeros(4, np.int8)})
    machine = Machine(program([_WritesItsInput(src=x, out=i8(16, 4))], [("x", x)]), CHIP, strict=True)
    with pytest.raises(ValueError, match="read-only"):
        machine.run({"x": np.zeros(4, np.int8)})


def test_a_wait_for_the_future_is_refused():
    with pytest.raises(ErgoError, match="wait"):
        Machine(
            program([Fill(out=i8(0, 4), value=0, waits={Engine.VECTOR: 1}), add(i8(0, 4), i8(0, 4), i8(8, 4))]), CHIP
        )
    with pytest.raises(MachineError, match="wait for ever"):
        HazardCheck(program([Fill(out=i8(0, 4), value=0, waits={Engine.DMA: 1})]))


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({}, "missing input 'x'"),
        ({"x": np.zeros((1, 6, 6, 2), np.int8), "y": np.zeros(1)}, "unknown input 'y'"),
        ({"x": np.zeros((1, 6, 6, 2), np.float32)}, r"(?s)where: x.*required: int8\[1, 6, 6, 2\].*available: float32"),
        ({"x": np.zeros((6, 6, 2), np.int8)}, r"(?s)required: int8\[1, 6, 6, 2\].*available: int8\[6, 6, 2\]"),
        ({"x": [[1]]}, "not a NumPy array"),
        ([1], "not a dict"),
    ],
)
def test_wrong_inputs(inputs, message):
    with pytest.raises(InputError, match=message):
        Machine(conv_program()[0], CHIP).run(inputs)


def test_program_larger_than_the_chip():
    with pytest.raises(MachineError, match="(?s)more memory than the chip has.*4096 bytes.*100 bytes"):
        Machine(conv_program()[0], CHIP.with_memory(100))


def test_hostile_requantization_parameters_in_memory():
    compiled, _ = conv_program()
    compiled.data[3] = (192, np.full(4, -1, np.int8).tobytes())
    with pytest.raises(MachineError, match=r"(?s)shift is out of range.*where: instruction 0 \(node first\): CONV"):
        Machine(compiled, CHIP).run({"x": np.zeros((1, 6, 6, 2), np.int8)})


def naive_hazard(compiled):
    """The definition, pairwise: for every pair of accesses to one byte of which one writes, is there a path of
    orderings?"""
    instructions = compiled.instructions
    count = len(instructions)
    before = np.zeros((count, count), bool)
    for j, later in enumerate(instructions):
        seen = {e: [i for i in range(j) if instructions[i].engine == e] for e in Engine}
        for i in seen[later.engine]:
            before[i, j] = True
        for engine, n in later.waits.items():
            for i in seen[engine][:n]:
                before[i, j] = True
        if isinstance(later, Halt):
            before[:j, j] = True
    for k in range(count):
        before |= before[:, k : k + 1] & before[k : k + 1, :]

    def touched(operands):
        mark = np.zeros(compiled.memory_bytes, bool)
        for operand in operands:
            mark |= operand.touched(0, compiled.memory_bytes)
        return mark

    reads, writes = [touched(i.reads()) for i in instructions], [touched(i.writes()) for i in instructions]
    written = touched([p.operand for p in compiled.inputs])
    for j in range(count):
        if (reads[j] & ~written).any():
            return True
        written |= writes[j]
        for i in range(j):
            if not before[i, j] and ((writes[i] & (reads[j] | writes[j])) | (reads[i] & writes[j])).any():
                return True
    return False


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_hazard_check_equals_the_pairwise_definition(data):
    """Random programs of fills, copies and adds on overlapping, strided and broadcast operands with random waits."""

    def operand(out):
        kind = data.draw(st.sampled_from(["dense", "strided"] if out else ["dense", "strided", "broadcast"]))
        addr = data.draw(st.integers(0, 24))
        return Operand(addr, DType.I8, (2, 4), {"dense": (4, 1), "strided": (8, 2), "broadcast": (0, 1)}[kind])

    instructions, issued = [], {Engine.DMA: 0, Engine.VECTOR: 0}
    for _ in range(data.draw(st.integers(1, 6))):
        waits = {e: data.draw(st.integers(0, n)) for e, n in issued.items()}
        kind = data.draw(st.sampled_from(["fill", "copy", "add"]))
        out = operand(True)
        made = {
            "fill": lambda: Fill(out=out, value=1, waits=waits),
            "copy": lambda: Copy(src=operand(False), out=out, waits=waits),
            "add": lambda: add(operand(False), operand(False), out, waits=waits),
        }[kind]()
        try:
            made.check()
        except ProgramError:
            continue
        instructions.append(made)
        issued[made.engine] += 1
    compiled = program(instructions, [("x", i8(0, data.draw(st.integers(1, 48))))], memory_bytes=64)
    if naive_hazard(compiled):
        with pytest.raises(MachineError):
            Machine(compiled, CHIP, strict=True)
    else:
        x = np.arange(compiled.inputs[0].operand.elements).astype(np.int8)
        strict, plain = Machine(compiled, CHIP, strict=True), Machine(compiled, CHIP)
        strict.run({"x": x}), plain.run({"x": x})
        for port in instructions:
            for written in port.writes():
                np.testing.assert_array_equal(strict.memory.view(written), plain.memory.view(written))


def streamed_program(*offsets):
    """Receives two bytes at each offset of a stream of eight into the memory's start, one after another."""
    receives = [
        Receive(port=0, offset=o, steps=(1, 0, 0, 0, 0, 0), out=contiguous(2 * i, "int8", (2,)), node=0)
        for i, o in enumerate(offsets)
    ]
    return Program(
        "ergo/1",
        [*receives, Halt(waits={Engine.DMA: len(receives)})],
        [],
        [Port("x", contiguous(0, "int8", (8,)), streamed=True)],
        [Port("y", contiguous(0, "int8", (2 * len(offsets),)))],
        64,
    )


def test_a_stream_is_received_piece_by_piece_and_what_is_skipped_is_lost():
    stream = np.arange(8, dtype=np.int8)
    outputs = Machine(streamed_program(0, 2, 6), strict=True).run({"x": stream}).outputs
    np.testing.assert_array_equal(outputs["y"], [0, 1, 2, 3, 6, 7])


@pytest.mark.parametrize("offsets", [(0, 1), (2, 0), (4, 4)])
def test_a_sender_does_not_repeat_itself(offsets):
    with pytest.raises(MachineError, match="second time, or out of order"):
        Machine(streamed_program(*offsets), strict=True)


def test_what_is_received_must_be_in_the_port():
    with pytest.raises(ProgramError, match="not in port 'x'"):
        Machine(streamed_program(7))
    program = streamed_program(0)
    program.inputs = [Port("x", contiguous(32, "int8", (8,)))]
    with pytest.raises(ProgramError, match="not streamed"):
        Machine(program)


def test_an_instruction_that_repeats_without_end_is_refused():
    """Operands with strides of 0 need hardly a byte; what they repeat is work all the same."""
    endless = Operand(0x1230, DType.I8, (4294901763, 32767), (0, 1))
    out = contiguous(0x9240, DType.I8, (1,))
    found = next(i for i in samples().values() if type(i).__name__ == "Reduce")
    reduce = replace(found, x=endless, out=out, axes=(0, 1), keepdims=0)
    with pytest.raises(ProgramError, match="longer than any layer"):
        Machine(Program("ergo/1", [reduce, Halt()], [(0, b"\1" * 65536)], [], [], 1 << 17), "ergo/1")
    repeated = Fill(out=contiguous(0, DType.I8, (1 << 16,)), value=1)
    Machine(Program("ergo/1", [repeated, Halt()], [], [], [], 1 << 16), "ergo/1").run({})
