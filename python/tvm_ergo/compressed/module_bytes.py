"""A Relax module as few bytes, and its constants apart.

TVM's JSON of a module is a list of nodes whose fields are numbers of other nodes. Here each number becomes the distance
to the node that has it, so that equal layers read equal, and the keys of a type are said once; what is left goes
through LZMA. A LeNet's graph takes about 700 bytes, as JSON 17,000."""

from __future__ import annotations

import functools
import json
import lzma

import numpy as np
import tvm
from tvm_ffi import core

from tvm_ergo.compressed.allowed import ITEM_BYTES, MAX_NODES, check_module, check_nodes
from tvm_ergo.target.codecs.weights import Reader, varint
from tvm_ergo.target.errors import ErgoError, InputError, ModelError
from tvm_ergo.target.limits import Declared, parsed_json

TENSOR = "ffi.Tensor"
FILTERS = [{"id": lzma.FILTER_LZMA1, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 0, "pb": 0}]
MAX_JSON_BYTES = 1 << 26
PLAIN = ("int", "bool", "float", "DataType", "Device")
VARIABLES = ("ir.Var", "relax.expr.DataflowVar")
NONE, ESCAPE, FIRST_DISTANCE = 0, 1, 2


def to_bytes(mod: tvm.IRModule) -> tuple[bytes, list[np.ndarray]]:
    """``(structure, constants)``: `from_bytes` makes an equal module of them. Errors: InputError for a module that no
    file may hold (`allowed`)."""
    graph = json.loads(tvm.ir.save_json(mod))
    try:
        check_nodes(graph)
        check_module(mod, Declared("the network", limit_bytes=1 << 62))
    except ValueError as error:
        raise InputError(
            "a network with this part cannot be kept as a compressed network",
            available=str(error)[:200],
            remedy="compile the model itself; files of compressed networks hold tensors and plain operators only",
        ) from None
    tensors = [number for number, node in enumerate(graph["nodes"]) if node["type"] == TENSOR]
    arrays = [_array(graph["nodes"][number]["data"]) for number in tensors]
    for number in tensors:
        graph["nodes"][number]["data"] = None
    return lzma.compress(_packed(graph), format=lzma.FORMAT_RAW, filters=FILTERS), arrays


def note_variables(structure: bytes, declared: Declared) -> None:
    """What the network's tensors take, as their variables say; `from_bytes` finds out whether that is true. Errors:
    ModelError as of `from_bytes`."""
    nodes = _graph(structure)["nodes"]
    try:
        for node in nodes:
            if node["type"] in VARIABLES:
                for shape, itemsize in _types(nodes, node["data"]["ty"]):
                    declared.note_tensor(shape, itemsize, f"node {str(nodes[node['data']['name']]['data'])[:80]!r}")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ModelError(
            "the structure of a compressed network is damaged",
            available=str(error)[:200],
            remedy="compress the network again",
        ) from None


def _types(nodes: list[dict], number: int) -> list[tuple[list[int], int]]:
    """Shape and bytes an element of a variable's tensors."""
    if nodes[number]["type"] == "ir.TupleType":
        fields = nodes[nodes[number]["data"]["fields"]]["data"]
        return [found for field in fields for found in _types(nodes, field)]
    if nodes[number]["type"] != "relax.TensorType" or not nodes[number]["data"]["shape"]:
        return []
    said, shape = nodes[number]["data"], nodes[nodes[number]["data"]["shape"]]["data"]
    dims = [nodes[dim]["data"]["value"] for dim in nodes[shape["values"]]["data"]]
    dims = [nodes[dim]["data"] for dim in dims]
    dtype = str(nodes[said["dtype"]]["data"]["dtype"])
    return [([d for d in dims if type(d) is int], ITEM_BYTES.get(dtype, 8))]


def _graph(structure: bytes) -> dict:
    """Errors: ModelError for bytes that `to_bytes` did not write."""
    try:
        decompressor = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=FILTERS)
        packed = decompressor.decompress(structure, MAX_JSON_BYTES)
        graph = _unpacked(packed)
        check_nodes(graph)
        _check_order(graph["nodes"])
        return graph
    except (
        lzma.LZMAError,
        EOFError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        StopIteration,
        AttributeError,
        OverflowError,
        RuntimeError,
    ) as error:
        raise ModelError(
            "the structure of a compressed network is damaged",
            available=str(error)[:200],
            remedy="compress the network again",
        ) from None


