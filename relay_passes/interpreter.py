"""Evaluates a float or QDQ Relax function with NumPy: the reference for calibration, folding and per-layer comparison.

Quantize and dequantize have ONNX semantics (round half to even). A function is prepared once (constants converted,
values that depend on constants only computed ahead) and run as often as needed; arrays are freed after their last use.
Operators without a NumPy rule are compiled by TVM for the CPU, one call at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.relay_passes import interpreter_ops_make, interpreter_ops_nn  # noqa: F401  they register their operators
from tvm_ergo.relay_passes.interpreter_fallback import CompiledCall
from tvm_ergo.relay_passes.interpreter_ops import OPERATORS
from tvm_ergo.relay_passes.relax_utils import (
    Call,
    Constant,
    Expr,
    Tuple,
    TupleGetItem,
    Var,
    array_of,
    bindings_of,
    body_of,
    dtype_of,
    main_of,
    op_name,
    shape_of,
    variables_in,
)
from tvm_ergo.target.errors import InputError, UnsupportedError

Observer = Callable[[str, np.ndarray], None]


@dataclass(frozen=True)
class _Step:
    """One binding: its variable, its value, and the variables whose arrays are no longer needed afterwards."""

    var: Var
    value: Expr
    last_use_of: tuple[Var, ...]


def evaluate_call(call: Call, operands: list):
    """The value of one Relax call. Errors: UnsupportedError naming an operator without a rule."""
    name = op_name(call)
    rule = OPERATORS.get(name)
    if rule is None:
        raise UnsupportedError(
            f"operator {name or call.op} has no NumPy evaluation rule",
            where=name or str(call.op),
            remedy="register one in relay_passes/interpreter_ops.py",
        )
    return rule(call, *operands)


class _Attributes:
    """Attributes of a call, each fetched from TVM once (lists as tuples)."""

    def __init__(self, attrs):
        self._attrs = attrs

    def __getattr__(self, name: str):
        value = getattr(self._attrs, name)
        self.__dict__[name] = value = tuple(value) if isinstance(value, tvm.ir.Array) else value
        return value


class _PreparedCall:
    """What the operators' rules read of a call, and its rule; operators are run far more often than made."""

    def __init__(self, call: Call):
        self.call = call
        self.rule, self.op, self.args, self.ty, self.attrs = (
            OPERATORS[op_name(call)],
            call.op,
            tuple(call.args),
            call.ty,
            _Attributes(call.attrs),
        )


