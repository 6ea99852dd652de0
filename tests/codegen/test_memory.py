"""The memory solver against brute force, and the validator against a definition over single bytes."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.codegen.memory import Buffer, Problem, Solution, solve
from tvm_ergo.codegen.validate import Reason, validate
from tvm_ergo.target.errors import ModelError


@st.composite
def problems(draw, most=12, largest=40, times=10, alignments=(1, 1, 4, 16)):
    buffers = []
    for i in range(draw(st.integers(0, most))):
        lower = draw(st.integers(0, times - 1))
        buffers.append(
            Buffer(
                i,
                draw(st.integers(0, largest)),
                lower,
                draw(st.integers(lower, times)),
                draw(st.sampled_from(alignments)),
            )
        )
    return Problem(tuple(buffers))


def bytes_clash(problem, offsets):
    """The definition: at some time two buffers hold the same byte."""
    for time in range(max((b.upper for b in problem.buffers), default=0)):
        taken = [
            o + i
            for b, o in zip(problem.buffers, offsets, strict=True)
            if b.lower <= time < b.upper
            for i in range(b.size)
        ]
        if len(taken) != len(set(taken)):
            return True
    return False


@settings(max_examples=150, deadline=None)
@given(problems())
def test_solutions_are_valid_and_not_below_the_bound(problem):
    solution = solve(problem)
    assert validate(problem, solution) is None
    assert not bytes_clash(problem, solution.offsets)
    assert all(o % b.alignment == 0 for b, o in zip(problem.buffers, solution.offsets, strict=True))
    assert solution.peak(problem) >= problem.lower_bound()


@settings(max_examples=60, deadline=None)
@given(problems(most=4, largest=3, times=4, alignments=(1, 1, 2)))
def test_tiny_problems_are_solved_optimally(problem):
    """Against every assignment of offsets."""
    room = range(sum(b.size + b.alignment - 1 for b in problem.buffers) + 1)
    best = min(
        (
            Solution(offsets).peak(problem)
            for offsets in itertools.product(room, repeat=len(problem.buffers))
            if all(o % b.alignment == 0 for b, o in zip(problem.buffers, offsets, strict=True))
            and not bytes_clash(problem, offsets)
        ),
        default=0,
    )
    # a buffer that lives at no time, or has no byte, costs nothing: the solver puts it at 0
    idle = max((b.size for b in problem.buffers if b.lower == b.upper), default=0)
    assert solve(problem).peak(problem) == max(best, idle)


@settings(max_examples=200, deadline=None)
@given(problems(most=5, largest=6, times=5), st.data())
def test_validator_agrees_with_the_definition(problem, data):
    offsets = tuple(data.draw(st.integers(-1, 20)) for _ in problem.buffers)
    limit = data.draw(st.integers(0, 30))
    wrong = any(
        o < 0 or o % b.alignment or o + b.size > limit for b, o in zip(problem.buffers, offsets, strict=True)
    ) or bytes_clash(problem, offsets)
    assert (validate(problem, Solution(offsets), limit) is not None) == wrong


PAIR = Problem((Buffer("a", 8, 0, 3), Buffer("b", 4, 2, 5, 4)))


@pytest.mark.parametrize(
    "offsets, limit, reason",
    [
        ((0,), None, Reason.WRONG_COUNT),
        ((-1, 8), None, Reason.NEGATIVE_OFFSET),
        ((0, 9), None, Reason.MISALIGNED),
        ((0, 8), 11, Reason.ABOVE_LIMIT),
        ((0, 4), None, Reason.OVERLAP),
    ],
)
def test_violations_are_named(offsets, limit, reason):
    violation = validate(PAIR, Solution(offsets), limit)
    assert violation.reason == reason and reason.value in str(violation)


def test_lifetimes_are_half_open():
    problem = Problem((Buffer(0, 8, 0, 3), Buffer(1, 8, 3, 5)))
    assert solve(problem).offsets == (0, 0)
    assert validate(problem, Solution((0, 0))) is None


def test_broken_problems_are_named():
    assert validate(Problem((Buffer(0, -1, 0, 1),)), Solution((0,))).reason == Reason.BAD_SIZE
    assert validate(Problem((Buffer(0, 1, 2, 1),)), Solution((0,))).reason == Reason.BAD_LIFETIME


@settings(max_examples=50, deadline=None)
@given(problems())
def test_csv_round_trip(problem):
    assert Problem.from_csv(problem.to_csv()) == problem


def test_csv_of_a_solution_and_errors():
    assert Solution((0, 8)).to_csv(PAIR).splitlines() == ["id,lower,upper,size,offset", "a,0,3,8,0", "b,2,5,4,8"]
    with pytest.raises(ModelError, match="without column size"):
        Problem.from_csv("id,lower,upper\n1,2,3\n")
    with pytest.raises(ModelError, match="line 2"):
        Problem.from_csv("id,lower,upper,size\n1,2,x,4\n")
