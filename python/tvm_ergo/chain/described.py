"""A partitioned network's main as a chain; None where it needs an operator of the host."""

from __future__ import annotations

import base64

import numpy as np
import tvm

from tvm_ergo.chain.steps import DTYPES, FLOATS, INTEGERS, WHOLE
from tvm_ergo.relay_passes.compile.partition import is_chip_function
from tvm_ergo.relay_passes.relax_utils import (
    Call,
    Constant,
    Tuple,
    TupleGetItem,
    Var,
    array_of,
    bindings_of,
    body_of,
    dtype_of,
    ints,
    main_of,
    op_name,
    shape_of,
)
from tvm_ergo.target.errors import ModelError

FORMAT = 1
_RELABEL = ("relax.reshape", "relax.expand_dims", "relax.squeeze", "relax.flatten", "relax.nn.batch_flatten")
_ARITHMETIC = {f"relax.{name}": name for name in ("add", "subtract", "multiply", "divide")}


class _NeedsHost(Exception):
    """A binding that is no step."""


def described(mod: tvm.IRModule) -> dict | None:
    """JSON of the chain that main is: ``format``, ``constants`` (dtype, shape, base64), ``steps`` ([op, operands,
    params]) and ``outputs``.

    Values are numbered: main's parameters, the constants, then what each step gives. mod : partitioned, its chip
    functions not yet compiled."""
    try:
        return _Describer(mod).chain()
    except (_NeedsHost, ModelError):  # ModelError: control flow, or shapes that are not known
        return None


class _Describer:
    def __init__(self, mod: tvm.IRModule):
        self.mod, self.func = mod, main_of(mod)
        self.constants: dict[Constant, int] = {}
        self.steps: list[tuple[str, list, dict]] = []
        self.values: dict[Var, tuple] = {p: (("input", number),) for number, p in enumerate(self.func.params)}
        self.count = 0

    def chain(self) -> dict:
        if any(dtype_of(p) not in DTYPES for p in self.func.params):
            raise _NeedsHost
        for var, value in bindings_of(self.func):
            self.values[var] = self._bound(value)
        outputs = self._bound(body_of(self.func))
        first = len(self.func.params), len(self.func.params) + len(self.constants)
        places = {"input": 0, "constant": first[0], "step": first[1]}

        def number(ref: tuple[str, int]) -> int:
            return places[ref[0]] + ref[1]

        constants = [_stored(array_of(c)) for c in self.constants]
        return {
            "format": FORMAT,
            "constants": constants,
            "outputs": [number(o) for o in outputs],
            "steps": [[op, [number(a) for a in operands], params] for op, operands, params in self.steps],
        }

    def _bound(self, value) -> tuple:
        """References to the tensors that an expression gives."""
        if isinstance(value, Var):
            return self.values[value]
        if isinstance(value, Constant):
            return (("constant", self.constants.setdefault(value, len(self.constants))),)
        if isinstance(value, Tuple):
            return tuple(self._one(field) for field in value.fields)
        if isinstance(value, TupleGetItem):
            return (self._bound(value.tuple_value)[int(value.index)],)
        if isinstance(value, Call):
            return self._call(value)
        raise _NeedsHost

    def _one(self, value) -> tuple[str, int]:
        found = self._bound(value)
        if len(found) != 1:
            raise _NeedsHost
        return found[0]

    def _call(self, call: Call) -> tuple:
        if isinstance(call.op, tvm.ir.GlobalVar):
            if not is_chip_function(self.mod[call.op]):
                raise _NeedsHost
            types = list(call.ty.fields) if isinstance(call.ty, tvm.ir.TupleType) else [call.ty]
            shapes = [[int(d) for d in t.shape.values] for t in types]
            return self._step("call", call.args, {"symbol": str(call.op.name_hint), "shapes": shapes}, len(shapes))
        name, x = op_name(call), call.args[0] if call.args else None
        if name in ("relax.quantize", "relax.dequantize"):
            if (
                name == "relax.quantize"
                and dtype_of(x) != "float32"
                or name == "relax.dequantize"
                and (dtype_of(call) != "float32" or dtype_of(x) not in INTEGERS)
            ):
                raise _NeedsHost
            params = {
                "axis": int(call.attrs.axis),
                **({"dtype": str(call.attrs.out_dtype)} if name == "relax.quantize" else {}),
            }
            return self._step(name[6:], call.args, params)
        if name == "relax.astype" and _castable(dtype_of(x), dtype_of(call)):
            return self._step("cast", [x], {"dtype": dtype_of(call)})
        if name in _ARITHMETIC and dtype_of(call) == "float32":
            return self._step(_ARITHMETIC[name], call.args, {})
        if name in _RELABEL:
            return self._step("reshape", [x], {"shape": list(shape_of(call))})
        if name == "relax.permute_dims":
            rank = len(shape_of(call))
            axes = reversed(range(rank)) if call.attrs.axes is None else ints(call.attrs.axes)
            return self._step("transpose", [x], {"axes": [int(a) % rank for a in axes]})
        raise _NeedsHost

    def _step(self, op: str, operands, params: dict, results: int = 1) -> tuple:
        self.steps.append((op, [self._one(a) for a in operands], params))
        first, self.count = self.count, self.count + results
        return tuple(("step", first + i) for i in range(results))


def _castable(source: str, target: str) -> bool:
    """Whether the chain's cast means what `relax.astype` does: between floats, or from whole numbers."""
    return source in WHOLE and target in (*INTEGERS, "float32") or source in FLOATS and target in FLOATS


def _stored(array: np.ndarray) -> list:
    if array.dtype.name not in DTYPES:
        raise _NeedsHost
    little = array.astype(array.dtype.newbyteorder("<"), order="C")
    return [array.dtype.name, list(array.shape), base64.b64encode(little.tobytes()).decode()]
