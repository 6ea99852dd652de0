"""What runs on the host is listed operator by operator, and the remedies are true: no calibration data are asked for
where there were some."""

from __future__ import annotations

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes.micro.lower_quantized import lower_quantized
from tvm_ergo.relay_passes.micro.quantize import quantize
from tvm_ergo.relay_passes.relax_utils import bindings_of, op_name

from .float_nets import Net

EDGES = {"quantize", "dequantize"}


def on_host(lowered) -> list[str]:
    """Operators of main that are not the chip's: edges apart, and the scaling of accumulators that leave the chip
    (astype, multiply)."""
    names = [op_name(value).removeprefix("relax.") for _, value in bindings_of(lowered["main"])]
    return [n for n in names if n and not n.startswith("ergo.") and n not in EDGES]


def test_boxes_beside_scores_are_joined_on_the_chip_and_scaled_behind_it():
    net = Net((1, 4, 4, 6))
    x = net.relu(net.conv(net.params[0], 8, name="trunk"))
    boxes = net.bind(
        relax.op.multiply(net.relu(net.conv(x, 4, name="boxes"), "r1"), relax.const(np.float32(300))), "big"
    )
    scores = net.bind(relax.op.sigmoid(net.conv(x, 2, name="scores")), "small")
    joined = net.bind(relax.op.concat([boxes, scores], 3), "joined")
    mod = net.module(net.bind(relax.op.permute_dims(joined, [0, 3, 1, 2]), "out"))
    data = [{"x": np.random.default_rng(i).normal(size=(1, 4, 4, 6)).astype(np.float32)} for i in range(8)]
    lowered, fallbacks = lower_quantized(quantize(mod, data))
    assert not fallbacks and on_host(lowered) == ["astype", "multiply"]


def test_every_operator_of_a_group_on_the_host_is_listed():
    """A quantized layer whose activation reads its float result, and what follows from that."""
    net = Net((1, 6, 6, 4))
    x, scale, zero = net.params[0], relax.const(np.float32(0.02)), relax.const(np.int8(3))
    a = net.bind(
        relax.op.dequantize(net.bind(relax.op.quantize(x, scale, zero, out_dtype="int8"), "xq"), scale, zero), "a"
    )
    y = net.conv(a, 8, name="layer")
    y = net.bind(relax.op.nn.silu(y), "act")
    y = net.relu(
        net.add(net.bind(relax.op.nn.max_pool2d(y, (2, 2), (2, 2), layout="NHWC"), "pool"), np.arange(8), "shift"),
        "last",
    )
    out = net.bind(
        relax.op.dequantize(net.bind(relax.op.quantize(y, scale, zero, out_dtype="int8"), "yq"), scale, zero), "out"
    )
    lowered, fallbacks = lower_quantized(net.module(out))
    scaling = ["astype", "multiply"]
    assert sorted(f.op for f in fallbacks) == sorted(n for n in on_host(lowered) if n not in scaling)
    assert all(f.reason and f.remedy for f in fallbacks)
