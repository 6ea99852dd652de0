"""TFLite to Relax over TVM's importer: tensor names kept, quantized data movement lowered to QDQ."""

from __future__ import annotations

import struct

import numpy as np
import tflite
import tvm
from tvm import relax
from tvm.relax.frontend.tflite import tflite_frontend

from tvm_ergo.frontend.imported import Imported, SourceFormat, describe, require_finite, resolve_shapes
from tvm_ergo.frontend.names import name_helpers
from tvm_ergo.relay_passes.relax_utils import Call, safe_name
from tvm_ergo.target.errors import ModelError, UnsupportedError

_MOVEMENT = ("TRANSPOSE", "SLICE", "STRIDED_SLICE", "SQUEEZE", "EXPAND_DIMS", "RESIZE_NEAREST_NEIGHBOR", "MIRROR_PAD",
             "DEPTH_TO_SPACE", "SPACE_TO_DEPTH", "GATHER")


class QdqConverter(tflite_frontend.OperatorConverter):
    """TVM's operator converter plus: results bound under tensor names, and QDQ forms of quantized pads and movements."""

    _SUPPORTED_QUANTIZED_OPS = tflite_frontend.OperatorConverter._SUPPORTED_QUANTIZED_OPS | {"PAD", "PADV2", *_MOVEMENT}

    def __init__(self, model, subgraph, exp_tab, ctx, conversion_state=None):
        super().__init__(model, subgraph, exp_tab, ctx, conversion_state)
        for name in _MOVEMENT:
            self.convert_map[name] = lambda op, convert=self.convert_map[name]: self._movement(op, convert)
        self.convert_map["PAD"] = self.convert_map["PADV2"] = self._pad

    def _name(self, tensor_idx: int) -> str:
        return tflite_frontend.get_tensor_name(self.subgraph, tensor_idx)

    def convert_op_to_relax(self):
        for index in range(self.subgraph.OperatorsLength()):
            op = self.subgraph.Operators(index)
            result = self.convert_map[self.get_op_code_str(op)](op=op)
            if result is None:
                continue
            result = self.bb.normalize(result)
            outputs = self.get_output_tensors(op)
            if len(outputs) == 1:
                name = self._name(outputs[0].tensor_idx)
                self.exp_tab.set_expr(name, self.bb.emit(result, safe_name(name)) if isinstance(result, Call) else result)
                continue
            for i, output in enumerate(outputs):
                self.exp_tab.set_expr(self._name(output.tensor_idx), self.bb.emit(result[i], safe_name(self._name(output.tensor_idx))))

    def _movement(self, op, convert):
        """``quantize(convert(dequantize(x)))`` for a quantized input, ``convert(x)`` otherwise."""
        source, out = self.get_input_tensors(op)[0], self.get_output_tensors(op)[0]
        if source.qnn_params is None or out.qnn_params is None:
            return convert(op=op)
        name = self._name(source.tensor_idx)
        stored = self.get_tensor_expr(source)
        self.exp_tab.set_expr(name, self.bb.normalize(self.dequantize(stored, source)), force_override=True)
        moved = convert(op=op)
        self.exp_tab.set_expr(name, stored, force_override=True)
        return self.quantize(moved, out)

    def _pad(self, op):
        inputs, out = self.get_input_tensors(op), self.get_output_tensors(op)[0]
        if inputs[0].qnn_params is None or out.qnn_params is None:
            return self.convert_pad(op=op)
        value = 0.0
        if len(inputs) == 3:
            params = inputs[2].qnn_params or inputs[0].qnn_params
            stored = float(self.get_tensor_value(inputs[2]).reshape(-1)[0])
            value = (stored - float(params["zero_point"].value.numpy())) * float(params["scale"].value.numpy())
        width = [int(v) for v in np.asarray(self.get_tensor_value(inputs[1])).reshape(-1)]
        real = self.dequantize(self.get_tensor_expr(inputs[0]), inputs[0])
        return self.quantize(relax.op.nn.pad(real, width, "constant", value), out)


def import_tflite(data: bytes, source: str, input_shapes: dict | None = None, batch: int = 1) -> Imported:
    """Import a TFLite flatbuffer (float or quantized; NHWC).

    Errors: ModelError (not TFLite, truncated, wrong shape), UnsupportedError (operators that cannot be imported).
    """
    if len(data) < 8 or data[4:8] != b"TFL3":
        raise ModelError("this is not a TFLite file", where=source, required="the mark TFL3 at byte 4", available=repr(data[4:8]))
    try:
        model = tflite.Model.GetRootAs(data, 0)
        declared = _signature(model)
        _check_constants(model)
    except (struct.error, IndexError, ValueError, TypeError, AttributeError) as error:
        raise ModelError("the TFLite file is truncated or damaged", where=source, available=_beyond(data)) from error
    shapes = resolve_shapes(declared, input_shapes, batch)
    if shapes != {name: list(dims) for name, dims in declared.items()}:
        raise ModelError("TFLite files carry fixed shapes inside; other ones cannot be given", where=source, available=str(declared),
                         remedy="convert the model again with the shapes wanted")
    mod = name_helpers(_convert(model, source, data))
    subgraph = model.Subgraphs(0)
    outputs = [tflite_frontend.get_tensor_name(subgraph, int(i)) for i in subgraph.OutputsAsNumpy()]
    return describe(mod, source, SourceFormat.TFLITE, list(declared), outputs)


def _beyond(data: bytes) -> str:
    """What is there of a damaged file: the flatbuffer reader's own words are about Python."""
    return f"{len(data):,} bytes, with references to what is not among them"


def _signature(model) -> dict[str, list[int]]:
    if model.SubgraphsLength() < 1:
        raise ModelError("the TFLite file has no subgraph")
    subgraph = model.Subgraphs(0)
    return {tflite_frontend.get_tensor_name(subgraph, int(i)): [int(d) for d in subgraph.Tensors(int(i)).ShapeAsNumpy()]
            for i in subgraph.InputsAsNumpy()}


def _check_constants(model) -> None:
    subgraph = model.Subgraphs(0)
    for i in range(subgraph.TensorsLength()):
        tensor = subgraph.Tensors(i)
        buffer = model.Buffers(tensor.Buffer())
        if tensor.Type() == tflite.TensorType.FLOAT32 and buffer.DataLength():
            require_finite(np.frombuffer(buffer.DataAsNumpy(), np.float32), tensor.Name().decode())


def _convert(model, source: str, data: bytes) -> tvm.IRModule:
    failures = (tvm.error.OpNotImplemented, tvm.error.OpAttributeInvalid, NotImplementedError, AssertionError, ValueError, TypeError,
                KeyError, RuntimeError)
    try:  # asked on an idle builder first: a builder left in mid-function complains on stderr
        probe = QdqConverter(model, model.Subgraphs(0), tflite_frontend.ExprTable(), relax.BlockBuilder())
        probe.check_unsupported_ops()
        return tflite_frontend.from_tflite(model, op_converter=QdqConverter)
    except failures as error:
        raise UnsupportedError("the TFLite model cannot be imported", where=source, available=str(error).strip()[:500],
                               remedy="convert the model again with full int8 quantization and standard operators") from error
    except (struct.error, IndexError, AttributeError, OverflowError) as error:  # what the flatbuffer reader raises on offsets into nowhere
        raise ModelError("the TFLite file is truncated or damaged", where=source, available=_beyond(data)) from error
