"""ONNX Runtime's own operators (domain com.microsoft; ContribOperators.md) by standard ones.

``QLinear*`` operators are in ``onnx_qoperator``; attention is not rewritten here.
"""

from __future__ import annotations

import numpy as np
from onnx import helper

from tvm_ergo.frontend.onnx_emitter import Emitter
from tvm_ergo.frontend.onnx_rules.view import View, given, place, texts
from tvm_ergo.target.errors import UnsupportedError

DOMAIN = "com.microsoft"
SAME_AS_ONNX = ("QuantizeLinear", "DequantizeLinear", "Pad", "GridSample", "Trilu")
"""Operators with ONNX's own meaning, in both domains since older opsets lack a type or the operator."""
KNOWN = {
    "Gelu": (),
    "BiasGelu": (),
    "FastGelu": (),
    "QuickGelu": ("alpha",),
    "FusedMatMul": ("alpha", "transA", "transB", "transBatchA", "transBatchB"),
    "TransposeMatMul": ("alpha", "transA", "transB", "transBatchA", "transBatchB"),
    "FusedGemm": (
        "alpha",
        "beta",
        "transA",
        "transB",
        "activation",
        "activation_alpha",
        "activation_beta",
        "activation_gamma",
    ),
    "FusedConv": (
        "auto_pad",
        "dilations",
        "group",
        "kernel_shape",
        "pads",
        "strides",
        "activation",
        "activation_params",
    ),
    "SkipLayerNormalization": ("epsilon",),
    "SkipSimplifiedLayerNormalization": ("epsilon",),
    "SimplifiedLayerNormalization": ("axis", "epsilon", "stash_type"),
    "EmbedLayerNormalization": ("epsilon", "mask_index_type"),
    "MatMulNBits": ("K", "N", "bits", "block_size", "accuracy_level", "weight_prepacked"),
    "DynamicQuantizeMatMul": (),
    "MatMulIntegerToFloat": (),
}
"""Operator -> the attributes known to us; ONNX has no schema that would refuse others."""


def _activation(e: Emitter, x: str, kind: str, parameters: list[float], y: str, where: str) -> None:
    """The activation fused into FusedConv or FusedGemm."""
    names = {"LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta"), "Elu": ("alpha",)}
    if kind in ("Relu", "Sigmoid", "Tanh", "Softplus", "HardSwish"):
        e.op(kind, [x], "activation", y)
    elif kind in names:
        e.op(kind, [x], "activation", y, **dict(zip(names[kind], parameters)))
    elif kind == "Clip":
        bounds = [e.constant(n, np.array(v, np.float32)) for n, v in zip(("low", "high"), parameters)]
        e.op("Clip", [x, *bounds], "activation", y)
    else:
        raise UnsupportedError(
            f"the fused activation {kind!r} is not known",
            where=where,
            required="Relu, LeakyRelu, Clip, Tanh, Sigmoid, HardSigmoid",
            remedy="export the model without ONNX Runtime's fusions (ORT_DISABLE_ALL or ORT_ENABLE_BASIC)",
        )


def fused_conv(node, e: Emitter, view: View) -> None:
    a = texts(node)
    kind, parameters = a.pop("activation", ""), list(a.pop("activation_params", []))
    x = e.named("Conv", node.input[:3], node.name, None if kind or given(node, 3) else node.output[0], **a)
    if given(node, 3):
        x = e.op("Add", [x, node.input[3]], "sum", None if kind else node.output[0])
    if kind:
        _activation(e, x, kind, parameters, node.output[0], place(node))


def fused_gemm(node, e: Emitter, view: View) -> None:
    a = texts(node)
    kind = a.pop("activation", "")
    parameters = [a.pop(f"activation_{n}") for n in ("alpha", "beta", "gamma") if f"activation_{n}" in a]
    x = e.named("Gemm", node.input, node.name, None if kind else node.output[0], **a)
    if kind:
        _activation(e, x, kind, parameters, node.output[0], place(node))


def fused_matmul(node, e: Emitter, view: View) -> None:
    """Transposes of the last two axes, of the batch axes (moved behind the rows), and a factor."""
    a, operands = texts(node), []
    for name, x in zip("AB", node.input):
        rank = view.rank(x)
        matrix, batch = a.get(f"trans{name}", 0), a.get(f"transBatch{name}", 0)
        if (matrix or batch) and rank is None:
            raise UnsupportedError(
                "the rank of an operand of FusedMatMul is not known",
                where=place(node),
                remedy="give the input's shape (--input-shape NAME=1,3,224,224)",
            )
        order = list(range(rank or 0))
        if batch and rank >= 3:  # stored [rows, batch..., columns]: the batch comes first again
            order = [*range(1, rank - 1), 0, rank - 1]
        if matrix:
            order[-2], order[-1] = order[-1], order[-2]
        operands.append(
            x if order == list(range(rank or 0)) else e.op("Transpose", [x], f"{name}_transposed", perm=order)
        )
    alpha = a.get("alpha", 1.0)
    x = e.named("MatMul", operands, node.name, node.output[0] if alpha == 1.0 else None)
    if alpha != 1.0:
        e.op(
            "Mul",
            [x, e.constant("alpha", np.array(alpha, view.dtype(node.input[0]) or np.float32))],
            "scaled",
            node.output[0],
        )


