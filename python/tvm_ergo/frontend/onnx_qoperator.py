"""ONNX's QOperator format: operators on stored integers become float operators between DequantizeLinear and
QuantizeLinear.

``QLinearConv`` and ``QLinearMatMul`` are ONNX's own; the others are ONNX Runtime's (domain com.microsoft), written by
its quantizer with ``quant_format=QOperator`` and by its optimizer. A rule takes ``(node, emitter, constants, opset)``;
``constants`` holds the initializers and constants of the graph by name. What each operator means, with the order of its
inputs: ONNX's operator list, and ContribOperators.md of ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from tvm_ergo.frontend.onnx_emitter import Emitter, attributes_of
from tvm_ergo.target.errors import ModelError, UnsupportedError


def _inputs(node: onnx.NodeProto, count: int) -> list[str]:
    """The node's inputs, "" for absent ones."""
    return [*node.input, *[""] * count][:count]


def _array(node: onnx.NodeProto, constants, name: str) -> np.ndarray:
    if name not in constants:
        raise ModelError(
            "a quantization scale is not a constant",
            where=f"node {node.name or node.output[0]!r}, input {name!r}",
            remedy="export the model with constant scales (static quantization)",
        )
    return numpy_helper.to_array(constants[name])


def _parameters(node, e: Emitter, constants, names, key: str, factor: float = 1.0) -> list[str]:
    """Scale and zero point, arrays of one element as scalars; the scale times ``factor``."""
    scale = _array(node, constants, names[0])
    made = [
        e.constant(
            f"{key}_scale", np.asarray(scale * np.float32(factor), np.float32).reshape(() if scale.size == 1 else -1)
        )
    ]
    if names[1]:
        zero = _array(node, constants, names[1])
        made.append(e.constant(f"{key}_zero_point", zero.reshape(() if zero.size == 1 else -1)))
    return made


def _real(node, e: Emitter, constants, triple, key: str) -> str:
    """An activation as a real tensor. Errors: UnsupportedError for scales that vary inside it."""
    if _array(node, constants, triple[1]).size != 1:
        raise UnsupportedError(
            "an activation has several scales",
            where=f"node {node.name or node.output[0]!r}, input {triple[0]!r}",
            required="one scale and zero point per tensor",
            remedy="quantize activations per tensor",
        )
    return e.op("DequantizeLinear", [triple[0], *_parameters(node, e, constants, triple[1:], key)], key)


def _real_weight(node, e: Emitter, constants, triple, axis: int, key: str, factor: float = 1.0) -> str:
    """A weight as a real tensor; several scales lie along ``axis``."""
    several = {"axis": axis} if _array(node, constants, triple[1]).size > 1 else {}
    return e.op(
        "DequantizeLinear", [triple[0], *_parameters(node, e, constants, triple[1:], key, factor)], key, **several
    )


def _real_bias(node, e: Emitter, constants, bias: str, scale: np.ndarray) -> str:
    """An int32 bias, zero point 0, at the product of the operands' scales."""
    several = scale.size > 1
    made = e.constant("bias_scale", np.asarray(scale, np.float32).reshape(-1 if several else ()))
    shape = constants[bias].dims if bias in constants else ()
    return e.op("DequantizeLinear", [bias, made], "bias", **({"axis": max(len(shape) - 1, 0)} if several else {}))


def _finish(node, e: Emitter, constants, kind: str, operands: list[str], parameters, **attributes) -> None:
    """The float operator under the node's own name, and its output quantized; without a scale it stays real."""
    if len(parameters) < 2 or not parameters[0]:
        e.named(kind, operands, node.name, node.output[0], **attributes)
        return
    real = e.named(kind, operands, node.name, **attributes)
    e.op("QuantizeLinear", [real, *_parameters(node, e, constants, parameters, "y")], "quantize", node.output[0])


def _channels_first(node, attributes: dict) -> dict:
    """Attributes without ``channels_last``. Errors: UnsupportedError if it is set."""
    if attributes.pop("channels_last", 0):
        raise UnsupportedError(
            f"{node.op_type} with channels last is not supported",
            where=f"node {node.name or node.output[0]!r}",
            remedy="give the model as the quantizer wrote it, before ONNX Runtime's layout optimization",
        )
    return attributes


def _conv(node, e: Emitter, constants, opset: int) -> None:
    x, w, y, bias = node.input[0:3], node.input[3:6], node.input[6:8], _inputs(node, 9)[8]
    operands = [_real(node, e, constants, x, "x"), _real_weight(node, e, constants, w, 0, "w")]
    if bias:
        scale = _array(node, constants, x[1]).reshape(-1) * _array(node, constants, w[1]).reshape(-1)
        operands.append(_real_bias(node, e, constants, bias, scale))
    _finish(node, e, constants, "Conv", operands, y, **_channels_first(node, attributes_of(node)))


