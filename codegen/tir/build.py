"""PrimFuncs bound to the chip, inside TVM's TIR pipeline: each becomes a Program and a host stub of the same name that
calls it.

The Programs ride through the rest of the pipeline as the attribute of one empty function bound to the chip's target,
which TVM hands to the generator of the kind ``ext_dev`` (`module_of_compiled`); that module is then imported by the
host's."""

from __future__ import annotations

import tvm
from tvm import relax, tirx

from tvm_ergo.codegen.exclusive import exclusively
from tvm_ergo.codegen.tir.recognise import graph_of
from tvm_ergo.codegen.tir.stages import unsupported
from tvm_ergo.target.errors import UnsupportedError
from tvm_ergo.target.tags import is_ergo

PROGRAMS = "ergo.programs"
_SUFFIX = "_ergo_program"


@exclusively()
def compile_prim_functions(mod: tvm.IRModule) -> tuple[tuple[tvm.target.Target, dict[str, bytes]], tvm.IRModule]:
    """``((target, symbol -> Program bytes), module)``: the module with every function of the chip replaced by its host
    stub.

    Errors: UnsupportedError for a function the chip cannot do, or a Relax function; OutOfMemoryError if one does not
    fit."""
    programs: dict[str, bytes] = {}
    functions, chip_target = {}, None
    for gvar, func in mod.functions_items():
        if isinstance(func, relax.Function):
            raise UnsupportedError(
                "a Relax module is not for tvm.build",
                where=gvar.name_hint,
                remedy='use tvm.compile(mod, target="ergo")',
            )
        target = func.attrs.get("target", None) if func.attrs is not None else None
        if isinstance(func, tirx.PrimFunc) and is_ergo(target):
            chip_target = target
            name = str(func.attrs.get("global_symbol", gvar.name_hint))
            programs[name + _SUFFIX] = program_of(func, target, name).to_bytes()
            func = _stub(func, target, name)
        functions[gvar] = func
    return (chip_target, programs), tvm.IRModule(functions, attrs=mod.attrs)


def program_of(func: tirx.PrimFunc, target, name: str = "main"):
    """The Program of one PrimFunc for a target, tag or chip. Errors: as `compile_prim_functions`."""
    from tvm_ergo.codegen.byoc import program_of_graph
    from tvm_ergo.target.tags import chip_of_target

    return program_of_graph(graph_of(func, name), chip_of_target(target))


def _stub(func: tirx.PrimFunc, target, name: str) -> tirx.PrimFunc:
    """A host function of the same signature that calls the Program with the inputs first, as the launcher takes
    them."""
    from tvm_ergo.codegen.tir.stages import stages_of

    written = {s.buffer for s in stages_of(func)}
    arguments = [p for p in func.params if p not in written] + [p for p in func.params if p in written]
    if target.host is None:
        raise unsupported("a chip target without a host", target)
    body = tirx.Evaluate(tirx.call_packed(name + _SUFFIX, *arguments))
    attrs = {"global_symbol": name, "target": target.host.with_host(target.host), "tirx.noalias": True}
    return tirx.PrimFunc(func.params, body, attrs=tvm.ir.make_node("ir.DictAttrs", **attrs))


def join(compiled: tuple[tvm.target.Target, dict[str, bytes]], lowered: tvm.IRModule) -> tvm.IRModule:
    """The lowered host module with the Programs attached for `module_of_compiled`."""
    target, programs = compiled
    carrier = tirx.PrimFunc(
        [], tirx.Evaluate(0), attrs=tvm.ir.make_node("ir.DictAttrs", target=target, **{PROGRAMS: programs})
    )
    joined = tvm.IRModule(dict(lowered.functions_items()), attrs=lowered.attrs)
    joined[tvm.ir.GlobalVar("ergo_programs")] = carrier
    return joined


def module_of_compiled(mod: tvm.IRModule, target):
    """The runtime module of the Programs that `join` attached. Errors: UnsupportedError for other functions of this
    target kind."""
    from tvm_ergo.codegen.runtime.native import create_module

    programs: dict[str, bytes] = {}
    for gvar, func in mod.functions_items():
        carried = func.attrs.get(PROGRAMS, None) if func.attrs is not None else None
        if carried is None:
            raise UnsupportedError(
                f"no code generator for a function of target {target}",
                where=gvar.name_hint,
                remedy='build it with target="ergo" and the default pipeline',
            )
        programs.update({str(k): bytes(v) for k, v in carried.items()})
    return create_module(programs)
