"""Sizes are those of streams that decode to the codes, and the estimate is near."""

import numpy as np

from tvm_ergo.relay_passes.micro.prune import Prune
from tvm_ergo.relay_passes.micro.reconstruct import Reconstruct, Target
from tvm_ergo.relay_passes.micro.weight_layers import weight_layers
from tvm_ergo.relay_passes.micro.weight_sizes import CHANNEL_BYTES, codes_of, estimated_bytes, layer_size, network_sizes
from tvm_ergo.target.codecs.weights import WeightCodes, decode
from tvm_ergo.target.codecs.weights_choice import best_codec

from .float_nets import digits, digits_mlp, small_cnn


def test_the_stream_holds_the_codes():
    layer = weight_layers(Reconstruct(digits()[0][:50], Target(step=0.02))(digits_mlp()))["fc1"]
    codes = codes_of(layer)
    coded = best_codec(WeightCodes.of(codes, layer.weight.shape[-1]))
    back = decode(coded.data)[0]
    assert np.array_equal(back.table[back.codes], codes)
    size = layer_size(layer)
    assert size.stream_bytes == len(coded.data) and size.bytes == len(coded.data) + CHANNEL_BYTES * 32
    assert size.distinct == len(np.unique(codes)) and size.density == (codes != 0).mean()
    assert abs(estimated_bytes(layer) - size.bytes) < 0.1 * size.bytes


def test_pruned_nets_are_smaller():
    dense, sparse = (sum(s.bytes for s in network_sizes(mod)) for mod in (small_cnn(), Prune(0.2)(small_cnn())))
    assert [s.name for s in network_sizes(small_cnn())] == ["c1", "dw", "pw", "left", "right", "fc"]
    assert sparse < 0.75 * dense
