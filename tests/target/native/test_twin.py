"""Every instruction, native against NumPy, to the bit: all bytes of the memory, on every code path this machine has."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tvm_ergo.target.native.library import library, path_names

from .executed import by_native, by_numpy
from .instructions import BUILDERS, scenes

pytestmark = pytest.mark.skipif(library() is None, reason="the native runtime was not built: pip install -e .")
QUIET = dict(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
)


@pytest.mark.parametrize("kind", BUILDERS)
def test_plain_kernels(kind):
    @settings(max_examples=60, **QUIET)
    @given(scenes(kind))
    def check(scene):
        memory, instruction = scene
        expected, tiles = by_numpy(memory, instruction)
        found, dropped, _ = by_native(memory, instruction)
        assert np.array_equal(found, expected), instruction
        assert np.array_equal(dropped, tiles), instruction

    check()


@pytest.mark.parametrize("kind", ["conv", "conv_transpose", "depthwise"])
@pytest.mark.parametrize("path", path_names())
def test_fast_kernels(kind, path):
    fast = []

    @settings(max_examples=100, **QUIET)
    @given(scenes(kind))
    def check(scene):
        memory, instruction = scene
        expected, tiles = by_numpy(memory, instruction)
        found, dropped, was_fast = by_native(memory, instruction, path)
        fast.append(was_fast)
        assert np.array_equal(found, expected), (path, instruction)
        assert np.array_equal(dropped, tiles), (path, instruction)

    check()
    assert sum(fast) > len(fast) // 20  # what is tested is there


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("kind", ["matmul", "weighted_mean"])
@pytest.mark.parametrize("path", path_names())
def test_fast_products(kind, path, constant):
    fast = []

    @settings(max_examples=80, **QUIET)
    @given(scenes(kind))
    def check(scene):
        memory, instruction = scene
        expected, _ = by_numpy(memory, instruction)
        found, _, was_fast = by_native(memory, instruction, path, constant)
        fast.append(was_fast)
        assert np.array_equal(found, expected), (path, instruction)

    check()
    assert sum(fast) > len(fast) // 10