def quick_gelu(node, e: Emitter, view: View) -> None:
    """x * sigmoid(alpha * x)."""
    x, alpha = (
        node.input[0],
        e.constant("alpha", np.array(texts(node).get("alpha", 1.702), view.dtype(node.input[0]) or np.float32)),
    )
    e.op("Mul", [x, e.op("Sigmoid", [e.op("Mul", [x, alpha], "scaled")], "gate")], "gated", node.output[0])


def _norm_outputs(node, view: View, allowed: tuple[int, ...]) -> None:
    read = [i for i, name in enumerate(node.output) if i and name and (name in view.readers or name in view.outputs)]
    if any(i not in allowed for i in read):
        raise UnsupportedError(
            f"{node.op_type} with its mean or deviation as outputs is not supported",
            where=place(node),
            remedy="use the first output",
        )


def skip_layer_normalization(node, e: Emitter, view: View) -> None:
    """Sum of input, skip and bias, then LayerNormalization; the sum may be an output too."""
    _norm_outputs(node, view, (3,))
    simple = node.op_type.startswith("SkipSimplified")
    bias = given(node, 3 if simple else 4)
    sum_name = node.output[3] if len(node.output) > 3 and node.output[3] else None
    x = e.op("Add", node.input[:2], "sum", None if bias else sum_name)
    if bias:
        x = e.op("Add", [x, bias], "sum_bias", sum_name)
    epsilon = texts(node).get("epsilon", 1e-12)
    if simple:
        _root_mean_square(node, e, view, x, node.input[2], -1, epsilon)
        return
    gamma, beta = node.input[2], given(node, 3)
    e.named(
        "LayerNormalization",
        [x, gamma, beta] if beta else [x, gamma],
        node.name,
        node.output[0],
        axis=-1,
        epsilon=epsilon,
    )


def simplified_layer_normalization(node, e: Emitter, view: View) -> None:
    _norm_outputs(node, view, ())
    a = texts(node)
    _root_mean_square(node, e, view, node.input[0], node.input[1], a.get("axis", -1), a.get("epsilon", 1e-5))


def _root_mean_square(node, e: Emitter, view: View, x: str, gamma: str, axis: int, epsilon: float) -> None:
    """x / sqrt(mean(x * x) + epsilon) * gamma over the axes from ``axis`` on."""
    if view.opset >= 23:
        e.named("RMSNormalization", [x, gamma], node.name, node.output[0], axis=axis, epsilon=epsilon)
        return
    kind, rank = view.dtype(node.input[0]) or np.float32, view.rank(node.input[0])
    if axis != -1 and rank is None:
        raise UnsupportedError(
            f"the rank of the input of {node.op_type} is not known",
            where=place(node),
            remedy="give the input's shape (--input-shape NAME=1,3,224,224)",
        )
    axes = [-1] if axis == -1 else list(range(axis % rank, rank))
    square = e.op("Mul", [x, x], "square")
    mean = (
        e.op("ReduceMean", [square, e.constant("axes", np.array(axes, np.int64))], "mean", keepdims=1)
        if view.opset >= 18
        else e.op("ReduceMean", [square], "mean", axes=axes, keepdims=1)
    )
    root = e.op("Sqrt", [e.op("Add", [mean, e.constant("epsilon", np.array(epsilon, kind))], "mean_epsilon")], "root")
    e.op("Mul", [e.op("Div", [x, root], "normalized"), gamma], "scaled", node.output[0])


def same(node, e: Emitter, view: View) -> None:
    e.nodes.append(helper.make_node(node.op_type, node.input, node.output, name=node.name, **texts(node)))


def check_attributes(node) -> None:
    """Errors: UnsupportedError for an attribute we know nothing of: dropping it could change the result."""
    if node.op_type not in KNOWN:
        return
    unknown = [a.name for a in node.attribute if a.name not in KNOWN[node.op_type]]
    if unknown:
        raise UnsupportedError(
            f"attribute {unknown[0]!r} of {node.op_type} is not known",
            where=place(node),
            required=", ".join(KNOWN[node.op_type]) or "no attributes",
            remedy="write the model with standard ONNX operators",
        )


RULES = {
    "FusedConv": fused_conv,
    "FusedGemm": fused_gemm,
    "FusedMatMul": fused_matmul,
    "TransposeMatMul": fused_matmul,
    "QuickGelu": quick_gelu,
    "SkipLayerNormalization": skip_layer_normalization,
    "SkipSimplifiedLayerNormalization": skip_layer_normalization,
    "SimplifiedLayerNormalization": simplified_layer_normalization,
    **dict.fromkeys(SAME_AS_ONNX, same),
}
