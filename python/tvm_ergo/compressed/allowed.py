"""What a compressed network may be made of. Its structure is TVM's own JSON, in which a file could name any function of
the process, or say that a tensor is larger than it is.

`check_nodes` looks at the JSON before TVM does: types of nodes that are tensors, operators and their attributes, and no
others: no functions but main, no external or packed calls, no loops (PrimFuncs), no modules. `check_module` looks at
what TVM made of it: one straight-line main of operators from a list, each with attributes of its own kind, whose types
are what TVM infers anew, within the limit on what a model may declare."""

from __future__ import annotations

import functools

import tvm
from tvm import relax
from tvm_ffi import structural_equal

from tvm_ergo.relay_passes.relax_utils import (
    CALIBRATED_ATTR,
    KEPT_ATTR,
    PARTS_ATTR,
    RANGES_ATTR,
    Call,
    Constant,
    Tuple,
    TupleGetItem,
    Var,
)
from tvm_ergo.target.limits import Declared, parsed_json

MAX_NODES = 1 << 20
MAX_FIELDS = 4096  # of a tuple, tensors of a concat
NODE_TYPES = frozenset(
    {
        "None",
        "int",
        "bool",
        "float",
        "DataType",
        "ffi.String",
        "ffi.Array",
        "ffi.Map",
        "ffi.Tensor",
        "ir.Type",
        "ir.PrimType",
        "ir.TupleType",
        "ir.IntImm",
        "ir.FloatImm",
        "ir.Op",
        "ir.GlobalVar",
        "ir.Var",
        "ir.Call",
        "ir.Tuple",
        "ir.TupleGetItem",
        "ir.GenericConst",
        "ir.DictAttrs",
        "ir.SourceMap",
        "ir.IRModule",
        "relax.TensorType",
        "relax.ShapeType",
        "relax.FuncType",
        "relax.expr.ShapeExpr",
        "relax.expr.DataflowVar",
        "relax.expr.VarBinding",
        "relax.expr.BindingBlock",
        "relax.expr.DataflowBlock",
        "relax.expr.SeqExpr",
        "relax.expr.Function",
    }
)
OPERATORS = frozenset(
    f"relax.{name}"
    for name in """
    abs acos acosh add arange argmax argmin argsort asin asinh astype atan atanh bitwise_and bitwise_not bitwise_or bitwise_xor broadcast_to ceil clip concat cos cosh cumprod
    cumsum dequantize divide einsum equal erf exp expand_dims eye eye_like flatten flip floor floor_divide floor_mod full full_like greater greater_equal image.resize2d isfinite
    isinf isnan left_shift less less_equal log logical_and logical_not logical_or logical_xor matmul max maximum mean min minimum mod multiply negative
    nn.adaptive_avg_pool1d nn.adaptive_avg_pool2d nn.avg_pool1d nn.avg_pool2d nn.batch_flatten nn.batch_norm nn.conv1d nn.conv1d_transpose nn.conv2d nn.conv2d_transpose
    nn.dropout nn.gelu nn.gelu_tanh nn.group_norm nn.instance_norm nn.layer_norm nn.leakyrelu nn.log_softmax nn.max_pool1d nn.max_pool2d nn.pad nn.pixel_shuffle nn.prelu nn.relu
    nn.rms_norm nn.selu nn.silu nn.softmax nn.softplus not_equal one_hot ones ones_like permute_dims power prod quantize repeat reshape right_shift round rsqrt shape_of
    shape_to_tensor sigmoid sign sin sinh sort split sqrt square squeeze stack std strided_slice subtract sum take tan tanh tile topk tril triu trunc variance where zeros
    zeros_like""".split()
)
"""Of tensors alone. Those that take places out of a tensor of places and do not look whether these exist (gather,
scatter) are not among them, but for ``take``."""
_UNSAID = {
    **{
        f"relax.{name}": "relax.attrs.StatisticalAttrs"
        for name in ("max", "mean", "min", "prod", "std", "sum", "variance")
    },
    "relax.argmax": "relax.attrs.ArgmaxArgminAttrs",
    "relax.argmin": "relax.attrs.ArgmaxArgminAttrs",
    "relax.matmul": "relax.attrs.MatmulAttrs",
}
"""The type of attributes of those operators for which TVM does not register it."""
DTYPES = frozenset(
    ("float32", "float16", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
)
FUNCTION_ATTRS = {
    "global_symbol": str,
    "num_input": int,
    KEPT_ATTR: str,
    CALIBRATED_ATTR: str,
    PARTS_ATTR: str,
    RANGES_ATTR: str,
}
TOLD = {
    CALIBRATED_ATTR: {"wide", "shown", "inputs"},
    PARTS_ATTR: {"tensors", "before", "after"},
    RANGES_ATTR: {f"{width}_{end}" for width in ("narrow", "wide") for end in ("lo", "hi")},
}
"""Attributes of main that are JSON: the keys of each."""
MAY_LACK = {"shown", "inputs"}


@functools.cache
def _attribute_types() -> dict[str, str]:
    """By operator; those without attributes are left out."""
    registered = OPERATORS & set(tvm.ir.Op.list_op_names())
    return {
        name: key for name in registered if (key := str(tvm.ir.Op.get(name).attrs_type_key or _UNSAID.get(name, "")))
    }


def check_nodes(graph: dict) -> None:
    """Errors: ValueError for JSON with nodes that are not in a network."""
    nodes = graph.get("nodes")
    _require(isinstance(nodes, list) and len(nodes) <= MAX_NODES, f"it has no list of at most {MAX_NODES:,} nodes")
    root = graph.get("root_index")
    _require(
        type(root) is int and 0 <= root < len(nodes) and nodes[root].get("type") == "ir.IRModule",
        "its root is no module",
    )
    known = NODE_TYPES | set(_attribute_types().values())
    for number, node in enumerate(nodes):
        kind = node.get("type")
        _require(
            isinstance(kind, str) and kind in known,
            f"node {number} is of the type {str(kind)[:80]!r}, which no network holds",
        )
        if kind == "ir.Op":
            _require(
                node.get("data") in OPERATORS,
                f"the operator {str(node.get('data'))[:80]!r} is not among those of a file",
            )


def check_module(mod: tvm.IRModule, declared: Declared) -> None:
    """Errors: ValueError for a module that is not as `compress` writes it; ModelError above the limit."""
    functions = {gv.name_hint: f for gv, f in mod.functions_items()}
    _require(
        list(functions) == ["main"] and isinstance(functions["main"], relax.Function),
        "it holds other functions than main",
    )
    _require(not mod.attrs and not mod.global_infos, "it has attributes of its own")
    _Checked(functions["main"], declared).check()


def _is_told(text: str, keys: set[str]) -> bool:
    """Whether a text is JSON of an object with those keys: a list of names, losses by name, numbers."""
    try:
        told = parsed_json(text)
    except ValueError:
        return False
    number = (int, float)
    return (
        isinstance(told, dict)
        and keys - MAY_LACK <= set(told) <= keys
        and all(
            isinstance(value, number)
            or isinstance(value, list)
            and all(isinstance(v, str) for v in value)
            or isinstance(value, dict)
            and all(isinstance(v, number) for v in value.values())
            for value in told.values()
        )
    )


class _Checked:
    def __init__(self, func: relax.Function, declared: Declared):
        self.func, self.declared, self.known = func, declared, set()
        self.builder = relax.BlockBuilder()

    def check(self) -> None:
        func = self.func
        for key, value in (func.attrs or {}).items():
            _require(
                key in FUNCTION_ATTRS and isinstance(value, FUNCTION_ATTRS[key]),
                f"main has the attribute {str(key)[:80]!r}",
            )
            _require(
                key not in TOLD or _is_told(str(value), TOLD[key]),
                f"main's attribute {key!r} is not what quantizing writes",
            )
        for param in func.params:
            self._tensor(param.ty, f"input {param.name!r}")
            self._define(param)
        _require(isinstance(func.body, relax.SeqExpr), "main is no sequence of operators")
        for block in func.body.blocks:
            for binding in block.bindings:
                _require(isinstance(binding, relax.VarBinding), "main has a branch, or a cast of a shape")
                made = self._value(binding.value, top=True)
                name = str(binding.var.name)
                self._same(binding.var.ty, made, f"node {name!r}")
                self._declare(binding.var.ty, f"node {name!r}")
                self._define(binding.var)
        made = self._value(func.body.body, top=True)
        for what in (func.body.ty, func.ret_ty):
            self._same(what, made, "the result")

    def _define(self, var: Var) -> None:
        _require(isinstance(var, Var) and var not in self.known, f"{str(var.name)[:80]!r} is defined twice")
        self.known.add(var)

    def _value(self, value, top: bool = False):
        """The type that an expression has, whatever it says of itself."""
        if isinstance(value, Var):
            _require(value in self.known, f"{str(value.name)[:80]!r} is used before it is there")
            return value.ty
        if isinstance(value, Constant):
            array = value.value
            ty = relax.TensorType([int(n) for n in array.shape], str(array.dtype))
            self._same(value.ty, ty, "a constant")
            return ty
        if isinstance(value, (tvm.tirx.IntImm, tvm.tirx.FloatImm)):
            return value.ty
        if isinstance(value, relax.ShapeExpr):
            _require(all(isinstance(d, tvm.tirx.IntImm) for d in value.values), "a shape is not of numbers")
            self._same(value.ty, relax.ShapeExpr(list(value.values)).ty, "a shape")
            return value.ty
        if isinstance(value, Tuple):
            _require(len(value.fields) <= MAX_FIELDS, f"a tuple of more than {MAX_FIELDS:,}")
            ty = tvm.ir.TupleType([self._leaf(field) for field in value.fields])
            if value.ty is not None and not isinstance(value.ty, tvm.ir.TupleType):
                raise ValueError("a tuple says that it is something else")
            self._same(value.ty, ty, "a tuple")
            return ty
        if isinstance(value, TupleGetItem):
            ty = self._leaf(value.tuple_value)
            _require(
                isinstance(ty, tvm.ir.TupleType) and 0 <= int(value.index) < len(ty.fields),
                "a part of what is no tuple",
            )
            return ty.fields[int(value.index)]
        _require(top and isinstance(value, Call), f"an expression of the kind {type(value).__name__}")
        return self._call(value)

    def _leaf(self, value):
        _require(not isinstance(value, (Tuple, TupleGetItem, Call)), "expressions inside of expressions")
        return self._value(value)

    def _call(self, call: Call):
        _require(
            isinstance(call.op, tvm.ir.Op) and str(call.op.name) in OPERATORS,
            f"a call of {str(getattr(call.op, 'name', type(call.op).__name__))[:80]!r}",
        )
        name = str(call.op.name)
        found = None if call.attrs is None else type(call.attrs).__tvm_ffi_type_info__.type_key
        _require(found == _attribute_types().get(name), f"{name} has attributes of the type {found}")
        for argument in call.args:
            self._value(argument)
        _require(not call.ty_args, f"{name} has types as arguments")
        made = self.builder.normalize(Call(call.op, list(call.args), call.attrs, list(call.ty_args)))
        self._same(call.ty, made.ty, name)
        return made.ty

    def _same(self, said, made, what: str) -> None:
        _require(said is not None and structural_equal(said, made), f"the type of {what} is not what it is made of")

    def _declare(self, ty, where: str) -> None:
        for part in ty.fields if isinstance(ty, tvm.ir.TupleType) else [ty]:
            if isinstance(part, relax.TensorType):
                self._tensor(part, where)

    def _tensor(self, ty, where: str) -> None:
        _require(
            isinstance(ty, relax.TensorType)
            and isinstance(ty.shape, relax.ShapeExpr)
            and all(isinstance(d, tvm.tirx.IntImm) for d in ty.shape.values),
            f"{where} is no tensor of a known shape",
        )
        _require(str(ty.dtype) in DTYPES and ty.vdevice is None, f"{where} is of a type that no network has")
        shape = [int(d) for d in ty.shape.values]
        _require(min(shape, default=0) >= 0, f"{where} has a negative dimension")
        self.declared.add_tensor(shape, ITEM_BYTES[str(ty.dtype)], where)


ITEM_BYTES = {dtype: 1 if dtype == "bool" else int("".join(c for c in dtype if c.isdigit())) // 8 for dtype in DTYPES}


def _require(condition: bool, what: str) -> None:
    """Errors: ValueError."""
    if not condition:
        raise ValueError(what)
