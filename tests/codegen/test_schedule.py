"""Waits against a naive twin: byte sets for conflicts, graph search for order."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.codegen.schedule import schedule
from tvm_ergo.target.isa import Add, Copy, DType, Engine, Fill, Halt, MatMul, Operand

SIZE = 24


@st.composite
def operands(draw):
    """A small strided operand inside a few bytes of memory."""
    rank = draw(st.integers(1, 2))
    shape = [draw(st.integers(1, 3)) for _ in range(rank)]
    strides = (
        draw(st.sampled_from([(1,), (2,), (3,)]))
        if rank == 1
        else draw(st.sampled_from([(3, 1), (6, 1), (1, 4), (6, 2)]))
    )
    return Operand(draw(st.integers(0, SIZE - 1)), DType.I8, shape, strides)


@st.composite
def instructions(draw):
    kind = draw(st.sampled_from([Copy, Fill, Add, MatMul]))
    numbers = dict(a_zp=0, b_zp=0, out_zp=0, lo=-128, hi=127)
    if kind is Copy:
        return Copy(src=draw(operands()), out=draw(operands()))
    if kind is Fill:
        return Fill(out=draw(operands()), value=0)
    fields = {name: draw(operands()) for name in ("a", "b", "out")}
    return (
        Add(**fields, **numbers, a_mult=1, b_mult=1, shift=0)
        if kind is Add
        else MatMul(**fields, **numbers, transpose_b=False, mult=1, shift=0)
    )


def bytes_of(operands):
    found = set()
    for o in operands:
        for index in itertools.product(*map(range, o.shape)):
            found.add(o.addr + sum(i * s for i, s in zip(index, o.strides, strict=True)))
    return found


def conflicts(program, constant_bytes=0):
    """Pairs (i, j), i before j, on different engines, that touch a common byte of which one writes."""
    touched = [(bytes_of(i.reads()), bytes_of(i.writes())) for i in program]
    for j, i in ((j, i) for j in range(len(program)) for i in range(j)):
        (ri, wi), (rj, wj) = touched[i], touched[j]
        if program[i].engine != program[j].engine and any(
            b >= constant_bytes for b in (wi & wj) | (wi & rj) | (ri & wj)
        ):
            yield i, j


def ordered_pairs(program):
    """Pairs (i, j) where i has completed when j starts: same engine or waits, transitively."""
    by_engine = {e: [i for i, ins in enumerate(program) if ins.engine == e] for e in Engine}
    before = []
    for j, ins in enumerate(program):
        own = by_engine[ins.engine]
        direct = own[: own.index(j)] + [i for e, n in ins.waits.items() for i in by_engine[e][:n]]
        before.append(set(direct).union(*(before[i] for i in direct)))
    return {(i, j) for j, earlier in enumerate(before) for i in earlier}


@settings(max_examples=300, deadline=None)
@given(st.lists(instructions(), max_size=12))
def test_waits_order_every_conflict_and_none_can_be_weaker(program):
    scheduled = schedule(program)
    needed = set(conflicts(program))
    assert needed <= ordered_pairs(scheduled)
    for at, instruction in enumerate(scheduled):
        for engine, count in instruction.waits.items():
            weaker = dict(instruction.waits)
            weaker[engine] = count - 1
            changed = type(instruction)(
                **{name: getattr(instruction, name) for name in instruction.FIELDS}, waits=weaker
            )
            assert not needed <= ordered_pairs([*scheduled[:at], changed, *scheduled[at + 1 :]])


@settings(max_examples=100, deadline=None)
@given(st.lists(instructions(), max_size=12))
def test_a_wait_never_names_a_later_instruction(program):
    issued = dict.fromkeys(Engine, 0)
    for instruction in schedule(program):
        assert all(count <= issued[engine] for engine, count in instruction.waits.items())
        issued[instruction.engine] += 1


def test_constants_and_halt_need_no_wait():
    read = Operand(0, DType.I8, (4,), (1,))
    product = MatMul(
        a=read,
        b=read,
        out=Operand(16, DType.I8, (4,), (1,)),
        transpose_b=False,
        a_zp=0,
        b_zp=0,
        mult=1,
        shift=0,
        out_zp=0,
        lo=0,
        hi=1,
    )
    program = [Fill(out=Operand(8, DType.I8, (4,), (1,)), value=1), product, Halt()]
    assert [i.waits for i in schedule(program, constant_bytes=8)] == [{}, {}, {}]