class Interpreter:
    """Evaluates ``main`` of a module; construct once, call :meth:`run` per input.

    Errors: UnsupportedError (operator without a rule that TVM cannot run either), ModelError (dynamic shapes, control
    flow), InputError (run)."""

    def __init__(self, mod: tvm.IRModule):
        func = main_of(mod)
        self._mod = mod
        self._compiled: dict[Call, CompiledCall] = {}
        self._calls: dict[Call, _PreparedCall] = {}
        self.params = list(func.params)
        self.body = body_of(func)
        self._constants: dict[Constant, np.ndarray] = {}
        self._fixed: dict[Var, object] = {}
        self._steps: list[_Step] = self._prepare(bindings_of(func))

    def _prepare(self, pairs: list[tuple[Var, Expr]]) -> list[_Step]:
        live = []
        for var, value in pairs:
            if all(v in self._fixed for v in variables_in(value)):
                self._fixed[var] = self._evaluate(value, self._fixed)
            else:
                live.append((var, value))
        keep, steps = set(variables_in(self.body)), []
        for var, value in reversed(live):
            used = [v for v in variables_in(value) if v not in keep and v not in self._fixed]
            keep.update(used)
            steps.append(_Step(var, value, tuple(dict.fromkeys(used))))
        return steps[::-1]

    def _evaluate(self, expr: Expr, env: dict):
        if isinstance(expr, Var):
            return env[expr] if expr in env else self._fixed[expr]
        if isinstance(expr, Constant):
            if expr not in self._constants:
                self._constants[expr] = array_of(expr)
            return self._constants[expr]
        if isinstance(expr, Call):
            prepared = self._calls.get(expr)
            if prepared is None:
                if op_name(expr) not in OPERATORS:
                    return self._on_tvm(expr, env)
                prepared = self._calls[expr] = _PreparedCall(expr)
            return prepared.rule(prepared, *(self._evaluate(a, env) for a in prepared.args))
        if isinstance(expr, Tuple):
            return tuple(self._evaluate(f, env) for f in expr.fields)
        if isinstance(expr, TupleGetItem):
            return self._evaluate(expr.tuple_value, env)[int(expr.index)]
        if isinstance(expr, relax.ShapeExpr):
            return tuple(int(d) for d in expr.values)
        if isinstance(expr, (tvm.tirx.IntImm, tvm.tirx.FloatImm)):
            return expr.value
        raise UnsupportedError(f"expression {type(expr).__name__} has no NumPy evaluation rule", where=str(expr)[:80])

    def _on_tvm(self, call: Call, env: dict):
        if call not in self._compiled:
            self._compiled[call] = CompiledCall(self._mod, call)
        compiled = self._compiled[call]
        return compiled({v: self._evaluate(v, env) for v in compiled.variables})

    def run(self, inputs: Mapping[str, np.ndarray] | np.ndarray, observe: Observer | None = None) -> list[np.ndarray]:
        """Outputs of ``main`` for one set of inputs.

        Parameters: inputs, name -> array of the declared shape and dtype (or one array for a single-input function); an
        array with a larger leading dimension where the function's is 1 is evaluated image after image. observe(name,
        array) is called for every input and binding (tensors only), per image. Errors: InputError for missing or
        unknown names, wrong shape or dtype."""
        arrays = self._check(inputs)
        batch = max((a.shape[0] // max(shape_of(p)[0], 1) for p, a in arrays if a.ndim), default=1)
        if batch == 1:
            return self._run_one({p: a for p, a in arrays}, observe)
        runs = []
        for i in range(batch):
            env = {p: a if a.shape == shape_of(p) else a[i : i + 1] for p, a in arrays}
            runs.append(self._run_one(env, observe))
        return [np.concatenate(parts) for parts in zip(*runs)]

    def _check(self, inputs) -> list[tuple[Var, np.ndarray]]:
        names = [p.name for p in self.params]
        if not isinstance(inputs, Mapping):
            inputs = {names[0]: inputs} if len(names) == 1 else dict(zip(names, inputs))
        if set(inputs) != set(names):
            raise InputError(
                "the inputs given are not the function's",
                required=", ".join(names),
                available=", ".join(map(str, inputs)),
                remedy="give exactly these",
            )
        pairs = []
        for p in self.params:
            array, shape = np.asarray(inputs[p.name]), shape_of(p)
            batched = (
                len(shape) > 0
                and shape[0] == 1
                and array.ndim == len(shape)
                and array.shape[1:] == shape[1:]
                and array.shape[0] > 0
            )
            if array.shape != shape and not batched:
                raise InputError(
                    "an input has the wrong shape",
                    where=f"input {p.name!r}",
                    required=str(shape),
                    available=str(array.shape),
                    remedy="give an array of that shape",
                )
            if str(array.dtype) != dtype_of(p):
                raise InputError(
                    "an input has the wrong dtype",
                    where=f"input {p.name!r}",
                    required=dtype_of(p),
                    available=str(array.dtype),
                    remedy=f"array.astype({dtype_of(p)!r})",
                )
            pairs.append((p, array))
        return pairs

    @property
    def steps(self) -> list[_Step]:
        """The bindings that depend on an input, in order: ``var``, ``value``, ``last_use_of``."""
        return self._steps

    def evaluate(self, expr: Expr, env: dict):
        """The value of an expression whose variables are in ``env`` (or depend on no input)."""
        return self._evaluate(expr, env)

    def replace(self, constant: Constant, array: np.ndarray) -> None:
        """From now on ``constant`` stands for ``array``, in bindings that depend on an input."""
        self._constants[constant] = array

    def _run_one(self, env: dict, observe: Observer | None) -> list[np.ndarray]:
        if observe:
            for var, value in (*env.items(), *self._fixed.items()):
                _report(observe, var, value)
        for step in self._steps:
            env[step.var] = value = self._evaluate(step.value, env)
            if observe:
                _report(observe, step.var, value)
            for var in step.last_use_of:
                env.pop(var, None)
        result = self._evaluate(self.body, env)
        return [np.asarray(r) for r in result] if isinstance(result, tuple) else [np.asarray(result)]


def _report(observe: Observer, var: Var, value) -> None:
    if isinstance(value, (np.ndarray, np.generic)):
        observe(var.name, np.asarray(value))


def evaluate(mod: tvm.IRModule, inputs, *, intermediates: bool = False, observe: Observer | None = None):
    """Outputs of ``mod``'s main as a list of arrays; with ``intermediates`` the pair (outputs, {name: array}).

    See :meth:`Interpreter.run`. With a batch, intermediates are those of all images, concatenated.
    """
    if not intermediates:
        return Interpreter(mod).run(inputs, observe)
    seen: dict[str, list[np.ndarray]] = {}

    def collect(name: str, array: np.ndarray) -> None:
        seen.setdefault(name, []).append(array)
        if observe:
            observe(name, array)

    outputs = Interpreter(mod).run(inputs, collect)
    return outputs, {
        name: parts[0] if len(parts) == 1 else np.concatenate(np.atleast_1d(*parts)) for name, parts in seen.items()
    }
