"""Which rule takes which node, once the graph's shapes are known."""

from __future__ import annotations

import onnx

from tvm_ergo.frontend.onnx_rules import resize, windows
from tvm_ergo.frontend.onnx_rules.view import ONNX_DOMAINS, apply_rules

RULES = {**dict.fromkeys(windows.WINDOWED, windows.auto_pad), "MaxPool": windows.max_pool, "Pad": windows.pad, "Resize": resize.rule}


def rewrite(model: onnx.ModelProto) -> int:
    """Apply the rules in place; how many nodes were replaced. Errors: UnsupportedError naming the node."""
    pads = any(node.op_type == "Pad" for node in model.graph.node)
    return apply_rules(model, lambda node: _rule(node, pads))


def _rule(node: onnx.NodeProto, pads: bool):
    if node.domain not in ONNX_DOMAINS:
        return None
    automatic = any(a.name == "auto_pad" for a in node.attribute)
    if node.op_type in windows.WINDOWED and not automatic and not (pads and node.op_type == "MaxPool"):
        return None
    return RULES.get(node.op_type)
