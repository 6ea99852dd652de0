"""Operators on integers that ONNX Runtime's dynamic quantization writes.

``DynamicQuantizeLinear`` measures a tensor's range at every run; the chip's scales are fixed when the network is
compiled. Where its result goes into a product with constant weights and back to real numbers by the same scale, the
product is written in real numbers, with the weights as the file stores them: what the dynamic form approximates. It
then needs calibration data, as any float network. Other uses stay integers, computed in float64, which is exact up to
2**53, on the host."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from tvm_ergo.frontend.onnx_emitter import Emitter
from tvm_ergo.frontend.onnx_rules.view import View, given, texts

_KINDS = {"ConvInteger": "Conv", "MatMulInteger": "MatMul"}


def scaled(node, e: Emitter, view: View):
    """``Mul(Cast(ConvInteger(q, w, z)), s * ws)`` with ``q, s, z`` of one DynamicQuantizeLinear: the float operator, as
    this Mul's result."""
    found = _dynamic_product(node, view)
    if found is None:
        return False
    product, source, factor = found
    _float_product(product, e, view, source, factor, node)
    return None


def _dynamic_product(mul: onnx.NodeProto, view: View):
    """``(integer product, the real input, weight scale)`` behind a Mul, or None."""
    if len(mul.input) != 2:
        return None
    for real, factor in (mul.input, reversed(mul.input)):
        cast = view.producer.get(real)
        product = view.producer.get(cast.input[0]) if cast is not None and cast.op_type == "Cast" else None
        if product is None or product.op_type not in _KINDS or texts(cast)["to"] != TensorProto.FLOAT:
            continue
        dynamic = view.producer.get(product.input[0])
        if dynamic is None or dynamic.op_type != "DynamicQuantizeLinear" or given(product, 2) != dynamic.output[2]:
            continue
        weight_zero = view.array(given(product, 3)) if given(product, 3) else np.zeros((), np.int32)
        scale = _without(view, factor, dynamic.output[1])
        if view.array(product.input[1]) is not None and weight_zero is not None and scale is not None:
            return product, dynamic.input[0], scale
    return None


def _without(view: View, factor: str, scale: str) -> np.ndarray | None:
    """The constant c of ``factor = scale * c``."""
    if factor == scale:
        return np.ones((), np.float32)
    node = view.producer.get(factor)
    if node is None or node.op_type != "Mul" or scale not in node.input:
        return None
    return view.array(node.input[1] if node.input[0] == scale else node.input[0])


def _float_product(product, e: Emitter, view: View, source: str, scale: np.ndarray, mul: onnx.NodeProto) -> None:
    kind, w = _KINDS[product.op_type], view.array(product.input[1])
    zero = view.array(given(product, 3)) if given(product, 3) else np.zeros((), w.dtype)
    channel = 0 if kind == "Conv" else w.ndim - 1
    weight = _stored(e, w, zero, scale, channel)
    e.named(kind, [source, weight], product.name or product.output[0], mul.output[0], **texts(product))


def _stored(e: Emitter, w: np.ndarray, zero: np.ndarray, scale: np.ndarray, channel: int) -> str:
    """Weights as DequantizeLinear of int8 with zero point 0 where they fit, else as real numbers."""
    shape = [-1 if i == channel else 1 for i in range(w.ndim)]
    wide = w.astype(np.int32) - (
        zero.astype(np.int32).reshape(shape) if zero.size > 1 else zero.astype(np.int32).reshape(())
    )
    scale = np.asarray(scale, np.float32).reshape(-1)
    if np.abs(wide).max(initial=0) <= 127:
        several = {"axis": channel} if scale.size > 1 else {}
        made = [
            e.constant("w", wide.astype(np.int8)),
            e.constant("w_scale", scale if scale.size > 1 else scale.reshape(())),
        ]
        return e.op("DequantizeLinear", made, "w_real", **several)
    return e.constant("w_real", (wide * (scale.reshape(shape) if scale.size > 1 else scale)).astype(np.float32))


