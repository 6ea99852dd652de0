"""Product codebooks are found behind folded batch norm, exactly, and nowhere else."""

import random

import numpy as np
import pytest

from tvm_ergo.relay_passes.micro.shared_blocks import blocks_of, find_shared_blocks
from tvm_ergo.relay_passes.micro.weights import quantize_weight


def product_quantized(seed, shape, channels, count, factors=True, signs=True):
    """Weights [O, ..., C] of random centroids in fp16, times float32 factors: (weights, centroids, index, factor)."""
    rng = np.random.default_rng(seed)
    taps = int(np.prod(shape[1:-1]))
    centroids = (rng.standard_normal((count, taps * channels)) * 0.05).astype(np.float16).astype(np.float32)
    index = rng.integers(0, count, (shape[0], shape[-1] // channels))
    factor = np.exp(rng.standard_normal(shape[0])).astype(np.float32) if factors else np.ones(shape[0], np.float32)
    if signs:
        factor *= rng.choice([1, 1, 1, -1], shape[0]).astype(np.float32)
    blocks = centroids[index].reshape(shape[0], -1, taps, channels).transpose(0, 2, 1, 3).reshape(shape)
    return blocks * factor.reshape(-1, *[1] * (len(shape) - 1)), centroids, index, factor


CASES = [
    ((32, 3, 3, 64), 1, 64),
    ((32, 1, 1, 256), 4, 128),
    ((40, 128), 8, 32),
    ((16, 3, 3, 64), 2, 32),
    ((64, 3, 3, 64), 1, 256),
]


@pytest.mark.parametrize("shape,channels,count", CASES)
@pytest.mark.parametrize("factors", [True, False])
def test_what_was_put_in_is_found(shape, channels, count, factors):
    weight, centroids, index, factor = product_quantized(1, shape, channels, count, factors, factors)
    found = find_shared_blocks(weight)
    assert found.channels == channels and len(found.centroids) == len(np.unique(index))
    assert np.abs(found.weight(shape) - weight).max() < 1e-6 * np.abs(weight).max()
    ratio = found.factor / factor
    assert np.allclose(np.abs(ratio), np.abs(ratio[0]), rtol=1e-5)
    assert len(set(zip(index.reshape(-1).tolist(), found.index.reshape(-1).tolist()))) == len(np.unique(index))


@pytest.mark.parametrize("shape,channels,count", CASES)
def test_equal_blocks_get_equal_codes(shape, channels, count):
    weight, _, index, factor = product_quantized(2, shape, channels, count)
    ints, scale = quantize_weight(weight, 0)
    codes = blocks_of(ints.astype(int) * np.sign(factor).astype(int).reshape(-1, *[1] * (len(shape) - 1)), channels)
    assert len(np.unique(codes.reshape(-1, codes.shape[2]), axis=0)) <= count
    assert (
        np.abs(ints * scale.astype(np.float64).reshape(-1, *[1] * (len(shape) - 1)) - weight).max()
        < 0.02 * np.abs(weight).max()
    )


def test_random_weights_have_none():
    for seed in range(40):
        r = random.Random(seed)
        shape = (r.choice([4, 16, 64]), *r.choice([(1, 1), (3, 3), (5, 5)]), r.choice([1, 4, 8, 32]))
        assert find_shared_blocks(np.random.default_rng(seed).standard_normal(shape).astype(np.float32)) is None, shape


def test_a_single_changed_weight_is_noticed():
    weight, *_ = product_quantized(3, (32, 3, 3, 64), 1, 32)
    weight[5, 1, 1, 7] *= 1.01
    found = find_shared_blocks(weight)
    assert found is None or np.abs(found.weight(weight.shape) - weight).max() < 1e-6 * np.abs(weight).max()


def test_zero_blocks_and_dead_channels():
    weight, *_ = product_quantized(4, (32, 3, 3, 64), 1, 32)
    weight[3] = 0
    weight[:, :, :, 10] = 0
    found = find_shared_blocks(weight)
    assert np.abs(found.weight(weight.shape) - weight).max() < 1e-6 * np.abs(weight).max()
    assert found.factor[3] == 0 and (quantize_weight(weight, 0)[0][:, :, :, 10] == 0).all()
    assert not find_shared_blocks(np.zeros((32, 3, 3, 64), np.float32)).factor.any()


def test_channels_that_share_nothing_are_no_codebook():
    """Two halves with codebooks of their own have factors that nothing relates, but each half is consistent."""
    first, *_ = product_quantized(5, (16, 3, 3, 64), 1, 16)
    second, *_ = product_quantized(6, (16, 3, 3, 64), 1, 16)
    assert find_shared_blocks(np.concatenate([first, second])) is None