def from_bytes(structure: bytes, constants: list[np.ndarray], declared: Declared | None = None) -> tvm.IRModule:
    """declared : what the file has asked for so far. Errors: ModelError for bytes that `to_bytes` did not write, or
    another number of constants."""
    declared, graph = declared or Declared("a compressed network"), _graph(structure)
    tensors = [node for node in graph["nodes"] if node["type"] == TENSOR]
    if len(tensors) != len(constants):
        raise ModelError(
            "a compressed network has another number of constants than its structure",
            required=str(len(tensors)),
            available=str(len(constants)),
            remedy="compress the network again",
        )
    for node, array in zip(tensors, constants, strict=True):
        node["data"] = _text(array)
    try:
        mod = tvm.ir.load_json(json.dumps(graph))
        check_module(mod, declared)
        return mod
    except ErgoError:
        raise
    except (
        RuntimeError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        AssertionError,
        OverflowError,
    ) as error:
        raise ModelError(
            "TVM does not take the structure of a compressed network",
            available=(str(error).splitlines() or [""])[-1][:200],
            remedy="it was written with another version of TVM; compress the network again",
        ) from None


def _check_order(nodes: list[dict]) -> None:
    """Whether every node is made of nodes before it, as `tvm.ir.save_json` writes them: TVM's reader would follow a
    circle until its stack ends.

    Errors: ValueError.
    """
    for number, node in enumerate(nodes):
        data = node.get("data")
        parts = (
            data
            if isinstance(data, list)
            else [v for k, v in data.items() if k not in _plain_fields(node["type"])]
            if isinstance(data, dict)
            else []
        )
        if any(type(part) is int and not 0 <= part < number for part in parts):
            raise ValueError(f"node {number} is made of one that does not come before it")


@functools.cache
def _plain_fields(kind: str) -> frozenset[str]:
    """The fields of one of TVM's types that hold numbers, and no nodes."""
    found, info = set(), core._lookup_or_register_type_info_from_type_key(kind)
    while info is not None:
        schemas = {
            field.name: json.loads((field.metadata or {}).get("type_schema", "{}")) for field in info.fields or ()
        }
        found |= {name for name, schema in schemas.items() if schema.get("type") in PLAIN}
        info = info.parent_type_info
    return frozenset(found)


def _length(reader: Reader) -> int:
    """Of a list, each item of which takes at least a byte. Errors: ValueError."""
    length = reader.varint()
    if length > len(reader.data) - reader.at:
        raise ValueError("a list longer than the file")
    return length


def _array(text: str) -> np.ndarray:
    """TVM's own text of a tensor, by its own reader."""
    return tvm.ir.load_json(json.dumps(_alone(text))).numpy()


def _text(array: np.ndarray) -> str:
    graph = json.loads(tvm.ir.save_json(tvm.runtime.tensor(np.array(array, order="C"))))
    return next(node["data"] for node in graph["nodes"] if node["type"] == TENSOR)


def _alone(text: str) -> dict:
    return {"root_index": 0, "nodes": [{"type": TENSOR, "data": text}]}


def _packed(graph: dict) -> bytes:
    """Kinds of nodes, plain values and the rest of the JSON as text; then a few numbers a node."""
    kinds: dict[str, int] = {}
    values: list = []
    body = bytearray()
    for number, node in enumerate(graph["nodes"]):
        data, extra = node.get("data"), {k: v for k, v in node.items() if k not in ("type", "data")}
        keys = list(data) if isinstance(data, dict) else "list" if isinstance(data, list) else "value"
        kind = json.dumps([node["type"], keys, extra, "data" in node])
        body += varint(kinds.setdefault(kind, len(kinds)))
        if isinstance(data, list):
            body += varint(len(data))
        for item in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
            body += _number(item, number, values)
        if keys == "value":
            values.append(data)
    rest = {k: v for k, v in graph.items() if k != "nodes"}
    head = json.dumps(
        [[json.loads(kind) for kind in kinds], values, rest, len(graph["nodes"])], separators=(",", ":")
    ).encode()
    return varint(len(head)) + head + bytes(body)


def _number(item, number: int, values: list) -> bytes:
    if item == 0 and type(item) is int:
        return varint(NONE)
    if type(item) is not int or abs(number - item) >= 1 << 30:
        values.append(item)
        return varint(ESCAPE)
    distance = number - item
    return varint(FIRST_DISTANCE + (2 * distance if distance >= 0 else -2 * distance - 1))


def _unpacked(packed: bytes) -> dict:
    reader = Reader(packed)
    kinds, values, rest, count = parsed_json(reader.take(reader.varint()))
    values, nodes = iter(values), []
    for number in range(min(count, MAX_NODES + 1)):
        kind, keys, extra, has_data = kinds[reader.varint()]

        def item(number=number):
            code = reader.varint()
            if code == NONE:
                return 0
            if code == ESCAPE:
                return next(values)
            code -= FIRST_DISTANCE
            return number - (-(code + 1) // 2 if code % 2 else code // 2)

        data = (
            next(values)
            if keys == "value"
            else [item() for _ in range(_length(reader))]
            if keys == "list"
            else {key: item() for key in keys}
        )
        nodes.append({"type": kind, **extra, **({"data": data} if has_data else {})})
    return {**rest, "nodes": nodes}