def product(node, e: Emitter, view: View) -> None:
    """Any other integer product: in float64, whose result is exact."""
    operands = []
    for i, name in enumerate(node.input[:2]):
        real = e.op("Cast", [name], f"operand{i}", to=TensorProto.DOUBLE)
        zero = given(node, 2 + i)
        if zero:
            wide = e.op("Cast", [zero], f"zero{i}", to=TensorProto.DOUBLE)
            rank, values = view.rank(zero), view.rank(name)
            if (
                rank == 1 and (view.shape(zero) or (0,))[0] > 1 and values is not None
            ):  # per output channel of the weights, per row of A
                axis = {("ConvInteger", 1): 0, ("MatMulInteger", 1): values - 1}.get((node.op_type, i), values - 2)
                shape = np.array([-1 if a == axis else 1 for a in range(values)], np.int64)
                wide = e.op("Reshape", [wide, e.constant(f"zero{i}_shape", shape)], f"zero{i}_aligned")
            real = e.op("Sub", [real, wide], f"operand{i}_centred")
        operands.append(real)
    real = e.op(_KINDS[node.op_type], operands, "product", **texts(node))
    e.op("Cast", [real], "integer", node.output[0], to=TensorProto.INT32)


def dynamic_matmul(node, e: Emitter, view: View):
    """DynamicQuantizeMatMul(A, B, b_scale, b_zero_point, bias): the float product with the stored weights."""
    w, scale = view.array(node.input[1]), view.array(node.input[2])
    zero = view.array(given(node, 3)) if given(node, 3) else np.zeros((), np.int8)
    if w is None or scale is None or zero is None:
        return False
    x = e.named(
        "MatMul",
        [node.input[0], _stored(e, w, zero, scale, w.ndim - 1)],
        node.name,
        None if given(node, 4) else node.output[0],
    )
    if given(node, 4):
        e.op("Add", [x, node.input[4]], "biased", node.output[0])
    return None


def to_float(node, e: Emitter, view: View):
    """MatMulIntegerToFloat(A, B, a_scale, b_scale, a_zero_point, b_zero_point, bias) behind a DynamicQuantizeLinear, or
    of stored scales."""
    a, b, a_scale, b_scale, a_zero, b_zero, bias = [*node.input, *[""] * 7][:7]
    w, scale = view.array(b), view.array(b_scale)
    zero = view.array(b_zero) if b_zero else np.zeros((), np.int8)
    if w is None or scale is None or zero is None:
        return False
    dynamic = view.producer.get(a)
    if dynamic is not None and dynamic.op_type == "DynamicQuantizeLinear" and a_scale == dynamic.output[1]:
        x = dynamic.input[0]
    else:
        x = e.op("DequantizeLinear", [n for n in (a, a_scale, a_zero) if n], "a_real")
    y = e.named("MatMul", [x, _stored(e, w, zero, scale, w.ndim - 1)], node.name, None if bias else node.output[0])
    if bias:
        e.op("Add", [y, bias], "biased", node.output[0])
    return None


def matmul_n_bits(node, e: Emitter, view: View):
    """Weights [N, blocks, bytes] of ``bits`` each, a scale per block of K: MatMul with the real weights [K, N]."""
    a = texts(node)
    k, n, bits, block = a["K"], a["N"], a.get("bits", 4), a["block_size"]
    packed, scales = view.need_array(node, 1, "weights"), view.need_array(node, 2, "scales").reshape(n, -1)
    codes = _unpacked(packed.reshape(n, -1), bits).reshape(n, -1)
    blocks = scales.shape[1]
    if given(node, 3):
        zero = view.need_array(node, 3, "zero points")
        if zero.dtype == np.uint8:
            zero = _unpacked(zero.reshape(n, -1), bits)
        zero = zero.reshape(n, -1)[:, :blocks].astype(np.float32)
    else:
        zero = np.full((n, blocks), 1 << (bits - 1), np.float32)
    order = np.arange(k) // block
    if given(node, 4):
        groups = view.need_array(node, 4, "group indices")[:k]
        order = groups.astype(np.int64)
    real = (codes[:, :k].astype(np.float32) - zero[:, order]) * scales[:, order].astype(np.float32)
    x = e.named(
        "MatMul",
        [node.input[0], e.constant("weights", np.ascontiguousarray(real.T))],
        node.name,
        None if given(node, 5) else node.output[0],
    )
    if given(node, 5):
        e.op("Add", [x, node.input[5]], "biased", node.output[0])


def _unpacked(data: np.ndarray, bits: int) -> np.ndarray:
    """Codes of ``bits`` (2, 4 or 8) of each byte of uint8[N, M], low ones first: uint8[N, M * 8 / bits]."""
    parts = [(data >> shift) & ((1 << bits) - 1) for shift in range(0, 8, bits)]
    return np.stack(parts, axis=-1).reshape(data.shape[0], -1)


RULES = {"Mul": scaled, "ConvInteger": product, "MatMulInteger": product}
MICROSOFT = {"DynamicQuantizeMatMul": dynamic_matmul, "MatMulIntegerToFloat": to_float, "MatMulNBits": matmul_n_bits}
