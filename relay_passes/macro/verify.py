"""The normal form (docs/architecture.md, section 3) as a check."""

from __future__ import annotations

import tvm
from tvm import relax

from tvm_ergo.relay_passes.relax_utils import (
    LINEAR_OPS,
    Call,
    Constant,
    Expr,
    Tuple,
    TupleGetItem,
    Var,
    bindings_of,
    body_of,
    main_of,
    op_name,
    shape_of,
    variables_in,
)
from tvm_ergo.target.errors import ModelError

_GONE = {
    "relax.nn.dropout": "dropout",
    "relax.expand_dims": "a reshape",
    "relax.squeeze": "a reshape",
    "relax.flatten": "a reshape",
    "relax.nn.relu6": "clip",
    "relax.shape_of": "a constant shape",
}


def verify_normal_form(mod: tvm.IRModule) -> None:
    """Errors: ModelError saying which rule of the normal form ``mod`` breaks, and where."""
    func = main_of(mod)
    names = [g.name_hint for g in mod.get_global_vars()]
    _require(len(names) == 1, "there is another function beside main", ", ".join(names))
    blocks = func.body.blocks if isinstance(func.body, relax.SeqExpr) else []
    _require(len(blocks) == 1 and isinstance(blocks[0], relax.DataflowBlock), "main is not one dataflow block", "main")
    _require(relax.analysis.well_formed(mod) is not False, "the module is not well-formed Relax", "main")
    pairs = bindings_of(func)
    _check_liveness(func, pairs)
    definitions: dict[Var, Expr] = {}
    for var, value in pairs:
        _check_type(var.ty, var.name)
        if isinstance(value, Call):
            _check_call(var, value, definitions)
        definitions[var] = value


def _require(condition: bool, what: str, where: str) -> None:
    if not condition:
        raise ModelError(
            f"not in normal form: {what}", where=where, remedy="run tvm_ergo.relay_passes.macro.normalize first"
        )


def _check_type(ty, name: str) -> None:
    if isinstance(ty, tvm.ir.TupleType):
        for field in ty.fields:
            _check_type(field, name)
        return
    _require(isinstance(ty, relax.TensorType), f"a value is not a tensor but {ty}", name)
    _require(
        ty.shape is not None and all(isinstance(d, tvm.tirx.IntImm) for d in ty.shape),
        f"a shape is not static: {ty}",
        name,
    )


def _check_liveness(func: relax.Function, pairs) -> None:
    body = body_of(func)
    used = set(variables_in(body)).union(*(variables_in(v) for _, v in pairs)) if pairs else set()
    names = [p.name for p in func.params]
    for var, value in pairs:
        _require(var in used, "a value is never used", var.name)
        _require(var.name not in names, "a name is used twice", var.name)
        renamed = isinstance(var, relax.DataflowVar) and not isinstance(value, (Call, Tuple, TupleGetItem))
        _require(not renamed, "a value is only renamed", var.name)
        names.append(var.name)


def _is_weight(expr: Expr, definitions: dict) -> bool:
    value = definitions.get(expr) if isinstance(expr, Var) else expr
    if isinstance(value, Constant):
        return True
    return op_name(value) == "relax.dequantize" and all(isinstance(a, Constant) for a in value.args)


def _check_call(var: Var, call: Call, definitions: dict) -> None:
    name, where = op_name(call), f"{var.name} ({op_name(call)})"
    _require(bool(name), "a call is not of a registered operator", var.name)
    _require(name not in _GONE, f"this operator should be {_GONE.get(name)}", where)
    constant = [isinstance(a, Constant) for a in call.args]
    _require(not (name == "relax.nn.batch_norm" and all(constant[1:])), "batch norm is not folded", where)
    _require(not call.args or not all(constant) or name == "relax.dequantize", "a constant is not folded", where)
    if name in ("relax.nn.conv2d", "relax.nn.conv2d_transpose"):
        layouts = (str(call.attrs.data_layout), str(call.attrs.kernel_layout), str(call.attrs.out_layout))
        _require(layouts == ("NHWC", "OHWI", "NHWC"), f"layouts are {layouts}", where)
        _require(_is_weight(call.args[1], definitions), "the weight is not a constant", where)
    elif "pool2d" in name or name == "relax.image.resize2d":
        _require(str(call.attrs.layout) == "NHWC", f"layout is {call.attrs.layout}", where)
    elif name in ("relax.quantize", "relax.dequantize"):
        _require(all(isinstance(a, Constant) for a in call.args[1:]), "scale or zero point is not a constant", where)
    elif name in ("relax.add", "relax.multiply"):
        left, right = (_is_weight(a, definitions) for a in call.args)
        _require(not left or right, "the constant operand stands left", where)
        if (
            name == "relax.add"
            and op_name(definitions.get(call.args[0])) in LINEAR_OPS
            and _is_weight(call.args[1], definitions)
        ):
            shape, channels = shape_of(call.args[1]), shape_of(var)[-1]
            per_channel = len([d for d in shape if d != 1]) <= 1
            _require(not per_channel or len(shape) == 1 or channels == 1, f"a bias has shape {shape}, not 1-D", where)
