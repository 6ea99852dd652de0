"""Operators of PyTorch's quantized exports (pt2e), which TVM's importer lacks: ``quantized_decomposed.*`` as quantize
and dequantize.

A converter takes ``(node, importer)``. Scales and zero points are numbers of the graph or tensors of the program;
quantization that is chosen while the model runs (``choose_qparams``) is refused. Definitions:
torch/ao/quantization/fx/_decomposed.py of PyTorch."""

from __future__ import annotations

import numpy as np
import torch
from tvm import relax

from tvm_ergo.relay_passes.relax_utils import array_of, const, shape_of
from tvm_ergo.target.errors import UnsupportedError

_STORED = {torch.int8: "int8", torch.uint8: "uint8", torch.int32: "int32"}


def converters(program: torch.export.ExportedProgram) -> dict:
    """By operator name, for this program's graph."""
    tensors = _tensors(program)

    def value(argument):
        """A number, or the content of a tensor of the program."""
        if isinstance(argument, torch.fx.Node):
            if argument.name not in tensors:
                raise UnsupportedError(
                    "a scale or zero point is not a constant",
                    where=argument.name,
                    remedy="quantize the model statically, with calibration data",
                )
            return tensors[argument.name].detach().cpu().numpy()
        return 0 if argument is None else argument

    def parameters(scale, zero_point):
        scale, zero_point = np.asarray(value(scale), np.float32), np.asarray(value(zero_point))
        zero_point = np.broadcast_to(zero_point, scale.shape)
        if scale.size == 1:
            scale, zero_point = scale.reshape(()), zero_point.reshape(())
        return const(scale), np.array(zero_point)

    def stored(node, dtype) -> str:
        if dtype not in _STORED:
            raise UnsupportedError(
                "tensors of this element type are not supported",
                where=node.name,
                available=str(dtype),
                required=", ".join(map(str, _STORED)),
                remedy="quantize with one of these element types",
            )
        return _STORED[dtype]

    def quantize(node, importer, axis: int | None, low, high, dtype):
        x, kind, emit = importer.env[node.args[0]], stored(node, dtype), importer.block_builder.emit
        scale, zero = parameters(node.args[1], node.args[2])
        zero, axis = const(zero.astype(kind)), _axis(x, axis)
        made = emit(relax.op.quantize(x, scale, zero, axis=axis, out_dtype=kind))
        limits, low, high = np.iinfo(kind), int(value(low)), int(value(high))
        if low <= limits.min and high >= limits.max:
            return made
        if node.args[0].op != "placeholder":
            return emit(relax.op.clip(made, low, high))  # becomes bounds of what computes x
        if array_of(scale).size > 1:
            return emit(relax.op.clip(made, low, high))
        ends = [float(np.float32(end - int(array_of(zero))) * array_of(scale)) for end in (low, high)]
        real = emit(
            relax.op.clip(emit(relax.op.dequantize(made, scale, zero, axis=axis)), *ends)
        )  # an input arrives quantized: it is bounded on the chip
        return emit(relax.op.quantize(real, scale, zero, axis=axis, out_dtype=kind))

    def dequantize(node, importer, axis: int | None, dtype):
        x, kind = importer.env[node.args[0]], stored(node, dtype)
        if node.kwargs.get("out_dtype") not in (None, torch.float32):
            raise UnsupportedError(
                "a quantized tensor becomes another type than float32",
                where=node.name,
                available=str(node.kwargs["out_dtype"]),
                remedy="export the network in float32 before it is quantized",
            )
        scale, zero = parameters(node.args[1], node.args[2])
        return importer.block_builder.emit(relax.op.dequantize(x, scale, const(zero.astype(kind)), axis=_axis(x, axis)))

    def tensor_quantize(node, importer):
        return quantize(node, importer, None, *node.args[3:6])

    def tensor_dequantize(node, importer):
        return dequantize(node, importer, None, node.args[5])

    def channel_quantize(node, importer):
        return quantize(node, importer, node.args[3], *node.args[4:7])

    def channel_dequantize(node, importer):
        return dequantize(node, importer, node.args[3], node.args[6])

    return {
        **{f"quantize_per_tensor.{o}": tensor_quantize for o in ("default", "tensor", "tensor2")},
        **{f"dequantize_per_tensor.{o}": tensor_dequantize for o in ("default", "tensor", "tensor2")},
        "quantize_per_channel.default": channel_quantize,
        "dequantize_per_channel.default": channel_dequantize,
    }


def _axis(x, axis: int | None) -> int:
    rank = len(shape_of(x))
    return max(rank - 1, 0) if axis is None else axis % rank


def _tensors(program: torch.export.ExportedProgram) -> dict[str, torch.Tensor]:
    """Parameters, buffers and constants by the name of their node."""
    signature, found = program.graph_signature, {}
    for names in (signature.inputs_to_parameters, signature.inputs_to_buffers):
        found.update(
            {node: program.state_dict[target] for node, target in names.items() if target in program.state_dict}
        )
    for spec in signature.input_specs:
        if spec.target in program.constants and isinstance(program.constants[spec.target], torch.Tensor):
            found[spec.arg.name] = program.constants[spec.target]
    return found
