"""``load``: any model we can read, as one :class:`Imported`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import onnx
import tvm
from google.protobuf.message import DecodeError

from tvm_ergo import compressed
from tvm_ergo.frontend.imported import Imported, SourceFormat, describe, require_finite
from tvm_ergo.frontend.onnx_import import import_onnx
from tvm_ergo.frontend.other_formats import PYTORCH_SUFFIX, refuse_other_formats
from tvm_ergo.frontend.shapes import typical_inputs
from tvm_ergo.frontend.static import with_static_inputs
from tvm_ergo.frontend.stored import XZ_MAGIC, read_file, unpacked
from tvm_ergo.relay_passes.relax_utils import LINEAR_OPS, Constant, array_of, bindings_of, children, main_of, op_name
from tvm_ergo.stage_watch import current as current_watch
from tvm_ergo.target.errors import ModelError
from tvm_ergo.target.limits import model_bytes_limit, whole

_SUFFIXES = (".onnx", ".onnx.xz", ".tflite", PYTORCH_SUFFIX, compressed.SUFFIX)


def load(
    model,
    *,
    input_shapes: dict | None = None,
    batch: int = 1,
    max_model_bytes: int | str | None = None,
    example_inputs=None,
    calibration=None,
) -> Imported:
    """Read a model.

    Parameters
    ----------
    model : path (``.onnx``, ``.onnx.xz``, ``.tflite``, ``.pt2``, ``.ergoz``), bytes of such a file (but ``.pt2``),
    ``onnx.ModelProto``, ``torch.nn.Module``, ``torch.export.ExportedProgram``, or a Relax ``IRModule``.
    input_shapes : {input name: shape} for models with dynamic dimensions (symbolic ones of a Relax module too).
    batch : size of a first dimension that is unknown, or 0 in an ONNX file. max_model_bytes : what constants and
    computed tensors may take together, as the file declares them (an int, or "8GiB"; None: 4 GiB, or what
    `target.limits.model_bytes_limit` says); a file that asks for more is refused before any of it is allocated.
    example_inputs : of a ``torch.nn.Module``: what it is called with, a tensor (or array), a tuple of them, or a dict
    by argument name.
    calibration : typical inputs, from which dimensions that are left open take their sizes.

    Errors: ModelError (missing, truncated, not a model, dynamic, NaN weights), UnsupportedError (operator).
    """
    watch = contextlib.nullcontext() if isinstance(model, Imported) else current_watch().timed("import")
    with watch, model_bytes_limit(max_model_bytes), whole(), typical_inputs(calibration):
        return _loaded(model, input_shapes, batch, example_inputs)


def _loaded(model, input_shapes: dict | None, batch: int, example_inputs) -> Imported:
    if isinstance(model, Imported):
        return model
    if isinstance(model, tvm.IRModule):
        _check_constants(model)
        return describe(with_static_inputs(model, input_shapes, batch), "Relax module", SourceFormat.RELAX)
    if isinstance(model, onnx.ModelProto):
        return import_onnx(model, "ONNX model in memory", input_shapes, batch)
    if "torch" in sys.modules:  # an extra: who gives a module has imported it
        from tvm_ergo.frontend.torch_import import import_torch, is_torch

        if is_torch(model):
            return import_torch(model, example_inputs, input_shapes, batch)
    if isinstance(model, (bytes, bytearray, memoryview)):
        return _from_bytes(bytes(model), "bytes in memory", input_shapes, batch)
    if not isinstance(model, (str, Path)):
        raise ModelError(
            "this kind of object is not a model",
            available=type(model).__name__,
            required="a path, bytes, an onnx.ModelProto, a Relax IRModule, a torch.nn.Module or ExportedProgram",
            remedy="give one of these; a path is a str or pathlib.Path",
        )
    path = Path(model)
    refuse_other_formats(path)
    if path.suffix == PYTORCH_SUFFIX:
        return _from_archive(path, input_shapes, batch)
    if not path.name.endswith(_SUFFIXES):
        raise ModelError(
            "the file name does not say what it is",
            where=str(path),
            required=f"a suffix of {', '.join(_SUFFIXES)}",
            remedy="a compiled model (.ergo) is opened by tvm_ergo.load, or by the commands run, eval, report and "
            "disasm",
        )
    data = read_file(path)
    if path.name.endswith(compressed.SUFFIX) != compressed.is_compressed(data):
        raise ModelError(
            "the file's content is not what its name says",
            where=str(path),
            available="a compressed network" if compressed.is_compressed(data) else "no compressed network",
            remedy=f"name it after its format: {', '.join(_SUFFIXES)}",
        )
    if path.name.endswith(".tflite") != (data[4:8] == b"TFL3"):
        raise ModelError(
            "the file's content is not what its name says",
            where=str(path),
            available="a TFLite file" if data[4:8] == b"TFL3" else "no TFLite mark inside",
            remedy=f"name it after its format: {', '.join(_SUFFIXES)}; if it is a TFLite file, copy it again",
        )
    return _from_bytes(data, str(path), input_shapes, batch, path.parent)


def _from_archive(path: Path, input_shapes: dict | None, batch: int) -> Imported:
    """A ``torch.export`` archive. Errors: ModelError without PyTorch, and those of `torch_archive.read`."""
    try:
        from tvm_ergo.frontend.torch_archive import read  # PyTorch is an extra, and takes seconds to import
        from tvm_ergo.frontend.torch_import import import_exported
    except ModuleNotFoundError as error:
        raise ModelError(
            "this file needs PyTorch to be read, which is not installed",
            where=str(path),
            required="torch 2.13",
            remedy="pip install 'tvm-ergo[torch]', or give the model as ONNX",
        ) from error
    return import_exported(read(path), input_shapes, batch, str(path))


def _check_constants(mod: tvm.IRModule) -> None:
    """Errors: ModelError naming the variable whose operand holds NaN (or infinities in a weight)."""
    for var, value in bindings_of(main_of(mod)):
        for operand in children(value):
            if isinstance(operand, Constant):
                require_finite(
                    array_of(operand), f"constant of {var.name}", infinity_allowed=op_name(value) not in LINEAR_OPS
                )


def _from_bytes(
    data: bytes, source: str, input_shapes: dict | None, batch: int, folder: Path | None = None
) -> Imported:
    if data[:6] == XZ_MAGIC:
        data = unpacked(data, source)
    if compressed.is_compressed(data):
        mod, inputs, outputs = compressed.unpack(data, source)
        return describe(with_static_inputs(mod, input_shapes, batch), source, SourceFormat.COMPRESSED, inputs, outputs)
    if data[4:8] == b"TFL3":
        from tvm_ergo.frontend.tflite import import_tflite  # only for TFLite files

        return import_tflite(data, source, input_shapes, batch)
    if not data:
        raise ModelError("the file is empty", where=source, remedy="copy the file again")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(
            "this is not an ONNX file, or it is truncated",
            where=source,
            available=str(error)[:200],
            remedy="copy the file again; it ends in the middle of a record or is another format",
        ) from error
    if not _texts_are_text(proto):
        raise ModelError(
            "the ONNX file is damaged: a name in it is not UTF-8", where=source, remedy="copy or export the file again"
        )
    return import_onnx(proto, source, input_shapes, batch, folder)


def _texts_are_text(proto: onnx.ModelProto) -> bool:
    """Protobuf decodes texts when they are read, and gives bytes, or raises, where they are not UTF-8."""
    graph = proto.graph
    try:
        texts = [v.name for v in (*graph.input, *graph.output, *graph.initializer, *graph.value_info)]
        for node in graph.node:
            texts += [
                node.name,
                node.op_type,
                node.domain,
                *node.input,
                *node.output,
                *(a.name for a in node.attribute),
            ]
        texts += [opset.domain for opset in proto.opset_import]
    except UnicodeDecodeError:
        return False
    return all(isinstance(text, str) for text in texts)
