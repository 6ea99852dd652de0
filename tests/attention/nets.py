"""Small networks with attention in the forms exporters write, as ONNX models, with inputs."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

S, C, H = 10, 16, 2
LOW = float(np.finfo(np.float32).min)
TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}


def model(nodes, inputs: dict, constants: dict, opset: int = 17):
    """A model with output y. inputs: {name: (dtype, shape)}. nodes: (operator, inputs, output, attributes)."""
    made = [helper.make_node(op, list(args), [out], **attrs) for op, args, out, attrs in nodes]
    graph = helper.make_graph(
        made,
        "net",
        [helper.make_tensor_value_info(n, TYPES[d], s) for n, (d, s) in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def weights(rng) -> dict:
    found = {f"w{k}": (rng.normal(0, 1, (C, C)) / 4).astype(np.float32) for k in "qkvo"}
    return {
        **found,
        "heads": np.array([1, S, H, C // H]),
        "joined": np.array([1, S, C]),
        "root": np.float32((C // H) ** 0.5),
    }


def projections(source: str = "x", turned: bool = True) -> list:
    """q, k, v [1, H, S, C / H] of x; k with its last two axes exchanged where ``turned``."""
    nodes = []
    for k in "qkv":
        nodes += [
            ("MatMul", (source, f"w{k}"), f"{k}0", {}),
            ("Reshape", (f"{k}0", "heads"), f"{k}1", {}),
            ("Transpose", (f"{k}1",), k, {"perm": [0, 2, 3, 1] if k == "k" and turned else [0, 2, 1, 3]}),
        ]
    return nodes


def scores(q: str = "q", k: str = "k") -> list:
    return [("MatMul", (q, k), "s0", {}), ("Div", ("s0", "root"), "s", {})]


def rest(source: str) -> list:
    """softmax of ``source`` and everything behind it."""
    return [
        ("Softmax", (source,), "p", {"axis": -1}),
        ("MatMul", ("p", "v"), "c0", {}),
        ("Transpose", ("c0",), "c1", {"perm": [0, 2, 1, 3]}),
        ("Reshape", ("c1", "joined"), "c2", {}),
        ("MatMul", ("c2", "wo"), "y", {}),
    ]


def causal(value: float) -> np.ndarray:
    return np.where(np.tril(np.ones((1, 1, S, S), bool)), np.float32(0), np.float32(value)).astype(np.float32)


def form(name: str):
    """``(model, inputs of eight samples)`` of a form in ``FORMS``."""
    rng = np.random.default_rng(0)
    constants, inputs, nodes, masks = FORMS[name]
    constants = {**weights(rng), **(constants(rng) if callable(constants) else constants)}
    kept = [np.arange(S) < rng.integers(3, S + 1) for _ in range(8)]
    feeds = [{"x": rng.normal(0, 1, (1, S, C)).astype(np.float32), **({"m": masks(m)} if masks else {})} for m in kept]
    return model(nodes, {"x": ("float32", [1, S, C]), **inputs}, constants), feeds


BIAS = {"one": np.float32(1), "low": np.float32(LOW), "axes": np.array([1, 2])}
ADDED = [*projections(), *scores(), ("Add", ("s", "bias"), "sm", {}), *rest("sm")]
CHOSEN = [*projections(), *scores(), ("Where", ("m", "s", "low"), "sm", {}), *rest("sm")]


def _rotated(t: str) -> list:
    return [
        ("Slice", (t, "zero", "half", "last"), f"{t}_a", {}),
        ("Slice", (t, "half", "full", "last"), f"{t}_b", {}),
        ("Neg", (f"{t}_b",), f"{t}_n", {}),
        ("Concat", (f"{t}_n", f"{t}_a"), f"{t}_t", {"axis": -1}),
        ("Mul", (t, "cos"), f"{t}_c", {}),
        ("Mul", (f"{t}_t", "sin"), f"{t}_s", {}),
        ("Add", (f"{t}_c", f"{t}_s"), f"{t}_r", {}),
    ]


def _angles(_rng) -> dict:
    depth = C // H
    angle = np.arange(S)[:, None] / 10000 ** (np.arange(depth // 2) / (depth // 2))
    tables = {n: np.tile(f(angle), 2)[None, None].astype(np.float32) for n, f in (("cos", np.cos), ("sin", np.sin))}
    return {
        **tables,
        "zero": np.array([0]),
        "half": np.array([depth // 2]),
        "full": np.array([depth]),
        "last": np.array([3]),
    }


def _gain(rng) -> dict:
    return {
        "two": np.float32(2),
        "eps": np.float32(1e-5),
        "gain": rng.normal(1, 0.2, C).astype(np.float32),
        "shift": rng.normal(0, 0.2, C).astype(np.float32),
    }


LAYER_NORM = [
    ("ReduceMean", ("x",), "mu", {"axes": [-1]}),
    ("Sub", ("x", "mu"), "d", {}),
    ("Pow", ("d", "two"), "d2", {}),
    ("ReduceMean", ("d2",), "var", {"axes": [-1]}),
    ("Add", ("var", "eps"), "ve", {}),
    ("Sqrt", ("ve",), "sd", {}),
    ("Div", ("d", "sd"), "n0", {}),
    ("Mul", ("n0", "gain"), "n1", {}),
    ("Add", ("n1", "shift"), "normed", {}),
]
RMS_NORM = [
    ("Mul", ("x", "x"), "d2", {}),
    ("ReduceMean", ("d2",), "var", {"axes": [-1]}),
    ("Add", ("var", "eps"), "ve", {}),
    ("Sqrt", ("ve",), "sd", {}),
    ("Div", ("x", "sd"), "n0", {}),
    ("Mul", ("n0", "gain"), "normed", {}),
]

FORMS = {
    "no mask": ({}, {}, [*projections(), *scores(), *rest("s")], None),
    **{f"causal, {value:g}": ({"bias": causal(value)}, {}, ADDED, None) for value in (-1e4, -1e9, LOW, -np.inf)},
    "where, constant": ({"m": np.tril(np.ones((1, 1, S, S), bool)), "low": np.float32(-np.inf)}, {}, CHOSEN, None),
    "where, input": ({"low": np.float32(-1e30)}, {"m": ("bool", [1, 1, 1, S])}, CHOSEN, lambda m: m[None, None, None]),
    "(1 - m) * c": (
        BIAS,
        {"m": ("int64", [1, S])},
        [
            ("Unsqueeze", ("m", "axes"), "m1", {}),
            ("Cast", ("m1",), "m2", {"to": 1}),
            ("Sub", ("one", "m2"), "m3", {}),
            ("Mul", ("m3", "low"), "bias", {}),
            *ADDED,
        ],
        lambda m: m[None].astype(np.int64),
    ),
    "causal and padding": (
        {**BIAS, "none": np.float32(0), "seen": np.tril(np.ones((1, 1, S, S), bool))},
        {"m": ("int64", [1, S])},
        [
            ("Cast", ("m",), "mb", {"to": 9}),
            ("Unsqueeze", ("mb", "axes"), "m1", {}),
            ("And", ("seen", "m1"), "mm", {}),
            ("Where", ("mm", "none", "low"), "bias", {}),
            *ADDED,
        ],
        lambda m: m[None].astype(np.int64),
    ),
    "additive input": (
        {},
        {"m": ("float32", [1, 1, 1, S])},
        [*projections(), *scores(), ("Add", ("s", "m"), "sm", {}), *rest("sm")],
        lambda m: np.where(m, 0, -1e4).astype(np.float32)[None, None, None],
    ),
    "relative positions": (lambda rng: {"bias": rng.normal(0, 1, (1, H, S, S)).astype(np.float32)}, {}, ADDED, None),
    "relative positions and padding": (
        lambda rng: {**BIAS, "low": np.float32(-1e9), "places": rng.normal(0, 1, (1, H, S, S)).astype(np.float32)},
        {"m": ("int64", [1, S])},
        [
            ("Unsqueeze", ("m", "axes"), "m1", {}),
            ("Cast", ("m1",), "m2", {"to": 1}),
            ("Sub", ("one", "m2"), "m3", {}),
            ("Mul", ("m3", "low"), "far", {}),
            ("Add", ("places", "far"), "bias", {}),
            *ADDED,
        ],
        lambda m: m[None].astype(np.int64),
    ),
    "layer normalization": (_gain, {}, [*LAYER_NORM, *projections("normed"), *scores(), *rest("s")], None),
    "root mean square": (_gain, {}, [*RMS_NORM, *projections("normed"), *scores(), *rest("s")], None),
    "batch and heads joined": (
        {
            "bias": causal(-1e9),
            "flat": np.array([H, S, C // H]),
            "turned": np.array([H, C // H, S]),
            "square": np.array([1, H, S, S]),
            "rows": np.array([H, S, S]),
            "apart": np.array([1, H, S, C // H]),
        },
        {},
        [
            *projections(),
            ("Reshape", ("q", "flat"), "q3", {}),
            ("Reshape", ("k", "turned"), "k3", {}),
            ("Reshape", ("v", "flat"), "v3", {}),
            ("MatMul", ("q3", "k3"), "s3", {}),
            ("Reshape", ("s3", "square"), "s0", {}),
            ("Div", ("s0", "root"), "s", {}),
            ("Add", ("s", "bias"), "sm", {}),
            ("Softmax", ("sm",), "p", {"axis": -1}),
            ("Reshape", ("p", "rows"), "p3", {}),
            ("MatMul", ("p3", "v3"), "c3", {}),
            ("Reshape", ("c3", "apart"), "c0", {}),
            *rest("sm")[2:],
        ],
        None,
    ),
    "rotary": (
        _angles,
        {},
        [
            *projections(turned=False),
            *_rotated("q"),
            *_rotated("k"),
            ("Transpose", ("k_r",), "kt", {"perm": [0, 1, 3, 2]}),
            *scores("q_r", "kt"),
            *rest("s"),
        ],
        None,
    ),
}
