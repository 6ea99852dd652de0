"""Slices and repetitions that make up an order are that order."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tvm_ergo.relay_passes.micro.lower_slices import parts, repeated, runs

unhurried = settings(deadline=None, suppress_health_check=list(HealthCheck))
ORDERS = st.one_of(
    st.lists(st.integers(0, 9), min_size=1, max_size=20),
    st.builds(
        lambda base, times: [i for i in base for _ in range(times)],
        st.lists(st.integers(0, 9), min_size=1, max_size=6),
        st.integers(1, 4),
    ),
    st.builds(lambda a, s, n: list(range(a, a + s * n, s)), st.integers(0, 5), st.integers(1, 3), st.integers(1, 9)),
)


@unhurried
@given(ORDERS)
def test_runs_are_the_order(order):
    assert [i for begin, end, stride in runs(order) for i in range(begin, end, stride)] == order
    assert all(begin < end and stride > 0 for begin, end, stride in runs(order))


@unhurried
@given(ORDERS)
def test_repetitions_are_the_order(order):
    once, times = repeated(order)
    assert [i for i in once for _ in range(times)] == order
    assert parts(order) == times + len(runs(once))


def test_upsampling_and_broadcasting_take_few_copies():
    assert parts([i // 4 for i in range(160)]) == 4 + 1
    assert parts([0] * 200) == 200 + 1
    assert parts(list(range(0, 100, 3))) == 1 + 1
    assert parts(list(range(300))[::-1]) == 1 + 300
