"""What weights hold is named rightly, and takes fewer bytes so."""

import numpy as np
import pytest

from tvm_ergo import frontend
from tvm_ergo.evaluation import has_shared
from tvm_ergo.evaluation.nets import model_path
from tvm_ergo.relay_passes.macro import normalize
from tvm_ergo.relay_passes.micro.cluster import Cluster
from tvm_ergo.relay_passes.micro.prune import Prune
from tvm_ergo.relay_passes.micro.reconstruct import Reconstruct, Target
from tvm_ergo.relay_passes.micro.reduce_bits import ReduceBits
from tvm_ergo.relay_passes.micro.shared_blocks import find_shared_blocks
from tvm_ergo.relay_passes.micro.ternary import Ternary
from tvm_ergo.relay_passes.micro.weight_forms import Form, weight_forms
from tvm_ergo.relay_passes.micro.weight_layers import weight_layers, with_weights

from .float_nets import Net, images, small_cnn
from .test_shared_blocks import product_quantized

MADE = {
    Form.PLAIN: lambda mod: mod,
    Form.SHARED: lambda mod: Cluster({"right": 12})(Prune({"right": 0.5})(mod)),
    Form.TERNARY: lambda mod: Ternary(layers=("right",))(mod),
    Form.CHANNEL_GRID: lambda mod: ReduceBits({"right": 4})(mod),
    Form.GRID: lambda mod: Reconstruct(images(2), {"right": Target(step=0.1)})(mod),
}


@pytest.mark.parametrize("form", MADE)
def test_forms(form):
    forms = {f.name: f for f in weight_forms(MADE[form](small_cnn()))}
    found = forms["right"]
    assert (
        found.form is form
        and found.weights == 4 * 9 * 8
        and found.fp32_bytes == 4 * (288 + 4)
        and found.int8_bytes == 288 + 36
    )
    assert found.zeros == pytest.approx(0.5) if form is Form.SHARED else True
    assert (found.values is None) == (form is Form.PLAIN)
    assert forms["left"].form is Form.PLAIN
    assert found.bytes < forms["right"].int8_bytes or form is Form.PLAIN


def test_blocks_behind_a_folded_batch_norm():
    net = Net((1, 4, 4, 64))
    mod = net.module(net.conv(net.params[0], 128, name="c"))
    weight = product_quantized(0, (128, 3, 3, 64), 1, 64)[0]
    found = weight_forms(with_weights(mod, weight_layers(mod), {"c": weight}))[0]
    assert found.form is Form.BLOCKS and found.block == (1, 64)
    assert found.bytes <= 128 * 64 * 6 / 8 + 64 * 9 + 32 + 9 * 128 + 1


@pytest.mark.skipif(not has_shared(), reason="the shared models and data are absent (set ERGO_SHARED)")
def test_an_imported_net_is_found_back():
    """ResNet-18 of 256 centroids a layer, batch norm folded: every layer but the first, about 31 times smaller than
    fp32."""
    mod = normalize(frontend.load(model_path("resnet18_ktb_small"), input_shapes={"input": (1, 3, 224, 224)}).mod)
    found = {
        name: find_shared_blocks(layer.weight) for name, layer in weight_layers(mod).items() if layer.size < 300_000
    }
    assert found.pop("conv1") is None and len(found) > 10
    for name, blocks in found.items():
        assert len(blocks.centroids) == 256 and blocks.channels == (4 if "downsample" in name else 1), name
        assert np.abs(blocks.factor).min() > 0
