"""The exact placement against every assignment of offsets, and on MiniMalloc's instances."""

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.codegen.memory import Buffer, Problem, Solution, allocate, exact
from tvm_ergo.codegen.memory.solver import lower_bound
from tvm_ergo.codegen.validate import validate

pytestmark = pytest.mark.skipif(exact.library() is None, reason="needs libskyline.so, compiled by `pip install -e .`")


@st.composite
def problems(draw, most, largest, times, alignments):
    buffers = []
    for i in range(draw(st.integers(1, most))):
        lower = draw(st.integers(0, times - 1))
        buffers.append(
            Buffer(
                i,
                draw(st.integers(1, largest)),
                lower,
                draw(st.integers(lower + 1, times)),
                draw(st.sampled_from(alignments)),
            )
        )
    return Problem(tuple(buffers))


def least_peak(problem):
    """The naive twin: every assignment of offsets, judged by the validator."""
    room = range(sum(b.size + b.alignment - 1 for b in problem.buffers))
    choices = [[o for o in room if o % b.alignment == 0] for b in problem.buffers]
    valid = (s for s in map(Solution, itertools.product(*choices)) if validate(problem, s) is None)
    return min(s.peak(problem) for s in valid)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([(1,), (2,), (1, 2)]).flatmap(lambda a: problems(most=4, largest=4, times=5, alignments=a)))
def test_search_finds_the_least_peak_and_refutes_one_byte_less(problem):
    least = least_peak(problem)
    assert lower_bound(problem) <= least
    found = exact.place_within(problem, least, 10**8)
    assert found.solution is not None and validate(problem, found.solution, least) is None
    refuted = exact.place_within(problem, least - 1, 10**8)
    assert refuted.solution is None and refuted.impossible
    allocation = allocate(problem)
    assert allocation.peak_bytes == allocation.bound_bytes == least and allocation.optimal


def packed(random, buffers, width, times):
    """A problem whose bound is reached by construction: a rectangle cut again and again, in time or in bytes."""
    boxes = [(0, times, 0, width)]
    while len(boxes) < buffers:
        lower, upper, low, high = box = random.choice([b for b in boxes if b[1] - b[0] > 1 or b[3] - b[2] > 1])
        boxes.remove(box)
        if random.random() < 0.5 and upper - lower > 1:
            cut = random.randint(lower + 1, upper - 1)
            boxes += [(lower, cut, low, high), (cut, upper, low, high)]
        elif high - low > 1:
            cut = random.randint(low + 1, high - 1)
            boxes += [(lower, upper, low, cut), (lower, upper, cut, high)]
        else:
            boxes.append(box)
    random.shuffle(boxes)
    return Problem(tuple(Buffer(i, high - low, lower, upper) for i, (lower, upper, low, high) in enumerate(boxes)))


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(2, 24))
def test_packings_without_a_gap_are_found(random, count):
    problem = packed(random, count, 1000, 60)
    assert problem.lower_bound() == 1000
    allocation = allocate(problem)
    assert validate(problem, allocation.solution, 1000) is None and allocation.optimal


@settings(max_examples=40, deadline=None)
@given(problems(most=30, largest=200, times=20, alignments=(4,)))
def test_search_is_never_worse_than_the_heuristics_and_repeats_itself(problem):
    first, again, heuristic = allocate(problem), allocate(problem), allocate(problem, work_limit=0)
    assert first == again
    assert validate(problem, first.solution, first.peak_bytes) is None
    assert lower_bound(problem) <= first.bound_bytes <= first.peak_bytes <= heuristic.peak_bytes
    assert ("optimal" in str(first)) == first.optimal


def test_work_is_limited():
    problem = Problem(tuple(Buffer(i, 7 + i * i % 31, i % 9, i % 9 + 1 + i % 5) for i in range(120)))
    answer = exact.place_within(problem, problem.lower_bound(), 20_000)
    assert answer.solution is not None or answer.impossible or 20_000 <= answer.work < 40_000


SHARED = Path(os.environ.get("ERGO_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data" / "minimalloc"


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the MiniMalloc problems in $ERGO_SHARED/data/minimalloc")
@pytest.mark.parametrize("name", "BCDEFGHJ")
def test_minimalloc_instances_fit(name):
    """Those that take less than a second or so; benchmarks/allocation.py solves all eleven."""
    problem = Problem.from_csv((SHARED / f"{name}.1048576.csv").read_text())
    answer = exact.place_within(problem, 1_048_576, 200_000_000)
    assert answer.solution is not None and validate(problem, answer.solution, 1_048_576) is None
