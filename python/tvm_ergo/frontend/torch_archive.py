"""``torch.export`` archives (.pt2), read without running anything in them.

``torch.export.load`` unpickles sample inputs, and weights and constants marked so, loads compiled code, evaluates
expressions of sizes as Python, and resolves operators by attribute names anywhere below ``torch``. So the archive is
taken apart first: only raw weights and the graph's JSON go on, and of the JSON only operators of ATen and of
quantization, plain expressions of sizes, and plain containers. What a normal export needs beyond that (sample inputs,
metadata, guards) is left out. Anything else is refused by name."""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from pathlib import Path

import torch
import torch.ao.quantization.fx._decomposed  # noqa: F401  registers the operators of quantized exports

from tvm_ergo.frontend.stored import read_file
from tvm_ergo.target.errors import ErgoError, ModelError
from tvm_ergo.target.limits import Declared, parsed_json

_OPERATOR = re.compile(
    r"torch\.ops\.(aten|quantized_decomposed)\.\w+\.\w+|_operator\.(getitem|add|sub|mul|floordiv|mod|neg|truediv|pow|le|lt|ge|gt|eq|ne)|"
    r"torch\.sym_(max|min|float|int|not|sum)|math\.(ceil|floor|trunc)"
)
_TEXT_ARGUMENTS = frozenset(
    {
        "approximate",
        "rounding_mode",
        "mode",
        "padding_mode",
        "reduce",
        "indexing",
        "equation",
        "norm",
        "ord",
        "side",
        "reduction",
        "driver",
        "pad_mode",
    }
)
"""Texts that operators may take; others are names of files."""
_SIZE = re.compile(
    r"(?:\s|[-+*/(),0-9]|\b[suz]\d+\b|\b(?:Max|Min|Mod|PythonMod|FloorDiv|CeilDiv|CleanDiv|IntTrueDiv|PowByNatural|TruncToInt)\b|==|<=|>=|<|>)*"
)
_CONTAINERS = frozenset({"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict", None})
_LARGEST_JSON_BYTES = 1 << 28


def read(path: Path) -> torch.export.ExportedProgram:
    """Errors: ModelError (missing, damaged, of another version of PyTorch, or holding what could run code)."""
    where = str(path)
    data = read_file(path)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            declared = Declared(where)
            clean = _cleaned(archive, where, declared)
        declared.check()
    except ErgoError:
        raise
    except Exception as error:  # zipfile and json raise many kinds on bytes they did not expect, in no common class
        raise ModelError(
            "this is not a torch.export archive, or it is damaged",
            where=where,
            available=str(error)[:200],
            required="a file of torch.export.save",
            remedy="torch.export.save(torch.export.export(module.eval(), (x,)), 'net.pt2')",
        ) from error
    try:
        program = torch.export.load(io.BytesIO(clean))
    except Exception as error:  # PyTorch raises whatever its reader meets
        raise ModelError(
            "PyTorch cannot read the archive",
            where=where,
            available=(str(error).strip().splitlines() or [type(error).__name__])[0][:300],
            required=f"an archive that torch {torch.__version__} reads",
            remedy="export it again with this version of PyTorch",
        ) from error
    _check_texts(program, where)
    return program


def _refuse(what: str, where: str, available: str) -> ModelError:
    return ModelError(
        f"the archive holds {what}, which is not read: it could run code",
        where=where,
        available=available[:200],
        remedy="export the module again with torch.export.export and torch.export.save, or load it yourself if you "
        "trust it: "
        "tvm_ergo.compile(torch.export.load(FILE), ...)",
    )


