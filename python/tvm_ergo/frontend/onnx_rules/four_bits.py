"""Weights of 4 bits and weights with a scale per block, as int8: what the chip's product reads.

int4 and uint4 values fit int8 one to one, whatever their zero points: the difference of both lies in -15..15. A scale
per block of the summed axis does not: where the product's activations are quantized, such a weight is brought to one
scale per output channel (at most half a step of 1/127 of the channel's greatest weight off, a small part of a 4-bit
step); everywhere else it becomes the real numbers it stands for."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from tvm_ergo.frontend.onnx_emitter import Emitter
from tvm_ergo.frontend.onnx_rules.view import View, given, place, texts
from tvm_ergo.target.errors import UnsupportedError

_NARROW = {
    onnx.TensorProto.INT4: np.int8,
    onnx.TensorProto.UINT4: np.uint8,
    **({onnx.TensorProto.INT2: np.int8, onnx.TensorProto.UINT2: np.uint8} if hasattr(onnx.TensorProto, "INT2") else {}),
}


def widen(model: onnx.ModelProto) -> None:
    """Constants of 4 (and 2) bits that DequantizeLinear reads become int8 or uint8, in place: the same values, or,
    where their zero points are known and there are no blocks, the differences to those.

    A tensor that something else reads stays, and is refused by its type later.
    """
    graph = model.graph
    stored = {t.name: t for t in graph.initializer}
    stored |= {
        n.output[0]: a.t for n in graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"
    }
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    changed: set[str] = set()
    for name, tensor in stored.items():
        if tensor.data_type in _NARROW and readers.get(name, set()) <= {"DequantizeLinear"}:
            values = numpy_helper.to_array(tensor).astype(_NARROW[tensor.data_type])
            tensor.CopyFrom(numpy_helper.from_array(values, name))
            changed.add(name)
    for node in graph.node:
        if (
            node.op_type == "DequantizeLinear"
            and node.input[0] in changed
            and given(node, 2) in changed
            and not texts(node).get("block_size", 0)
        ):
            _centre(node, graph, stored)


def _centre(node, graph, stored) -> None:
    """The weight minus its zero points, per channel too, as int8 under a name of its own."""
    w, zero = (numpy_helper.to_array(stored[name]).astype(np.int16) for name in (node.input[0], node.input[2]))
    shape = [-1 if a == texts(node).get("axis", 1) % max(w.ndim, 1) else 1 for a in range(w.ndim)]
    name = f"{node.output[0]}_centred"
    graph.initializer.append(
        numpy_helper.from_array(
            (w - (zero.reshape(shape) if zero.size > 1 else zero.reshape(()))).astype(np.int8), name
        )
    )
    node.input[0] = name
    del node.input[2:]


def dequantize(node, e: Emitter, view: View):
    """Constants in uint8 that stand for 4 bits, and blocks."""
    block = texts(node).get("block_size", 0)
    if not block:
        return False
    stored, scale = view.need_array(node, 0, "blocked integers"), view.need_array(node, 1, "scales").astype(np.float32)
    axis = texts(node).get("axis", 1) % stored.ndim
    zero = view.need_array(node, 2, "zero points") if given(node, 2) else np.zeros(scale.shape, np.int8)
    index = np.arange(stored.shape[axis]) // block
    if scale.ndim != stored.ndim or index[-1] >= scale.shape[axis]:
        raise UnsupportedError(
            "the scales of a blocked DequantizeLinear do not fit its blocks",
            where=place(node),
            available=f"scales {scale.shape} for {stored.shape} in blocks of {block} along axis {axis}",
            remedy="quantize the weights again; the file does not follow ONNX",
        )
    centred = stored.astype(np.int32) - zero.astype(np.int32).take(index, axis=axis)
    real = centred * scale.take(index, axis=axis)
    channel = _channel_of_product(node, view, stored.ndim)
    if channel is None or channel == axis:
        e.op("Identity", [e.constant("real", real.astype(np.float32))], "value", node.output[0])
        return None
    others = tuple(a for a in range(stored.ndim) if a != channel)
    if (
        scale.shape[axis] == 1 and np.abs(centred).max(initial=0) <= 127
    ):  # one block: the scales are per channel already
        steps, codes = scale.reshape(-1), centred
    else:
        steps = (np.abs(real).max(axis=others) / 127).astype(np.float32)
        steps[steps == 0] = 1
        codes = np.rint(real / steps.reshape([-1 if a == channel else 1 for a in range(stored.ndim)]))
    parts = [e.constant("stored", codes.astype(np.int8)), e.constant("scale", steps)]
    e.named("DequantizeLinear", parts, node.name, node.output[0], axis=channel)
    return None


def _channel_of_product(node, view: View, rank: int) -> int | None:
    """The output channels' axis of a weight whose one reader multiplies quantized activations with it; None
    elsewhere."""
    reader = view.only_reader(node.output[0])
    if (
        reader is None
        or reader.op_type not in ("MatMul", "Gemm", "Conv")
        or list(reader.input).index(node.output[0]) != 1
    ):
        return None
    source = view.producer.get(reader.input[0])
    if source is None or source.op_type != "DequantizeLinear":
        return None
    if reader.op_type == "Conv" or texts(reader).get("transB", 0):
        return 0
    return rank - 1


def quantize(node, e: Emitter, view: View):
    """Errors: UnsupportedError for blocks and precisions of an activation: the chip has one scale per tensor."""
    for name in ("block_size", "precision"):
        if texts(node).get(name, 0):
            raise UnsupportedError(
                f"QuantizeLinear with {name} is not supported",
                where=place(node),
                required="one scale per tensor",
                remedy="quantize activations per tensor",
            )
    return False
