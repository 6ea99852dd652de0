"""``load``: any model we can read, as one :class:`Imported`."""

from __future__ import annotations

from pathlib import Path

import onnx
import tvm
from google.protobuf.message import DecodeError
from tvm import relax

from tvm_ergo import compressed
from tvm_ergo.frontend.imported import Imported, SourceFormat, describe, require_finite, resolve_shapes
from tvm_ergo.frontend.onnx_import import import_onnx
from tvm_ergo.frontend.stored import XZ_MAGIC, load_external, read_file, unpacked
from tvm_ergo.relay_passes.relax_utils import (LINEAR_OPS, Constant, array_of, bindings_of, children, main_of, op_name,
                                               require_static_inputs)
from tvm_ergo.target.errors import ModelError
from tvm_ergo.target.limits import model_bytes_limit

_SUFFIXES = (".onnx", ".onnx.xz", ".tflite", compressed.SUFFIX)


def load(model, *, input_shapes: dict | None = None, batch: int = 1, max_model_bytes: int | str | None = None) -> Imported:
    """Read a model.

    Parameters
    ----------
    model : path (``.onnx``, ``.onnx.xz``, ``.tflite``, ``.ergoz``), bytes of such a file, ``onnx.ModelProto``, ``torch.export.ExportedProgram``, or a
    Relax ``IRModule``.
    input_shapes : {input name: shape} for models with dynamic dimensions (symbolic ones of a Relax module too).
    batch : size of a first dimension that is unknown, or 0 in an ONNX file. max_model_bytes : what constants and computed tensors may take together, as the file
    declares them (an int, or "8GiB"; None: 4 GiB, or what `target.limits.model_bytes_limit` says); a file that asks for more is refused before any of it is allocated.

    Errors: ModelError (missing, truncated, not a model, dynamic, NaN weights), UnsupportedError (operator).
    """
    with model_bytes_limit(max_model_bytes):
        return _loaded(model, input_shapes, batch)


def _loaded(model, input_shapes: dict | None, batch: int) -> Imported:
    if isinstance(model, Imported):
        return model
    if isinstance(model, tvm.IRModule):
        _check_constants(model)
        return describe(_with_static_inputs(model, input_shapes, batch), "Relax module", SourceFormat.RELAX)
    if isinstance(model, onnx.ModelProto):
        return import_onnx(model, "ONNX model in memory", input_shapes, batch)
    if type(model).__module__.startswith("torch."):
        from tvm_ergo.frontend.torch_import import import_exported  # torch is an extra

        return import_exported(model)
    if isinstance(model, (bytes, bytearray, memoryview)):
        return _from_bytes(bytes(model), "bytes in memory", input_shapes, batch)
    if not isinstance(model, (str, Path)):
        raise ModelError("this kind of object is not a model", available=type(model).__name__,
                         required="a path, bytes, onnx.ModelProto or a Relax IRModule")
    path = Path(model)
    if not path.name.endswith(_SUFFIXES):
        raise ModelError("the file name does not say what it is", where=str(path), required=f"a suffix of {', '.join(_SUFFIXES)}",
                         remedy="a compiled model (.ergo) is opened by tvm_ergo.load, or by the commands run, eval, report and disasm")
    data = read_file(path)
    if path.name.endswith(compressed.SUFFIX) != compressed.is_compressed(data):
        raise ModelError("the file's content is not what its name says", where=str(path),
                         available="a compressed network" if compressed.is_compressed(data) else "no compressed network")
    if path.name.endswith(".tflite") != (data[4:8] == b"TFL3"):
        raise ModelError("the file's content is not what its name says", where=str(path),
                         available="a TFLite file" if data[4:8] == b"TFL3" else "no TFLite mark inside")
    return _from_bytes(data, str(path), input_shapes, batch, path.parent)


def _with_static_inputs(mod: tvm.IRModule, input_shapes: dict | None, batch: int) -> tvm.IRModule:
    """The module with numbers for the symbolic dimensions of its inputs: an unknown first one is the batch.

    Errors: ModelError for other unknown dimensions that ``input_shapes`` does not give, and where one name gets two numbers.
    """
    func = main_of(mod)
    typed = [p for p in func.params if getattr(p.ty, "shape", None) is not None and hasattr(p.ty.shape, "values")]
    symbols = {p.name: list(p.ty.shape.values) for p in typed}
    declared = {name: [int(d) if isinstance(d, tvm.tirx.IntImm) else str(d) for d in dims] for name, dims in symbols.items()}
    if not input_shapes and all(isinstance(d, int) for dims in declared.values() for d in dims):
        return mod
    shapes = resolve_shapes(declared, input_shapes, batch)
    bound: dict[str, int] = {}
    for name, dims in symbols.items():
        for axis, (dim, size) in enumerate(zip(dims, shapes[name])):
            known = int(dim) if isinstance(dim, tvm.tirx.IntImm) else size
            if isinstance(dim, tvm.tirx.Var):
                known = bound.setdefault(dim.name, size)
            if known != size:
                raise ModelError("the shape given does not fit the model's input", where=f"input {name!r}, axis {axis}",
                                 required=str(known), available=str(size))
    made = relax.transform.BindSymbolicVars(bound, "main")(mod) if bound else mod
    require_static_inputs(main_of(made))
    return made


def _check_constants(mod: tvm.IRModule) -> None:
    """Errors: ModelError naming the variable whose operand holds NaN (or infinities in a weight)."""
    for var, value in bindings_of(main_of(mod)):
        for operand in children(value):
            if isinstance(operand, Constant):
                require_finite(array_of(operand), f"constant of {var.name}", infinity_allowed=op_name(value) not in LINEAR_OPS)


def _from_bytes(data: bytes, source: str, input_shapes: dict | None, batch: int, folder: Path | None = None) -> Imported:
    if data[:6] == XZ_MAGIC:
        data = unpacked(data, source)
    if compressed.is_compressed(data):
        mod, inputs, outputs = compressed.unpack(data, source)
        return describe(_with_static_inputs(mod, input_shapes, batch), source, SourceFormat.COMPRESSED, inputs, outputs)
    if data[4:8] == b"TFL3":
        from tvm_ergo.frontend.tflite import import_tflite  # only for TFLite files

        return import_tflite(data, source, input_shapes, batch)
    if not data:
        raise ModelError("the file is empty", where=source)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise ModelError("this is not an ONNX file, or it is truncated", where=source, available=str(error)[:200],
                         remedy="copy the file again; it ends in the middle of a record or is another format") from error
    if not _texts_are_text(proto):
        raise ModelError("the ONNX file is damaged: a name in it is not UTF-8", where=source, remedy="copy or export the file again")
    if folder is not None:
        load_external(proto, source, folder)
    return import_onnx(proto, source, input_shapes, batch)


def _texts_are_text(proto: onnx.ModelProto) -> bool:
    """Protobuf decodes texts when they are read, and gives bytes, or raises, where they are not UTF-8."""
    graph = proto.graph
    try:
        texts = [v.name for v in (*graph.input, *graph.output, *graph.initializer, *graph.value_info)]
        for node in graph.node:
            texts += [node.name, node.op_type, node.domain, *node.input, *node.output, *(a.name for a in node.attribute)]
        texts += [opset.domain for opset in proto.opset_import]
    except UnicodeDecodeError:
        return False
    return all(isinstance(text, str) for text in texts)