def _cleaned(archive: zipfile.ZipFile, where: str, declared: Declared) -> bytes:
    """The archive again, with raw weights and what was checked of the graph."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as target:
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED:
                raise ModelError(
                    "the archive is packed, which torch.export does not do",
                    where=where,
                    available=info.filename,
                    remedy="export the model again",
                )
            name = info.filename.partition("/")[2]
            target.writestr(info.filename, _member(archive, info, name, where, declared))
    return made.getvalue()


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, where: str, declared: Declared) -> bytes:
    """What goes on of one file of the archive."""
    if name.startswith("data/sample_inputs/"):
        return b""  # a pickle, and not needed
    if (
        name.startswith("data/aotinductor")
        or name.startswith(("data/weights/", "data/constants/"))
        and name.endswith(".pt")
    ):
        raise _refuse("compiled code or a pickle", where, name)
    if name.startswith("extra/"):
        return b""
    data = archive.read(info)
    if name.endswith(".json"):
        if len(data) > _LARGEST_JSON_BYTES:
            raise ModelError(
                "the graph of the archive is too large",
                where=where,
                available=f"{len(data):,} bytes",
                required=f"{_LARGEST_JSON_BYTES:,} at most",
                remedy="export the network to ONNX (torch.onnx.export)",
            )
        content = parsed_json(data)
        if name.startswith("models/"):
            _note_tensors(content, declared)
            return json.dumps(_checked_graph(content, where)).encode()
        return json.dumps(_checked_payload(content, where, declared)).encode()
    if name.startswith("data/constants/") and not name.rpartition("/")[2].startswith("tensor_"):
        raise _refuse("an object of a class of its own", where, name)
    return data


def _note_tensors(content: dict, declared: Declared) -> None:
    """Every tensor the graph computes, at four bytes an element; sizes that are symbols count as 1."""
    graph = content["graph_module"]["graph"]
    for name, meta in graph.get("tensor_values", {}).items():
        declared.note_tensor([size.get("as_int", 1) for size in meta["sizes"]], 4, f"node {str(name)[:80]!r}")


def _checked_payload(content: dict, where: str, declared: Declared) -> dict:
    for name, entry in content.get("config", {}).items():
        if (
            entry.get("use_pickle")
            or entry.get("tensor_meta") is None
            or not re.fullmatch(r"(weight|tensor)_\d+", entry.get("path_name", ""))
        ):
            raise _refuse("a pickled tensor or object", where, f"{name}: {entry.get('path_name')}")
        declared.note(
            math.prod(int(size["as_int"]) for size in entry["tensor_meta"]["sizes"]), name
        )  # strides of 0 may claim more than is stored
    return content


def _checked_graph(content: dict, where: str) -> dict:
    content["guards_code"] = []
    module = content["graph_module"]
    module["module_call_graph"] = [entry for entry in module.get("module_call_graph", []) if entry.get("fqn") == ""]
    module["metadata"] = {}
    _walk(content, where)
    return content


def _walk(content, where: str) -> None:
    """Checks operators, expressions and containers of a graph in place, and drops metadata but for the names of
    layers."""
    if isinstance(content, list):
        for item in content:
            _walk(item, where)
        return
    if not isinstance(content, dict):
        return
    if isinstance(content.get("target"), str) and "inputs" in content:
        kept = (content.get("metadata") or {}).get("nn_module_stack")
        content["metadata"] = (
            {"nn_module_stack": kept} if isinstance(kept, str) and re.fullmatch(r"[\w.,;'\[\]@-]*", kept) else {}
        )
    for key, value in content.items():
        if (key == "target" and "inputs" in content or key == "as_operator") and not _OPERATOR.fullmatch(str(value)):
            raise _refuse("an operator that is not one of ATen", where, str(value))
        if key == "expr_str" and not (isinstance(value, str) and len(value) < 1000 and _SIZE.fullmatch(value)):
            raise _refuse("an expression that is no size", where, str(value))
        if key in ("in_spec", "out_spec") and isinstance(value, str) and value:
            _check_containers(parsed_json(value), where)
        if key in ("as_custom_obj", "as_opaque_obj", "custom_obj"):
            raise _refuse("an object of a class of its own", where, str(value))
        _walk(value, where)


def _check_containers(spec, where: str) -> None:
    """The structure of inputs and outputs: a version, then nodes of a type, a context and children."""
    for node in spec[1:] if isinstance(spec, list) and spec and isinstance(spec[0], int) else [spec]:
        if node.get("type") not in _CONTAINERS:
            raise _refuse("a container of a class of its own", where, str(node.get("type")))
        for child in node.get("children_spec") or []:
            _check_containers(child, where)


def _check_texts(program: torch.export.ExportedProgram, where: str) -> None:
    """Errors: ModelError for operators that take a text which is no mode: those read and write files."""
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        for argument in schema.arguments if node.op == "call_function" and schema is not None else ():
            if "str" in str(argument.type) and argument.name not in _TEXT_ARGUMENTS:
                raise _refuse("an operator that takes a name", where, f"{node.target}: {argument.name}")
