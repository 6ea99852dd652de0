"""Functions of the CPU's library on whole rows: TOP_ROWS, LOG_SOFTMAX."""

from __future__ import annotations

from tvm_ergo.target.errors import MachineError
from tvm_ergo.target.isa.operand import DType


class TopRows:
    """``outputs[0][..., k]`` = the k largest elements of each row of inputs[0] i8[..., K] in falling order, of equal
    ones the first before: int8 values, or where it is int32 their places."""

    CYCLES_PER_ELEMENT, CYCLES_PER_PLACE = 4, 3  # as ARGMAX; a step of the insertion: load, compare, store

    @staticmethod
    def check(call) -> None:
        call.require(
            len(call.inputs) == 1 and len(call.outputs) == 1 and not call.params,
            "TOP_ROWS takes one input, one output, no parameter",
        )
        (x,), (out,) = call.inputs, call.outputs
        call.require(
            x.dtype == DType.I8 and out.dtype in (DType.I8, DType.I32), "TOP_ROWS takes int8 and gives int8 or int32"
        )
        call.require(
            out.rank == x.rank and out.shape[:-1] == x.shape[:-1] and out.shape[-1] <= x.shape[-1],
            "the output has the wrong shape",
            f"{list(x.shape[:-1])} rows of at most {x.shape[-1]}",
            out.shape,
        )

    @staticmethod
    def run(inputs, outputs, params) -> None:
        from tvm_ergo.target.machine import kernels

        out = outputs[0]
        kernels.topk(inputs[0], k=out.shape[-1], positions=out.dtype.itemsize == 4, out=out)

    @classmethod
    def cycles(cls, inputs, outputs, params) -> int:
        """At worst every element is the largest so far and moves all before it."""
        return inputs[0].elements * (cls.CYCLES_PER_ELEMENT + cls.CYCLES_PER_PLACE * outputs[0].shape[-1])


class LogSoftmax:
    """``outputs[0]`` = logarithm of the softmax of inputs[0] i8[..., K], last axis. inputs[1]: i32[256], exponentials
    with 22 fraction bits, 0..2**23 - 1. ``e = lut[max - x]``, ``clip(out_zp + floor(-((max - x) * x_mult +
    (log2(sum(e)) - 22) * log_mult) / 2**shift + 1/2))``, log2 with 16 fraction bits, each of a squaring. Parameters:
    x_mult, log_mult, shift, out_zp, lo, hi."""

    PARAMETERS = 6
    CYCLES_PER_ELEMENT = 14  # compare; load, look up, add; load, subtract, two products, shift, clip, store
    CYCLES_PER_ROW = 160  # 16 squarings of 32 bits, each with its shift and test

    @classmethod
    def check(cls, call) -> None:
        call.require(
            len(call.inputs) == 2 and len(call.outputs) == 1 and len(call.params) == cls.PARAMETERS,
            "LOG_SOFTMAX takes two inputs, one output, six parameters",
        )
        (x, lut), (out,) = call.inputs, call.outputs
        call.require(
            x.dtype == out.dtype == DType.I8 and lut.dtype == DType.I32 and lut.shape == (256,),
            "LOG_SOFTMAX takes int8 and int32[256] and gives int8",
        )
        call.require(out.shape == x.shape, "the output has the wrong shape", x.shape, out.shape)
        call.require(x.shape[-1] < 2**14, "the last axis is too long", "below 2**14", x.shape[-1])
        x_mult, log_mult, shift, out_zp, lo, hi = call.params
        call.require(
            0 <= x_mult < 2**30 and 0 <= log_mult < 2**30 and 0 <= shift <= 40 and -128 <= out_zp <= 127,
            "a parameter is out of its range",
            "multipliers below 2**30, shift 0..40, zero point -128..127",
            call.params,
        )
        call.require(-128 <= lo <= hi <= 127, "bad clip", "-128 <= lo <= hi <= 127", (lo, hi))

    @staticmethod
    def run(inputs, outputs, params) -> None:
        from tvm_ergo.target.machine import kernels

        x, lut = inputs
        if lut.min() < 0 or lut.max() >= 2**23:
            raise MachineError(
                "LOG_SOFTMAX got exponentials outside 0..2**23 - 1", available=f"{lut.min()}..{lut.max()}"
            )
        names = ("x_mult", "log_mult", "shift", "out_zp", "lo", "hi")
        kernels.log_softmax(x, lut, out=outputs[0], **dict(zip(names, params)))

    @classmethod
    def cycles(cls, inputs, outputs, params) -> int:
        x = inputs[0]
        return x.elements * cls.CYCLES_PER_ELEMENT + x.elements // x.shape[-1] * cls.CYCLES_PER_ROW
