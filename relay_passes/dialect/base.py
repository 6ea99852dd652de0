"""``ErgoOp``: what every op of the integer dialect is, and its registration as a Relax op.

An op is a frozen dataclass; its fields are the attributes of the Relax call. The same class gives the shape inference,
the definition on the CPU (TE), the region algebra and the cost in MACs, so that nothing about an op stands elsewhere.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import tvm
from tvm import relax, te

from tvm_ergo.relay_passes import compat
from tvm_ergo.relay_passes.dialect.traits import Traits
from tvm_ergo.target.errors import ModelError

Shape = tuple[int, ...]
Region = tuple[tuple[int, int], ...]
"""A box: half-open ``(begin, end)`` per axis."""

OPS: dict[str, type[ErgoOp]] = {}
"""Every op class by its short name (``"conv2d"``)."""

_TO_FIELD: dict[str, Callable] = {
    "int": operator.index,
    "float": float,
    "str": str,
    "bool": bool,
    "tuple[int, ...]": lambda value: tuple(operator.index(v) for v in value),
}


@dataclass(frozen=True)
class ErgoOp:
    """Base of the integer dialect's ops. The three fields here are common to all and keyword-only.

    name: the source layer (reports only). out_scale: real value of one step of output 0 (reports only).
    out_zp: zero point of output 0, and the one the arithmetic uses where it needs one.
    """

    _: KW_ONLY
    name: str = ""
    out_scale: float = 0.0
    out_zp: int = 0

    op_name: ClassVar[str] = ""
    """Short name, ``conv2d`` for the Relax op ``relax.ergo.conv2d``."""
    traits: ClassVar[Traits]
    """What the compiler may do with it; every registered class states its own, none inherits them."""
    arg_names: ClassVar[tuple[str, ...]] = ()
    in_models: ClassVar[bool] = True  # False: only PrimFuncs or the compiler itself make such ops
    """Names of the tensors in, in order; a single ``"*xs"`` where their number is free."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _TO_FIELD[field.type](getattr(self, field.name)))

    # ---- Relax ----
    def call(self, *args: relax.Expr, ty: tvm.ir.Type | None = None) -> relax.Call:
        """The Relax call of this op on ``args``; its type is inferred here where all arguments have static types."""
        if ty is None and all(arg.ty is not None and compat.static_tensor_type(arg) for arg in args):
            ty = self._output_type(args)
        attrs = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return relax.Call(
            tvm.ir.Op.get(self.relax_name()), list(args), tvm.ir.make_node("ir.DictAttrs", **attrs), ret_ty=ty
        )

    @classmethod
    def relax_name(cls) -> str:
        return f"relax.ergo.{cls.op_name}"

    def _output_type(self, args: Sequence[relax.Expr]) -> tvm.ir.Type:
        types = []
        for index, arg in enumerate(args):
            static = compat.static_tensor_type(arg)
            if static is None:
                raise ModelError(
                    "an integer op needs tensors of static shape and dtype",
                    where=self.where(),
                    required="a static tensor type",
                    available=f"argument {index}: {arg.ty}",
                )
            types.append(static)
        outputs = [
            relax.TensorType(shape, dtype) for shape, dtype in self.infer([t[0] for t in types], [t[1] for t in types])
        ]
        return outputs[0] if len(outputs) == 1 else relax.TupleType(outputs)

    def legalize(self, builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        """The call as ``call_tir`` of a PrimFunc made from ``compute``."""
        return builder.call_te(self.compute, *call.args, primfunc_name_hint=f"ergo_{self.op_name}")

    # ---- what an op gives ----
    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        """Shape and dtype of every output. Errors: ModelError where shapes, dtypes or fields do not fit together."""
        raise NotImplementedError

    def compute(self, *tensors: te.Tensor) -> te.Tensor | tuple[te.Tensor, ...]:
        """The op's definition in exact integer arithmetic on TE tensors of the shapes ``infer`` accepts."""
        raise NotImplementedError

    def input_regions(
        self, out_region: Region, shapes: Sequence[Shape], values: Sequence | None = None
    ) -> list[Region]:
        """For each input the box that ``out_region`` of output 0 depends on (padding clipped away; may be empty).

        ``values``: NumPy arrays of inputs whose content is known (None elsewhere); only resize2d is sharper with them.
        """
        raise NotImplementedError

    def macs(self, shapes: Sequence[Shape]) -> int:
        """Multiply-accumulates of the tensor engine (taps in the padding included); 0 for everything else."""
        return 0

    # ---- checks ----
    def where(self) -> str:
        return f"{self.op_name} '{self.name}'" if self.name else self.op_name

    def require(self, holds: bool, what: str, required: object, available: object) -> None:
        """Raise ModelError at this op unless ``holds``."""
        if not holds:
            raise ModelError(what, where=self.where(), required=str(required), available=str(available))

    def require_count(self, shapes: Sequence[Shape], count: int) -> None:
        self.require(
            len(shapes) == count, "wrong number of tensors", f"{count} ({', '.join(self.arg_names)})", len(shapes)
        )

    def require_dtypes(self, dtypes: Sequence[str], expected: Sequence[str | tuple[str, ...]]) -> None:
        for name, dtype, allowed in zip(self.arg_names, dtypes, expected, strict=True):
            allowed = (allowed,) if isinstance(allowed, str) else allowed
            self.require(dtype in allowed, f"wrong dtype of {name}", " or ".join(allowed), dtype)

    def require_shape(self, name: str, shape: Shape, expected: Shape) -> None:
        self.require(tuple(shape) == tuple(expected), f"wrong shape of {name}", tuple(expected), tuple(shape))

    def require_clip(self) -> None:
        """The clip bounds and the zero point are int8 values."""
        lo, hi = getattr(self, "lo", -128), getattr(self, "hi", 127)
        self.require(
            -128 <= lo <= hi <= 127,
            "clip bounds are not an int8 interval",
            "-128 <= lo <= hi <= 127",
            f"lo {lo}, hi {hi}",
        )
        self.require(-128 <= self.out_zp <= 127, "output zero point is not int8", "-128..127", self.out_zp)

    def require_multiplier(self, mult: int, shift: int, bits: int = 24, signed: bool = False) -> None:
        low = -(2**bits) if signed else -1
        self.require(low < mult < 2**bits, "multiplier out of range", f"{low + 1}..2**{bits}-1", mult)
        self.require(0 <= shift <= 62, "shift out of range", "0..62", shift)

    def require_int8(self, **zero_points: int) -> None:
        """Zero points are int8 values (uint8 models are shifted by 128 when they are read)."""
        for name, value in zero_points.items():
            self.require(-128 <= value <= 127, f"{name} is not an int8 value", "-128..127", value)


def ergo_op(op_name: str) -> Callable[[type[ErgoOp]], type[ErgoOp]]:
    """Class decorator: enter the dataclass in ``OPS`` and register the Relax op ``relax.ergo.<op_name>``."""

    def decorate(cls: type[ErgoOp]) -> type[ErgoOp]:
        cls.op_name = op_name
        if not isinstance(vars(cls).get("traits"), Traits):
            raise TypeError(
                f"{cls.__name__} states no traits: set traits = Traits(rows=...) in its class body, see "
                "relay_passes/dialect/traits.py for what each field lets the compiler do"
            )
        for field in dataclasses.fields(cls):
            if field.type not in _TO_FIELD:
                raise TypeError(
                    f"field {field.name} of {cls.__name__} has type {field.type}, not one of {sorted(_TO_FIELD)}"
                )
        OPS[op_name] = cls
        compat.register_relax_op(
            cls.relax_name(),
            " ".join((cls.__doc__ or op_name).strip().split("\n\n")[0].split()),
            infer_type=lambda call, _context: from_call(call)._output_type(call.args),
            legalize=lambda builder, call: from_call(call).legalize(builder, call),
        )
        return cls

    return decorate


def is_ergo_call(expr: relax.Expr) -> bool:
    """Whether ``expr`` is a call of an op of this dialect."""
    return (
        isinstance(expr, relax.Call)
        and isinstance(expr.op, tvm.ir.Op)
        and expr.op.name.removeprefix("relax.ergo.") in OPS
        and expr.op.name.startswith("relax.ergo.")
    )


def from_call(call: relax.Call) -> ErgoOp:
    """The op, with its fields in plain Python, of a call of this dialect. Errors: ModelError for any other expression,
    and for attributes that are missing, unknown or of the wrong type."""
    if not is_ergo_call(call):
        raise ModelError(
            "not a call of the integer dialect", required="relax.ergo.*", available=str(getattr(call, "op", call))
        )
    cls = OPS[call.op.name.removeprefix("relax.ergo.")]
    attrs = {} if call.attrs is None else {str(k): v for k, v in call.attrs.items()}
    known = {field.name: field for field in dataclasses.fields(cls)}
    missing = [n for n, f in known.items() if n not in attrs and f.default is dataclasses.MISSING]
    unknown = sorted(set(attrs) - set(known))
    if missing or unknown:
        raise ModelError(
            "attributes do not fit the op",
            where=call.op.name,
            required=", ".join(known),
            available=f"missing {missing}, unknown {unknown}",
        )
    try:
        return cls(**{key: compat.to_python(value) for key, value in attrs.items()})
    except (TypeError, ValueError) as error:
        raise ModelError(f"attribute of the wrong type: {error}", where=call.op.name) from error
