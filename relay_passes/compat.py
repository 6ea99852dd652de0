"""The TVM 0.27 private or moving APIs that the passes and the dialect use, in one place.

Everything here was checked against ``apache-tvm==0.27.0.post1``; a new TVM version breaks here and nowhere else.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from pathlib import Path

import tvm
import tvm.ir._ffi_api as _ir_ffi
import tvm_ffi
from tvm import relax


def register_relax_op(name: str, doc: str, *, infer_type: Callable, legalize: Callable) -> tvm.ir.Op:
    """Register (or, a second time, re-register) the pure Relax op ``name`` with type inference and legalization.

    ``infer_type(call, ctx) -> tvm.ir.Type`` and ``legalize(block_builder, call) -> relax.Expr``. Idempotent.
    """
    if name not in set(_ir_ffi.ListOpNames()):
        _ir_ffi.RegisterOp(name, doc)
    op = tvm.ir.Op.get(name)
    for key, value in (("FInferType", infer_type), ("FLegalize", legalize), ("FPurity", True)):
        if op.has_attr(key):
            op.reset_attr(key)
        tvm.ir.register_op_attr(name, key, value)
    return op


def register_script_namespace(name: str, members: Mapping[str, Callable]) -> None:
    """Make ``R.<name>.<member>(...)`` parse in TVMScript for Relax (printing needs nothing)."""
    import tvm.relax.script
    import tvm.relax.script.parser

    namespace = types.SimpleNamespace(**members)
    setattr(tvm.relax.script, name, namespace)
    setattr(tvm.relax.script.parser, name, namespace)


def to_python(value):
    """An attribute value of TVM as plain Python: int, float, bool, str, None or a tuple of those."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (tvm.tirx.IntImm, tvm.tirx.FloatImm)):
        return bool(value.value) if str(value.ty) == "bool" else value.value
    if isinstance(value, (tvm_ffi.Array, list, tuple, relax.Tuple)):
        return tuple(to_python(item) for item in (value.fields if isinstance(value, relax.Tuple) else value))
    raise TypeError(f"no plain Python value for an attribute of type {type(value).__name__}")


def static_tensor_type(expr) -> tuple[tuple[int, ...], str] | None:
    """``(shape, dtype)`` of a Relax expression of static tensor type; None where it is not one (unknown rank,
    symbolic)."""
    ty = expr.ty
    if not isinstance(ty, relax.TensorType) or ty.shape is None or not isinstance(ty.shape, relax.ShapeExpr):
        return None
    dims = list(ty.shape.values)
    if not all(isinstance(d, tvm.tirx.IntImm) for d in dims):
        return None
    return tuple(int(d) for d in dims), str(ty.dtype)


_CHECKED_FEATURES = ("avx", "avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni")


def host_llvm_target() -> tvm.target.Target:
    """The llvm target of this machine with its own vector features; plain ``llvm`` where LLVM does not know the CPU, or
    where the kernel reports fewer features than the CPU's model has (a virtual machine may mask them)."""
    codegen = tvm.target.codegen
    cpu = str(codegen.llvm_get_system_cpu())
    if not cpu or cpu == "generic" or not codegen.llvm_is_valid_cpu(cpu, codegen.llvm_get_system_triple()):
        return tvm.target.Target("llvm")
    target = tvm.target.Target({"kind": "llvm", "mcpu": cpu})
    flags = _kernel_cpu_flags()
    needed = {str(name) for name in codegen.llvm_get_cpu_features(target)} & set(_CHECKED_FEATURES)
    if flags is not None and not {name.replace("avx512vnni", "avx512_vnni") for name in needed} <= flags:
        return tvm.target.Target("llvm")
    return target


def _kernel_cpu_flags() -> set[str] | None:
    """The x86 feature flags Linux reports, None on other systems and machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), None)
    return None if flags is None else set(flags)


def constant_array(expr):
    """The NumPy array of a constant tensor expression, None for any other expression."""
    return expr.value.numpy() if isinstance(expr, tvm.ir.GenericConst) else None


def vector_bits(target: tvm.target.Target | None) -> int:
    """Width of an llvm target's vector registers; 256 where there is no llvm target to ask."""
    if target is None or target.kind.name != "llvm":
        return 256
    width = int(tvm.target.codegen.llvm_get_vector_width(target))
    return width if width in (128, 256, 512) else 256


def with_function(mod: tvm.IRModule, var: tvm.ir.GlobalVar, func) -> tvm.IRModule:
    """``mod`` with the function of ``var`` replaced, in a module of its own."""
    copy = mod.clone()
    copy[var] = func
    return copy


def flatten_result(result) -> list:
    """The tensors a Relax VM function returned: one tensor or (nested) tuples of them."""
    if isinstance(result, (tvm_ffi.Array, list, tuple)):
        return [leaf for item in result for leaf in flatten_result(item)]
    return [result]
