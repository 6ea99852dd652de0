"""Calls without a NumPy rule, evaluated by TVM on the CPU: rare operators, and the PrimFuncs importers leave behind."""

from __future__ import annotations

import threading

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.relay_passes.cpu import LegalizeForCPU
from tvm_ergo.relay_passes.relax_utils import Call, Var, assemble, op_name, variables_in, with_operands
from tvm_ergo.target.errors import UnsupportedError


class CompiledCall:
    """One call compiled for the CPU, taking the values of its variables in order of mention.

    Errors: UnsupportedError naming the operator, if TVM cannot compile it either.
    """

    def __init__(self, mod: tvm.IRModule, call: Call):
        self.variables = list(dict.fromkeys(variables_in(call)))
        params = {v: relax.Var(f"a{i}", v.ty) for i, v in enumerate(self.variables)}
        result = relax.DataflowVar("result", call.ty)
        empty = relax.Function(list(params.values()), relax.SeqExpr([], relax.Tuple([])), ret_ty=tvm.ir.TupleType([]))
        own = assemble(mod, empty, [(result, with_operands(call, lambda v: params[v]))], result)
        try:
            target = tvm.target.Target("llvm")
            with target:
                own = LegalizeForCPU()(own)  # as the compiled module has it
            executable = tvm.compile(own, target)
            self._running = threading.Lock()  # one call at a time: TVM's virtual machine has one stack
            self._main = relax.VirtualMachine(executable, tvm.cpu())["main"]
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            reason = next(
                (line.strip() for line in str(error).splitlines()[::-1] if line.strip()), type(error).__name__
            )
            raise UnsupportedError(
                f"operator {op_name(call) or call.op} can be evaluated neither by a NumPy rule nor by TVM on the CPU",
                where=op_name(call) or str(call.op),
                available=reason[:200],
                remedy="replace it in the model, or register a rule in relay_passes/interpreter_ops.py",
            ) from error

    def __call__(self, values: dict[Var, object]):
        with self._running:
            out = self._main(*[_to_tvm(values[v]) for v in self.variables])
        return out.numpy() if hasattr(out, "numpy") else tuple(o.numpy() for o in out)


def _to_tvm(value):
    if isinstance(value, tuple):
        return tuple(_to_tvm(v) for v in value)
    return tvm.runtime.tensor(np.ascontiguousarray(value).reshape(np.shape(value)))
