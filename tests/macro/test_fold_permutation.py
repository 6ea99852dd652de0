"""FoldPermutation: a Flatten in another axis order becomes a reordering of weight rows."""

import numpy as np
import onnx
import pytest
from graphs import assert_same, module, ops
from onnx import TensorProto, helper, numpy_helper
from tvm import relax

from tvm_ergo.frontend.load import load
from tvm_ergo.relay_passes.macro import normalize
from tvm_ergo.relay_passes.macro.fold_permutation import FoldPermutation
from tvm_ergo.relay_passes.relax_utils import Constant, bindings_of, op_name

R = relax.op
RNG = np.random.default_rng(0)
F, I = np.float32, np.int8


def c(*shape):
    return relax.const(RNG.normal(size=shape).astype(F))


def flat(e, x, axes, rows, scale=None):
    """Permute, then flatten to ``rows``; with ``scale``, quantize and dequantize around the flatten."""
    x = e(R.permute_dims(x, axes))
    for step in (lambda v: v, lambda v: e(R.reshape(v, (rows, -1)))):
        x = step(x)
        if scale is not None:
            q = e(R.quantize(x, relax.const(F(scale)), relax.const(I(3)), axis=0, out_dtype="int8"))
            x = e(R.dequantize(q, relax.const(F(scale)), relax.const(I(3)), axis=0))
    return x


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("scale", [None, 0.02])
def test_flatten_of_a_picture(batch, scale):
    mod = module(lambda e, x: e(R.matmul(flat(e, x, [0, 3, 1, 2], batch, scale), c(2 * 3 * 4, 5))), (batch, 2, 3, 4))
    after = FoldPermutation()(mod)
    assert "permute_dims" in ops(mod) and "permute_dims" not in ops(after) and ops(after)[0] == "reshape"
    assert ops(after).count("quantize") == ops(mod).count("quantize")
    assert_same(mod, after, 1e-6)


def quantized_layer(axis):
    count = (24, 5)[axis]

    def build(e, x):
        w = e(
            R.dequantize(
                relax.const(RNG.integers(-127, 128, (24, 5)).astype(I)),
                relax.const(RNG.uniform(0.1, 1, count).astype(F)),
                relax.const(np.zeros(count, I)),
                axis=axis,
            )
        )
        return e(R.matmul(flat(e, x, [0, 3, 1, 2], 1, 0.02), w))

    return module(build, (1, 2, 3, 4))


def test_quantized_weights_keep_their_scales_on_the_outputs():
    mod = quantized_layer(1)
    after = FoldPermutation()(mod)
    assert "permute_dims" not in ops(after)
    weight = next(
        v for _, v in bindings_of(after["main"]) if op_name(v) == "relax.dequantize" and isinstance(v.args[0], Constant)
    )
    assert int(weight.attrs.axis) == 1
    assert_same(mod, after, 1e-6)


def test_scales_along_the_rows_leave_the_layer_alone():
    assert "permute_dims" in ops(FoldPermutation()(quantized_layer(0)))


@pytest.mark.parametrize("axes, shape, rows", [([3, 0, 1, 2], (2, 2, 3, 4), 2), ([0, 2, 1, 3], (1, 3, 4, 2), 3)])
def test_mixed_rows_are_left(axes, shape, rows):
    """The batch or the tokens change places: that is no reordering of weight rows."""

    def build(e, x):
        moved = e(R.permute_dims(x, axes))
        flat_rows = e(R.reshape(moved, (rows, -1)))
        return e(R.matmul(flat_rows, c(int(np.prod(shape)) // rows, 5)))

    mod = module(build, shape)
    assert "permute_dims" in ops(FoldPermutation()(mod))


def test_two_layers_share_the_flattened_tensor_and_other_readers_keep_theirs():
    def build(e, x):
        rows = flat(e, x, [0, 3, 1, 2], 1)
        a, b = e(R.matmul(rows, c(24, 5))), e(R.matmul(rows, c(24, 7)))
        return e(relax.Tuple([a, b, rows]))

    mod = module(build, (1, 2, 3, 4))
    after = FoldPermutation()(mod)
    assert sorted(o for o in ops(after) if o) == ["matmul", "matmul", "permute_dims", "reshape", "reshape"]


def test_cnn_of_pytorch_keeps_only_the_input_transpose():
    """Conv, Relu, Flatten, Gemm as PyTorch exports them (NCHW, transB)."""
    values = {
        "w": RNG.normal(size=(4, 3, 3, 3)).astype(F),
        "v": RNG.normal(size=(6, 4 * 5 * 7)).astype(F),
        "b": np.ones(6, F),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "v", "b"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "cnn",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 5, 7])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 6])],
        [numpy_helper.from_array(v, n) for n, v in values.items()],
    )
    mod = load(onnx.helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)).mod
    after = normalize(mod)
    assert ops(after) == ["permute_dims", "nn.conv2d", "nn.relu", "reshape", "matmul", "add"]
    assert_same(mod, after)
