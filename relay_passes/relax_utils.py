"""Small helpers over Relax IR, and the one forward rewriter the macro passes are written with.

All TVM-internal spellings the passes need (``GenericConst``, attribute access, function assembly) live here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.target.errors import ModelError

KEPT_ATTR = "ergo_kept_in_float"
"""On main: JSON of why the network is left in float on purpose, and the remedy (`micro.quantize.kept_in_float`)."""

PARTS_ATTR = "ergo_float_parts"
"""On main: JSON of the tensors that stay in float because 8 bits cannot carry them (`micro.float_parts`)."""

SIXTEEN_ATTR = "ergo_sixteen_bits"
"""On main: JSON of the tensors that are int16 because 8 bits lose too much (`micro.sixteen_bits`)."""

RANGES_ATTR = "ergo_ranges"
"""On main: JSON of the ranges of a network with attention whose weights are integers already (`attention.sealed`)."""

CALIBRATED_ATTR = "ergo_calibrated"
"""On main: JSON ``{"wide": {name of an int16 tensor at the network's end: its scale}}`` (`micro.wide_tail`); there on
all that we quantized."""

Constant = tvm.ir.GenericConst
Call, Expr, Var = tvm.ir.Call, tvm.ir.Expr, tvm.ir.Var
Tuple, TupleGetItem = tvm.ir.Tuple, tvm.ir.TupleGetItem

LINEAR_OPS = frozenset({"relax.nn.conv2d", "relax.nn.conv2d_transpose", "relax.matmul"})
_INFER = relax.BlockBuilder()


def op_name(expr) -> str:
    """Relax operator name of a call ("relax.nn.conv2d"); "" for anything that is not a call of a registered
    operator."""
    if isinstance(expr, Call) and isinstance(expr.op, tvm.ir.Op):
        return expr.op.name
    return ""


def shape_of(expr) -> tuple[int, ...]:
    """Static shape of a tensor expression. Errors: ModelError when it is unknown or symbolic."""
    shape = getattr(expr.ty, "shape", None)
    if shape is None or not all(isinstance(d, (int, tvm.tirx.IntImm)) for d in shape):
        raise ModelError(
            "a tensor has no static shape",
            where=str(getattr(expr, "name", op_name(expr))),
            required="every dimension a number",
            available=str(expr.ty),
            remedy="give the input shapes when loading the model (input_shapes={name: shape})",
        )
    return tuple(int(d) for d in shape)


def require_static_inputs(func: relax.Function) -> None:
    """Errors: ModelError naming the first unknown dimension of ``func``'s inputs, and the ways to give it a number."""
    for param in func.params:
        shape = getattr(param.ty, "shape", None)
        for axis, dim in enumerate(shape if shape is not None else ()):
            if isinstance(dim, (int, tvm.tirx.IntImm)):
                continue
            numbers = ", ".join(str(int(d)) if isinstance(d, (int, tvm.tirx.IntImm)) else "1" for d in shape)
            fixed = (
                ""
                if not isinstance(dim, tvm.tirx.Var)
                else (f'; or relax.transform.BindSymbolicVars({{"{dim.name}": 1}}, "main")(mod) before tvm.compile')
            )
            raise ModelError(
                f"dimension {str(dim)!r} (axis {axis}) of input {param.name!r} is not known",
                where=f"input {param.name!r}, {param.ty}",
                required="static shapes: the chip's memory is planned before the first run",
                remedy=f"tvm_ergo.compile and tvm_ergo.quantize take batch=1 (the first dimension) and "
                f"input_shapes={{{param.name!r}: [{numbers}]}}{fixed}",
            )


def dtype_of(expr) -> str:
    """Element type of a tensor expression, as NumPy spells it."""
    return str(expr.ty.dtype)


def is_tensor(expr) -> bool:
    """True for expressions of tensor type (not shapes, tuples or scalars)."""
    return isinstance(getattr(expr, "ty", None), relax.TensorType)


def const(array) -> Constant:
    """A Relax constant holding ``array`` (a copy, C-contiguous)."""
    array = np.asarray(array)
    return relax.const(np.ascontiguousarray(array).reshape(array.shape), str(array.dtype))


def array_of(expr: Constant) -> np.ndarray:
    """The value of a constant as an array (a view of its storage where TVM allows one)."""
    return np.from_dlpack(expr.value) if expr.value.dtype != "bool" else expr.value.numpy()


def scalar_of(expr) -> float:
    """The value of a constant with one element. Errors: ModelError for anything else."""
    if not isinstance(expr, Constant) or math.prod(shape_of(expr)) != 1:
        raise ModelError("a constant with one element is needed here", where=str(expr)[:80])
    return expr.value.numpy().reshape(-1)[0].item()


def ints(values) -> tuple[int, ...]:
    """A TVM array of integers (or one integer) as Python ints."""
    return (int(values),) if isinstance(values, int) else tuple(int(v) for v in values)


def infer(call: Expr) -> Expr:
    """``call`` with its type filled in; a call without nested calls stays the same object."""
    return _INFER.normalize(call)


def safe_name(name: str) -> str:
    """A source name as an identifier: only letters, digits and underscores, not starting with a digit."""
    name = re.sub(r"[^0-9A-Za-z]+", "_", name.split(";")[0]).strip("_") or "value"
    return f"n{name}" if name[0].isdigit() else name


def main_of(mod: tvm.IRModule) -> relax.Function:
    """The function ``main`` of a module. Errors: ModelError when there is none."""
    if "main" not in [g.name_hint for g in mod.get_global_vars()]:
        raise ModelError(
            "the module has no function 'main'", available=", ".join(g.name_hint for g in mod.get_global_vars())
        )
    func = mod["main"]
    if not isinstance(func, relax.Function):
        raise ModelError("'main' is not a Relax function", available=type(func).__name__)
    return func


def bindings_of(func: relax.Function) -> list[tuple[Var, Expr]]:
    """All bindings of a straight-line function, in order, blocks joined. Errors: ModelError for match_cast or control
    flow."""
    pairs = []
    if not isinstance(func.body, relax.SeqExpr):
        return pairs
    for block in func.body.blocks:
        for binding in block.bindings:
            if not isinstance(binding, relax.VarBinding) or isinstance(binding.value, relax.If):
                raise ModelError(
                    "the model has control flow or dynamic shapes",
                    where=str(binding.var.name),
                    remedy="export it with static shapes and without If/Loop",
                )
            pairs.append((binding.var, binding.value))
    return pairs


def body_of(func: relax.Function) -> Expr:
    """What the function returns (a variable, a tuple, or a constant)."""
    return func.body.body if isinstance(func.body, relax.SeqExpr) else func.body


def children(expr: Expr) -> Sequence[Expr]:
    """The operands an expression mentions directly."""
    if isinstance(expr, Call):
        return expr.args
    if isinstance(expr, Tuple):
        return expr.fields
    if isinstance(expr, TupleGetItem):
        return (expr.tuple_value,)
    return ()


def variables_in(expr: Expr) -> list[Var]:
    """Variables mentioned anywhere in ``expr``, in order, repeated as often as mentioned."""
    if isinstance(expr, Var):
        return [expr]
    return [v for child in children(expr) for v in variables_in(child)]


def with_operands(expr: Expr, replace: Callable[[Var], Expr]) -> Expr:
    """``expr`` with every variable replaced; the same object when nothing changed."""
    if isinstance(expr, Var):
        return replace(expr)
    old = list(children(expr))
    new = [with_operands(child, replace) for child in old]
    if all(a is b or a.same_as(b) for a, b in zip(old, new)):
        return expr
    if isinstance(expr, Call):
        return Call(expr.op, new, expr.attrs, expr.ty_args)
    if isinstance(expr, Tuple):
        return Tuple(new)
    return TupleGetItem(new[0], expr.index)


class Rewriter:
    """Walks ``main`` forwards and rebuilds it; subclasses override :meth:`rewrite`.

    ``rewrite(var, value)`` gets a binding whose operands are already the new ones and returns the expression that takes
    its place: a Call or Tuple is bound under the old name, a variable or constant simply replaces the old variable.
    ``emit`` binds helper values. Afterwards dead bindings are gone, outputs are non-dataflow variables, one block is
    left."""

    def __init__(self, mod: tvm.IRModule):
        self.mod, self.func = mod, main_of(mod)
        self.source = bindings_of(self.func)
        self.uses: dict[Var, int] = {}
        for _, value in self.source:
            self._count(value)
        self._count(body_of(self.func))
        self.bindings: list[tuple[Var, Expr]] = []
        self.definition: dict[Var, Expr] = {}
        self.replaced: dict[Var, Expr] = {}
        self.origin: dict[Var, Var] = {p: p for p in self.func.params}
        self._hint = ""

    def _count(self, value: Expr) -> None:
        for var in variables_in(value):
            self.uses[var] = self.uses.get(var, 0) + 1

    def rewrite(self, var: Var, value: Expr) -> Expr:
        return value

    def outputs(self, body: Expr) -> Expr:
        """Hook: the returned expression, operands already replaced."""
        return body

    def emit(self, value: Expr, hint: str = "") -> Expr:
        """Bind ``value`` to a new variable (variables, constants and shapes are returned as they are); operands may be
        nested calls."""
        if isinstance(value, (Var, Constant, relax.ShapeExpr)):
            return value
        if isinstance(value, Call):
            value = (
                infer(Call(value.op, [self._flat(a) for a in value.args], value.attrs, value.ty_args))
                if any(isinstance(a, Call) for a in value.args)
                else infer(value)
            )
        else:
            value = infer(value)
        var = relax.DataflowVar(hint or self._hint, value.ty)
        self.bindings.append((var, value))
        self.definition[var] = value
        return var

    def _flat(self, arg: Expr) -> Expr:
        return self.emit(arg, f"{self._hint}_{op_name(arg).split('.')[-1]}") if isinstance(arg, Call) else arg

    def defined(self, expr: Expr, name: str | None = None) -> Call | None:
        """The call that defines a variable in the new function (of operator ``name`` if given), else None."""
        value = self.definition.get(expr) if isinstance(expr, Var) else None
        if isinstance(value, Call) and (name is None or op_name(value) == name):
            return value
        return None

    def single_use(self, new: Expr) -> bool:
        """True if the old variable ``new`` stands for is mentioned exactly once in the function being rewritten."""
        return isinstance(new, Var) and self.uses.get(self.origin.get(new), 0) == 1

    def replacement(self, var: Var) -> Expr:
        return self.replaced.get(var, var)

    def run(self) -> tvm.IRModule:
        for var, value in self.source:
            self._hint = var.name
            new = self.emit(self.rewrite(var, with_operands(value, self.replacement)), var.name)
            self.replaced[var] = new
            if isinstance(new, Var):
                self.origin.setdefault(new, var)
        body = self.outputs(with_operands(body_of(self.func), self.replacement))
        return assemble(self.mod, self.func, self.bindings, body)


def assemble(mod: tvm.IRModule, func: relax.Function, bindings: list[tuple[Var, Expr]], body: Expr) -> tvm.IRModule:
    """A module like ``mod`` whose main has these bindings in one dataflow block: unused ones dropped, names made
    unique."""
    alive = set(variables_in(body))
    kept = []
    for var, value in reversed(bindings):
        if var in alive:
            alive.update(variables_in(value))
            kept.append((var, value))
    kept.reverse()
    results = list(body.fields) if isinstance(body, Tuple) else [body]
    bound = {var for var, _ in kept}
    returned = {r for r in results if isinstance(r, Var) and r in bound}
    names = {p.name for p in func.params}
    renamed: dict[Var, Var] = {}
    final = []
    for var, value in kept:
        name = _unique(var.name, names)
        if var in returned or not isinstance(var, relax.DataflowVar) or name != var.name:
            new = relax.Var(name, var.ty) if var in returned else relax.DataflowVar(name, var.ty)
            renamed[var] = new
        else:
            new = var
        value = with_operands(value, lambda v: renamed.get(v, v))
        final.append(relax.VarBinding(new, infer(value)))
    outs = [_output(r, renamed, final, names) for r in results]
    out = Tuple(outs) if isinstance(body, Tuple) else outs[0]
    out = infer(out) if isinstance(out, Tuple) else out
    seq = relax.SeqExpr([relax.DataflowBlock(final)], out)
    made = relax.Function(func.params, seq, ret_ty=out.ty).with_attr("global_symbol", "main")
    for name in ("num_input", KEPT_ATTR, PARTS_ATTR, SIXTEEN_ATTR, CALIBRATED_ATTR, RANGES_ATTR):
        if func.attrs and name in func.attrs:
            made = made.with_attr(name, func.attrs[name])
    keep = {g: f for g, f in mod.functions.items() if g.name_hint != "main" and _mentions(final, g)}
    keep[tvm.ir.GlobalVar("main")] = made
    return relax.transform.Normalize()(tvm.IRModule(keep, attrs=mod.attrs))


def _output(result: Expr, renamed: dict, final: list, names: set[str]) -> Expr:
    if isinstance(result, Var) and result in renamed:
        return renamed[result]
    alias = relax.Var(_unique("output", names), result.ty)
    final.append(relax.VarBinding(alias, result))
    return alias


def _unique(name: str, taken: set[str]) -> str:
    candidate, n = name, 1
    while candidate in taken:
        candidate, n = f"{name}_{n}", n + 1
    taken.add(candidate)
    return candidate


def _mentions(bindings: list, gvar) -> bool:
    return any(
        isinstance(a, tvm.ir.GlobalVar) and a.name_hint == gvar.name_hint for b in bindings for a in children(b.value)
    )
