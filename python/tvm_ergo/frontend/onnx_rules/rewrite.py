"""Which rule takes which node, once the graph's shapes are known."""

from __future__ import annotations

import onnx

from tvm_ergo.frontend.onnx_rules import branches, contrib, four_bits, integers, qonnx, resize, spelling, windows
from tvm_ergo.frontend.onnx_rules.view import ONNX_DOMAINS, apply_rules, drop_unused

RULES = {
    **spelling.RULES,
    **dict.fromkeys(windows.WINDOWED, windows.auto_pad),
    "MaxPool": windows.max_pool,
    "LpPool": windows.lp_pool,
    "Pad": windows.pad,
    "Resize": resize.rule,
    "If": branches.both,
    "DequantizeLinear": four_bits.dequantize,
    "QuantizeLinear": four_bits.quantize,
    "SimplifiedLayerNormalization": contrib.simplified_layer_normalization,
    **integers.RULES,
}
_ONLY_WITH = {
    "Conv": "auto_pad",
    "ConvTranspose": "auto_pad",
    "AveragePool": "auto_pad",
    "QLinearConv": "auto_pad",
    "TopK": "sorted",
    **dict.fromkeys((n for n in spelling.RULES if n.startswith("Reduce")), "noop_with_empty_axes"),
}
"""Operators of which only nodes with an attribute need a rule: the view of the graph is not taken for the others."""


def rewrite(model: onnx.ModelProto) -> int:
    """Apply the rules in place; how many nodes were replaced. Errors: UnsupportedError naming the node."""
    present = {node.op_type for node in model.graph.node}
    replaced = apply_rules(model, lambda node: _rule(node, present))
    if replaced:
        drop_unused(model.graph)
    return replaced


def _rule(node: onnx.NodeProto, present: set[str]):
    if node.domain == contrib.DOMAIN:
        contrib.check_attributes(node)
        return contrib.RULES.get(node.op_type) or integers.MICROSOFT.get(node.op_type)
    if qonnx.is_known(node):
        return qonnx.RULES[node.op_type]
    if node.domain not in ONNX_DOMAINS:
        return None
    names = {a.name for a in node.attribute}
    if node.op_type in _ONLY_WITH and _ONLY_WITH[node.op_type] not in names:
        return None
    if node.op_type == "MaxPool" and "auto_pad" not in names and "Pad" not in present and len(node.output) < 2:
        return None
    if node.op_type in ("QuantizeLinear", "DequantizeLinear") and not names & {"block_size", "precision"}:
        return None
    if node.op_type == "Mul" and not present & {"ConvInteger", "MatMulInteger"}:
        return None
    return RULES.get(node.op_type)
