"""Names of variables after an import: parameters become identifiers, nameless helpers take the name of what they
help."""

from __future__ import annotations

import re

import tvm
from tvm import relax

from tvm_ergo.relay_passes.relax_utils import (
    Var,
    assemble,
    bindings_of,
    body_of,
    main_of,
    op_name,
    safe_name,
    with_operands,
)

_AUTOMATIC = re.compile(r"^(lv|gv)\d*$")


def name_helpers(mod: tvm.IRModule) -> tvm.IRModule:
    """``mod`` with parameters renamed by :func:`safe_name` and TVM's ``lv12`` renamed to ``<next named
    value>_<operator>``.

    A node the importer splits (a convolution with bias: conv2d, add) keeps its name on the last part.
    """
    func = main_of(mod)
    renamed, taken = {}, set()
    for p in func.params:
        name = next(
            n
            for n in (safe_name(p.name), *(f"{safe_name(p.name)}_{i}" for i in range(2, 2 + len(func.params))))
            if n not in taken
        )
        taken.add(name)
        renamed[p] = relax.Var(name, p.ty)
    pairs, owner, names = bindings_of(func), "output", {}
    for var, value in reversed(pairs):
        if isinstance(value, Var):  # the output's alias of a value that has a name
            continue
        if _AUTOMATIC.match(var.name):
            names[var] = f"{owner}_{op_name(value).split('.')[-1] or 'value'}"
        else:
            owner = names[var] = var.name
    made = []
    for var, value in pairs:
        if isinstance(value, Var):
            renamed[var] = renamed[value]
            continue
        new = relax.DataflowVar(names[var], var.ty)
        made.append((new, with_operands(value, lambda v: renamed.get(v, v))))
        renamed[var] = new
    body = with_operands(body_of(func), lambda v: renamed.get(v, v))
    fresh = relax.Function([renamed[p] for p in func.params], func.body, func.ret_ty, func.is_pure, func.attrs)
    return assemble(mod, fresh, made, body)
