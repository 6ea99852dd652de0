"""Compressed networks: bytes, the structure's nodes, constants, the header; the checksum made anew."""

from __future__ import annotations

import hashlib
import json
import lzma

import numpy as np
from tvm import relax

from fuzz import mutate
from fuzz.engine import Target
from fuzz.targets.nets import function_of
from tvm_ergo import compressed, frontend
from tvm_ergo.compressed.module_bytes import FILTERS, _packed, _unpacked
from tvm_ergo.target.codecs.weights import Reader, varint

KINDS = (
    "relax.expr.ExternFunc",
    "tirx.PrimFunc",
    "runtime.Module",
    "ir.EnvFunc",
    "relax.attrs.Conv2DAttrs",
    "relax.attrs.SoftmaxAttrs",
    "ir.Call",
    "ir.Var",
    "ffi.Array",
    "ffi.Map",
    "int",
    "None",
    "ffi.String",
    "relax.TensorType",
    "ir.GenericConst",
)
NAMES = (
    "relax.call_packed",
    "relax.call_dps_packed",
    "relax.call_tir",
    "relax.nn.conv2d",
    "relax.add",
    "relax.nn.softmax",
    "relax.reshape",
    "relax.concat",
    "relax.full",
    "relax.take",
    "relax.nn.max_pool2d",
    "relax.strided_slice",
    "relax.quantize",
    "relax.mean",
    "relax.sort",
    "relax.one_hot",
    "relax.arange",
)


def _float(builder, x):
    rng = np.random.default_rng(0)
    y = builder.emit(
        relax.op.nn.conv2d(
            x,
            relax.const(rng.normal(size=(4, 3, 3, 3)).astype("float32")),
            padding=1,
            data_layout="NHWC",
            kernel_layout="OHWI",
        )
    )
    y = builder.emit(
        relax.op.concat([builder.emit(relax.op.nn.relu(y)), relax.const(np.zeros((1, 8, 8, 2), np.float32))], 3)
    )
    y = builder.emit(relax.op.mean(builder.emit(relax.op.nn.max_pool2d(y, (2, 2), layout="NHWC")), [1, 2]))
    return relax.op.nn.softmax(
        builder.emit(relax.op.matmul(y, relax.const(rng.choice(np.float32([0, 0, 0.5, -0.25]), (6, 10))))), -1
    )


def _quantized(builder, x):
    scale, zero = relax.const(np.float32(0.05)), relax.const(np.int8(3))
    q = builder.emit(relax.op.quantize(x, scale, zero, -1, "int8"))
    real = builder.emit(relax.op.dequantize(builder.emit(relax.op.reshape(q, (1, 192))), scale, zero, -1, "float32"))
    weights = relax.const(np.tile(np.arange(-3, 3, dtype=np.int8), 160).reshape(192, 5))
    dense = builder.emit(
        relax.op.dequantize(
            weights,
            relax.const(np.linspace(0.1, 0.5, 5, dtype=np.float32)),
            relax.const(np.zeros(5, np.int8)),
            1,
            "float32",
        )
    )
    return relax.op.matmul(real, dense)


def seeds() -> list[bytes]:
    return [
        compressed.pack(function_of((1, 8, 8, 3), "float32", build), ["x"], ["y"]).data
        for build in (_float, _quantized)
    ]


def _whole(body: bytes) -> bytes:
    return b"ERGOZ\x01" + hashlib.sha256(body).digest()[:8] + body


def change(rng, seed: bytes, other: bytes) -> bytes:
    body = seed[14:]
    kind = rng.random()
    if kind < 0.05:
        return mutate.some_bytes(rng, seed, other)
    reader = Reader(body)
    header, structure, rest = reader.take(reader.varint()), reader.take(reader.varint()), reader.rest()
    if kind < 0.3:
        rest = mutate.some_bytes(rng, rest, other)
    elif kind < 0.35:
        header = json.dumps(mutate.json_value(rng, json.loads(header))).encode("utf-8", "replace")
    elif kind < 0.5:
        plain = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=FILTERS).decompress(structure)
        structure = lzma.compress(mutate.some_bytes(rng, plain), format=lzma.FORMAT_RAW, filters=FILTERS)
    else:
        structure = _other_nodes(rng, structure)
    return _whole(varint(len(header)) + header + varint(len(structure)) + structure + rest)


def _other_nodes(rng, structure: bytes) -> bytes:
    graph = _unpacked(lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=FILTERS).decompress(structure))
    nodes = graph["nodes"]
    for _ in range(rng.choice((1, 1, 2, 3))):
        number = rng.randrange(len(nodes))
        node = dict(nodes[number])
        kind = rng.randrange(6)
        if kind == 0:
            node["type"] = rng.choice(KINDS)
        elif kind == 1 and node["type"] == "ir.Op":
            node["data"] = rng.choice(NAMES)
        elif kind == 2 and isinstance(node.get("data"), dict) and node["data"]:
            key = rng.choice(list(node["data"]))
            node["data"] = {
                **node["data"],
                key: rng.choice(
                    (*range(max(0, number - 30), number), 0, number, len(nodes) - 1, rng.choice(mutate.NUMBERS))
                ),
            }
        elif kind == 3 and isinstance(node.get("data"), list) and node["data"]:
            node["data"] = [*node["data"]]
            node["data"][rng.randrange(len(node["data"]))] = rng.randrange(max(1, number))
        else:
            node = mutate.json_value(rng, node)
        if not isinstance(node, dict) or "type" not in node:
            continue
        nodes[number] = node
    try:
        return lzma.compress(_packed(graph), format=lzma.FORMAT_RAW, filters=FILTERS)
    except (ValueError, TypeError, AttributeError):  # a number that the packing has no place for
        return structure


def run(data: bytes) -> None:
    frontend.load(data)


TARGET = Target(seeds, change, run)
