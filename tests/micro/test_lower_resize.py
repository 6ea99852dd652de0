"""Linear resizing into a scale of its own: rounded once, from the resize's own sums."""

import numpy as np
import pytest
from tvm import relax

import tvm_ergo
from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.macro import normalize
from tvm_ergo.relay_passes.micro.lower_quantized import lower_quantized

from .chip_runs import between_quantizers, three_ways


def resized(emit, x, size, mode, method="linear"):
    return emit(relax.op.image.resize2d(x, size, layout="NHWC", method=method, coordinate_transformation_mode=mode))


@pytest.mark.parametrize("ends", [(0.031, 12), (0.047, 20), (0.17, -100)])
@pytest.mark.parametrize("mode", ["half_pixel", "align_corners", "asymmetric"])
@pytest.mark.parametrize("size", [(8, 10), (7, 9), (3, 2)])
def test_only_ties_differ(ends, mode, size):
    """Weights of 11 bits move a sum by an eighth of a step at most, so that few results cross a tie. (At equal scales
    quarters meet many ties, which the chip rounds up and ONNX to even.)"""
    mod = between_quantizers(lambda emit, x: resized(emit, x, size, mode), (2, 4, 5, 16), ends)
    x = np.random.default_rng(5).uniform(-4, 4, (2, 4, 5, 16)).astype(np.float32)
    wanted, found = three_ways(mod, x)
    steps = np.abs(wanted - found) / ends[0]
    assert steps.max() <= 1.001
    assert (steps > 0.5).mean() < 0.03


def test_one_operator_does_it_and_nearest_takes_a_table():
    for method, names in (("linear", ["Resize2d"]), ("nearest_neighbor", ["Table", "Resize2d"])):
        mod = between_quantizers(
            lambda emit, x, m=method: resized(emit, x, (8, 8), "half_pixel", m), (1, 4, 4, 2), (0.2, 3)
        )
        lowered, _ = lower_quantized(normalize(mod))
        calls = [b.value for b in lowered["main"].body.blocks[0].bindings if dialect.is_ergo_call(b.value)]
        assert sorted(type(dialect.from_call(c)).__name__ for c in calls) == sorted(names)


@pytest.mark.parametrize("ends", [(0.017, 12), (0.05, -7), (0.01, -128)])
@pytest.mark.parametrize("size", [(8, 10), (4, 5)])
def test_bounds_behind_it_are_its_own(ends, size):
    """Rounded once, whatever the scale behind the clip (random graph 1693: two roundings, two steps)."""
    mod = between_quantizers(
        lambda emit, x: emit(relax.op.clip(resized(emit, x, size, "half_pixel"), -0.7, 1.2)), (2, 4, 5, 16), ends
    )
    wanted, found = three_ways(mod, np.random.default_rng(5).uniform(-4, 4, (2, 4, 5, 16)).astype(np.float32))
    assert np.abs(wanted - found).max() <= 1.001 * ends[0]


def test_what_is_clipped_behind_it_is_interpolated_as_it_was():
    """The quantizer behind the clip says nothing of the tensor before."""
    x = np.random.default_rng(5).uniform(-4, 4, (1, 4, 5, 3)).astype(np.float32)
    mod = between_quantizers(
        lambda emit, v: emit(relax.op.clip(resized(emit, emit(relax.op.nn.relu(v)), (8, 10), "half_pixel"), 0.0, 0.5)),
        x.shape,
        (0.5 / 255, -128),
    )
    compiled = tvm_ergo.compile(normalize(mod))
    (found,) = compiled.run({compiled.inputs[0].name: x}).outputs.values()
    assert np.abs(found - evaluate(normalize(mod), x)[0]).max() <= 0.001 * 2.1
