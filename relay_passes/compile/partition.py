"""Partition: every run of integer ops becomes one function for the chip; everything else stays on the host.

Regions are as few as the data flow allows. The level of an op is the number of changes from chip to host on the longest
path that leads to it. All chip ops of one level form one region: a path from a chip op through a host op back to a chip
op raises the level, so none leaves a region and returns (the regions are convex), and regions can be called by rising
level. TVM's FuseOpsByPattern with MergeCompositeFunctions makes one composite per op first, and more regions where
branches meet."""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax

from tvm_ergo.relay_passes.dialect import is_ergo_call

CODEGEN = "ergo"


@tvm.transform.module_pass(opt_level=0, name="ErgoPartition")
@dataclass(frozen=True)
class Partition:
    """Moves ``relax.ergo.*`` calls into functions with attributes ``Codegen="ergo"`` and ``global_symbol``.

    In: a module whose functions mix calls of the integer dialect with any other ops, the chip's ones in dataflow blocks
    (others are left alone). Out: the same module, valid, computing the same values, each region called where it stood;
    host bindings keep their variables. Constants go inside the regions; a region's parameters carry the names of what
    they receive.

    prefix : start of the new functions' names, ``<prefix>_<function>_<number>``.
    """

    prefix: str = CODEGEN

    def transform_module(self, mod: tvm.IRModule, _context) -> tvm.IRModule:
        builder, changed = relax.BlockBuilder(mod), False
        for global_var, func in mod.functions_items():
            if isinstance(func, relax.Function) and not is_chip_function(func) and isinstance(func.body, relax.SeqExpr):
                name = f"{self.prefix}_{global_var.name_hint}"
                new = _partition_function(builder, func, name)
                if new is not None:
                    builder.update_func(global_var, new)
                    changed = True
        return relax.transform.Normalize()(builder.finalize()) if changed else mod


def is_chip_function(func: relax.Function) -> bool:
    """Whether a function is one of the chip's regions."""
    return func.attrs is not None and func.attrs.get("Codegen") == CODEGEN


def chip_functions(mod: tvm.IRModule) -> list[tuple[str, relax.Function]]:
    """``(name, function)`` of the regions of a partitioned module, by name."""
    found = [
        (gv.name_hint, f) for gv, f in mod.functions_items() if isinstance(f, relax.Function) and is_chip_function(f)
    ]
    return sorted(found, key=lambda item: item[0])


def _partition_function(builder: relax.BlockBuilder, func: relax.Function, name: str) -> relax.Function | None:
    """The function with its chip calls replaced by calls of new functions, or None if it has none."""
    used_later = _variables(func.body.body)
    blocks = []
    for block in reversed(func.body.blocks):
        is_flow = isinstance(block, relax.DataflowBlock)
        if is_flow and any(is_ergo_call(b.value) for b in block.bindings):
            blocks.append(_partition_block(builder, list(block.bindings), used_later, name))
        else:
            blocks.append(block)
        for binding in block.bindings:
            used_later |= _variables(binding.value)
    if all(new is old for new, old in zip(reversed(blocks), func.body.blocks, strict=True)):
        return None
    return relax.Function(
        func.params, relax.SeqExpr(blocks[::-1], func.body.body), func.ret_ty, func.is_pure, func.attrs
    )


def _variables(expr: relax.Expr) -> set[relax.Var]:
    return set(relax.analysis.free_vars(expr)) if not isinstance(expr, relax.Var) else {expr}


def _levels(bindings: list[relax.Binding]) -> list[int]:
    """Level of each binding: regions that must have run before a host op, or the number of the region a chip op belongs
    to."""
    level_of: dict[relax.Var, int] = {}  # of the value, as a host op sees it
    region_of: dict[relax.Var, int] = {}
    levels = []
    for binding in bindings:
        needs = _variables(binding.value)
        if is_ergo_call(binding.value):
            level = max((region_of.get(v, level_of.get(v, 0)) for v in needs), default=0)
            region_of[binding.var], level_of[binding.var] = level, level + 1
        else:
            level = max((level_of.get(v, 0) for v in needs), default=0)
            level_of[binding.var] = level
        levels.append(level)
    return levels


def _partition_block(
    builder, bindings: list[relax.Binding], used_later: set[relax.Var], name: str
) -> relax.DataflowBlock:
    levels = _levels(bindings)
    used_by: dict[relax.Var, set[int]] = {}  # region numbers that use a variable; -1 for the host
    for binding, level in zip(bindings, levels, strict=True):
        for variable in _variables(binding.value):
            used_by.setdefault(variable, set()).add(level if is_ergo_call(binding.value) else -1)
    for variable in used_later:
        used_by.setdefault(variable, set()).add(-1)
    result: list[relax.Binding] = []
    for level in range(max(levels) + 1):
        here = [b for b, at in zip(bindings, levels, strict=True) if at == level]
        result += [b for b in here if not is_ergo_call(b.value)]
        region = [b for b in here if is_ergo_call(b.value)]
        if region:
            outputs = [
                b.var for b in region if used_by.get(b.var, set()) - {level} or not isinstance(b.var, relax.DataflowVar)
            ]
            if outputs:  # else the whole region is dead code
                result += _outline(builder, region, outputs, f"{name}_{level}")
    return relax.DataflowBlock(result)


def _outline(builder, region: list[relax.VarBinding], outputs: list[relax.Var], name: str) -> list[relax.Binding]:
    """Adds the region as a function to ``builder``'s module; gives the bindings that call it."""
    made = {b.var for b in region}
    inputs = list(dict.fromkeys(a for b in region for a in b.value.args if isinstance(a, relax.Var) and a not in made))
    fresh = {v: relax.Var(v.name, v.ty) for v in inputs}
    body = []
    for binding in region:
        call = binding.value
        fresh[binding.var] = relax.DataflowVar(binding.var.name, binding.var.ty)
        args = [fresh[a] if isinstance(a, relax.Var) else a for a in call.args]
        body.append(relax.VarBinding(fresh[binding.var], relax.Call(call.op, args, call.attrs, ret_ty=call.ty)))
    value = fresh[outputs[0]] if len(outputs) == 1 else relax.Tuple([fresh[v] for v in outputs])
    ty = outputs[0].ty if len(outputs) == 1 else relax.TupleType([v.ty for v in outputs])
    result = relax.Var("result", ty)
    body.append(relax.VarBinding(result, value))
    func = relax.Function([fresh[v] for v in inputs], relax.SeqExpr([relax.DataflowBlock(body)], result), ty)
    global_var = builder.add_func(func.with_attrs({"Codegen": CODEGEN}), name)
    builder.update_func(global_var, builder.get()[global_var].with_attr("global_symbol", global_var.name_hint))
    call = relax.Call(global_var, inputs, ret_ty=ty)
    if len(outputs) == 1:
        return [relax.VarBinding(outputs[0], call)]
    together = relax.DataflowVar(f"{name}_outputs", ty)
    picks = [relax.VarBinding(v, relax.TupleGetItem(together, i)) for i, v in enumerate(outputs)]
    return [relax.VarBinding(together, call), *picks]