def _matmul(node, e: Emitter, constants, opset: int) -> None:
    a, b, y = node.input[0:3], node.input[3:6], node.input[6:8]
    scales = _array(node, constants, b[1])
    if scales.size > 1 and scales.shape[-1] != scales.size:
        raise UnsupportedError(
            "QLinearMatMul with scales per matrix is not supported",
            where=f"node {node.name or node.output[0]!r}",
            available=f"scales of shape {scales.shape}",
            required="one scale, or one per output column",
            remedy="quantize it with one scale per tensor",
        )
    axis = len(constants[b[0]].dims) - 1 if b[0] in constants else -1
    operands = [_real(node, e, constants, a, "a"), _real_weight(node, e, constants, b, axis, "b")]
    _finish(node, e, constants, "MatMul", operands, y)


def _gemm(node, e: Emitter, constants, opset: int) -> None:
    """alpha goes into the scale of B: the bias counts in steps of alpha * a_scale * b_scale."""
    names, attributes = _inputs(node, 9), attributes_of(node)
    a, b, bias, y = names[0:3], names[3:6], names[6], names[7:9]
    alpha = attributes.pop("alpha", 1.0)
    operands = [
        _real(node, e, constants, a, "a"),
        _real_weight(node, e, constants, b, 0 if attributes.get("transB", 0) else 1, "b", alpha),
    ]
    if bias:
        scale = (
            np.float32(alpha) * _array(node, constants, a[1]).reshape(-1) * _array(node, constants, b[1]).reshape(-1)
        )
        operands.append(_real_bias(node, e, constants, bias, scale))
    _finish(node, e, constants, "Gemm", operands, y, **attributes)


def _binary(kind: str):
    def rule(node, e: Emitter, constants, opset: int) -> None:
        names = _inputs(node, 8)
        operands = [_real(node, e, constants, names[0:3], "a"), _real(node, e, constants, names[3:6], "b")]
        _finish(node, e, constants, kind, operands, names[6:8])

    return rule


def _unary(kind: str):
    """One data input, then its parameters, then the output's; attributes pass on."""

    def rule(node, e: Emitter, constants, opset: int) -> None:
        names = _inputs(node, 5)
        _finish(
            node,
            e,
            constants,
            kind,
            [_real(node, e, constants, names[0:3], "x")],
            names[3:5],
            **_channels_first(node, attributes_of(node)),
        )

    return rule


def _softmax(node, e: Emitter, constants, opset: int) -> None:
    """Before opset 13 all axes from ``axis`` on were one; the operator says which of the two it means."""
    names, attributes = _inputs(node, 5), attributes_of(node)
    axis, meant = attributes.get("axis", -1), attributes.get("opset", opset)
    if (meant < 13) != (opset < 13) and axis != -1:
        raise UnsupportedError(
            f"QLinearSoftmax of opset {meant} in a model of opset {opset} is not supported",
            where=f"node {node.name or node.output[0]!r}, axis {axis}",
            remedy="use axis -1, or convert the model's opset",
        )
    _finish(node, e, constants, "Softmax", [_real(node, e, constants, names[0:3], "x")], names[3:5], axis=axis)


def _concat(node, e: Emitter, constants, opset: int) -> None:
    triples = [list(node.input[i : i + 3]) for i in range(2, len(node.input), 3)]
    operands = [_real(node, e, constants, triple, f"x{i}") for i, triple in enumerate(triples)]
    _finish(node, e, constants, "Concat", operands, node.input[0:2], **attributes_of(node))


def _where(node, e: Emitter, constants, opset: int) -> None:
    operands = [
        node.input[0],
        _real(node, e, constants, node.input[1:4], "x"),
        _real(node, e, constants, node.input[4:7], "y_operand"),
    ]
    _finish(node, e, constants, "Where", operands, node.input[7:9])


RULES = {
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    "QGemm": _gemm,
    "QLinearAdd": _binary("Add"),
    "QLinearMul": _binary("Mul"),
    "QLinearAveragePool": _unary("AveragePool"),
    "QLinearGlobalAveragePool": _unary("GlobalAveragePool"),
    "QLinearSigmoid": _unary("Sigmoid"),
    "QLinearLeakyRelu": _unary("LeakyRelu"),
    "QLinearSoftmax": _softmax,
    "QLinearConcat": _concat,
    "QLinearWhere": _where,
}
