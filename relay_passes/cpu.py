"""Run any Relax module of the project on the CPU: integer dialect, QDQ or float, quickly and without changing
results."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
import tvm
from tvm import relax, te, tirx

from tvm_ergo.relay_passes import compat, places
from tvm_ergo.relay_passes.cpu_schedule import schedule_prim_func
from tvm_ergo.relay_passes.dialect import contraction
from tvm_ergo.target.errors import InputError, ModelError

_SCHEDULED = "tirx.is_scheduled"


@tvm.transform.module_pass(opt_level=0, name="ErgoScheduleForCPU")
@dataclass(frozen=True)
class ScheduleForCPU:
    """Gives every unscheduled PrimFunc a default CPU schedule (see ``cpu_schedule``).

    In: a legalized module. Out: the same functions with the same meaning; integer results are the same to the bit.

    vector_bits : vector width to tile for; 0 asks the current target, 256 where there is none.
    """

    vector_bits: int = 0

    def transform_module(self, mod: tvm.IRModule, _context) -> tvm.IRModule:
        bits = self.vector_bits or compat.vector_bits(tvm.target.Target.current(allow_none=True))
        updated = {}
        for var, func in mod.functions_items():
            if isinstance(func, tirx.PrimFunc) and not (func.attrs is not None and func.attrs.get(_SCHEDULED)):
                updated[var] = schedule_prim_func(func, bits).with_attrs(dict(func.attrs.items()) if func.attrs else {})
        for var, func in updated.items():
            mod = compat.with_function(mod, var, func)
        return mod


@tvm.transform.module_pass(opt_level=0, name="ErgoLegalizeForCPU")
@dataclass(frozen=True)
class LegalizeForCPU:
    """Relax ops to PrimFuncs, TVM's own rules but for NHWC convolutions of floats with constant OHWI weights, whose
    weights are packed now so that the schedule can vectorize over the output channels. Indices beyond the axis
    wrap around (`places`).

    In: any module. Out: a module of ``call_tir``; integer results are the same to the bit, float sums may be
    reassociated."""

    def transform_module(self, mod: tvm.IRModule, _context) -> tvm.IRModule:
        return relax.transform.LegalizeOps(
            {
                "relax.nn.conv2d": _legalize_float_conv,
                "relax.nn.conv2d_transpose": _legalize_float_conv_transpose,
                "relax.take": _legalize_take,
                **places.RULES,
            }
        )(mod)


def _legalize_take(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """Mode "fast" (the importers' default) reads memory that is not the tensor's for an index beyond the axis, and TVM
    warns of it at every use: "wrap" instead, as the NumPy interpreter has it."""
    if str(call.attrs.mode) == "fast":
        axis = None if call.attrs.axis is None else int(call.attrs.axis)
        call = builder.normalize(relax.op.take(*call.args, axis=axis, mode="wrap"))
    return tvm.ir.Op.get("relax.take").get_attr("FLegalize")(builder, call)


def _legalize_float_conv(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    attrs, weights = call.attrs, compat.constant_array(call.args[1])
    static = compat.static_tensor_type(call.args[0])
    fits = (
        weights is not None
        and static is not None
        and static[1] == "float32" == str(weights.dtype)
        and weights.ndim == 4
        and (attrs.data_layout, attrs.kernel_layout) == ("NHWC", "OHWI")
        and str(attrs.out_layout) in ("", "NHWC")
    )
    if not fits:
        return tvm.ir.Op.get("relax.nn.conv2d").get_attr("FLegalize")(builder, call)
    strides, padding, dilation = (
        tuple(int(v) for v in value) for value in (attrs.strides, attrs.padding, attrs.dilation)
    )
    groups, out_channels = int(attrs.groups), weights.shape[0]
    depthwise = groups == static[0][3] == out_channels and groups > 1

    def compute(x: te.Tensor, w: te.Tensor) -> te.Tensor:
        padded = contraction.pad_rows(x, padding, 0)
        if depthwise:
            return contraction.depthwise(padded, w, strides, dilation, 0, 0)
        acc = contraction.conv(padded, w, out_channels, strides, dilation, groups, 0, 0)
        if int(acc.shape[3]) == out_channels:
            return acc
        return te.compute((*acc.shape[:3], out_channels), lambda n, h, v, o: acc(n, h, v, o), name="drop_lanes")

    packed = weights[..., 0].transpose(1, 2, 0) if depthwise else contraction.pack_conv_numpy(weights, groups)
    hint = "float_depthwise_conv2d" if depthwise else "float_conv2d"
    return builder.call_te(compute, call.args[0], relax.const(np.ascontiguousarray(packed)), primfunc_name_hint=hint)


def _legalize_float_conv_transpose(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """NHWC with OHWI weights [O/groups,kh,kw,C], any dilation and groups: TVM's own rule knows only NCHW without
    dilation."""
    attrs, static, weights = (
        call.attrs,
        compat.static_tensor_type(call.args[0]),
        compat.static_tensor_type(call.args[1]),
    )
    if static is None or weights is None or (attrs.data_layout, attrs.kernel_layout) != ("NHWC", "OHWI"):
        return tvm.ir.Op.get("relax.nn.conv2d_transpose").get_attr("FLegalize")(builder, call)
    (out_per_group, kh, kw, channels), groups = weights[0], int(attrs.groups)
    strides, padding, dilation = (
        tuple(int(v) for v in value) for value in (attrs.strides, attrs.padding, attrs.dilation)
    )
    out_shape, depth = compat.static_tensor_type(call)[0], channels // groups

    def compute(x: te.Tensor, w: te.Tensor) -> te.Tensor:
        spread = contraction.spread_rows(x, strides, padding, dilation, (kh, kw), out_shape[1:3], 0)
        i, j, c = te.reduce_axis((0, kh), "i"), te.reduce_axis((0, kw), "j"), te.reduce_axis((0, depth), "c")
        return te.compute(
            out_shape,
            lambda n, h, v, o: te.sum(
                spread(n, h + i * dilation[0], v + j * dilation[1], tirx.floordiv(o, out_per_group) * depth + c)
                * w(
                    tirx.floormod(o, out_per_group), kh - 1 - i, kw - 1 - j, tirx.floordiv(o, out_per_group) * depth + c
                ),
                axis=[i, j, c],
            ),
            name="accumulate",
        )

    return builder.call_te(compute, *call.args, primfunc_name_hint="float_conv2d_transpose")


@dataclass(frozen=True)
class CompiledOnCPU:
    """A compiled module; call it with the NumPy arrays of ``main``'s parameters, in order, and get a list of NumPy
    outputs."""

    executable: object
    inputs: tuple[tuple[str, tuple[int, ...], str], ...]
    """``(name, shape, dtype)`` of every parameter."""
    entry: str = "main"
    vm: relax.VirtualMachine = field(default=None, compare=False, repr=False)
    running: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)
    """Threads take turns: the virtual machine has one stack."""

    def __post_init__(self):
        object.__setattr__(self, "vm", relax.VirtualMachine(self.executable, tvm.cpu()))

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Errors: InputError for a wrong number of arrays, a wrong shape or dtype."""
        if len(arrays) != len(self.inputs):
            raise InputError(
                "wrong number of inputs",
                required=", ".join(i[0] for i in self.inputs),
                available=f"{len(arrays)} arrays",
                remedy="give an array for each of these",
            )
        for array, (name, shape, dtype) in zip(arrays, self.inputs, strict=True):
            if tuple(array.shape) != shape or str(array.dtype) != dtype:
                raise InputError(
                    "input does not fit",
                    where=name,
                    required=f"{dtype}{list(shape)}",
                    available=f"{array.dtype}{list(array.shape)}",
                    remedy="give an array of that shape and dtype",
                )
        with self.running:
            result = self.vm[self.entry](*[tvm.runtime.tensor(np.asarray(array, order="C")) for array in arrays])
        return [item.numpy() for item in compat.flatten_result(result)]


def build_cpu(mod: tvm.IRModule, *, target: tvm.target.Target | None = None, entry: str = "main") -> CompiledOnCPU:
    """Compile a Relax module (integer dialect, QDQ or float; static shapes) for this machine's CPU.

    target: an llvm target; this machine's with its vector features by default.
    Errors: ModelError where ``entry`` is missing or one of its parameters has no static shape.
    """
    if entry not in [var.name_hint for var in mod.get_global_vars()]:
        raise ModelError(
            "the module has no such function",
            where=entry,
            available=", ".join(v.name_hint for v in mod.get_global_vars()),
        )
    inputs = []
    for param in mod[entry].params:
        static = compat.static_tensor_type(param)
        if static is None:
            raise ModelError("a parameter has no static tensor type", where=param.name, available=str(param.ty))
        inputs.append((param.name, *static))
    target = target or compat.host_llvm_target()
    with target:
        lowered = tvm.transform.Sequential([LegalizeForCPU(), ScheduleForCPU()])(mod)
        executable = tvm.compile(lowered, target=target)
    return CompiledOnCPU(executable, tuple(inputs), entry)
