"""The CPU's library: one class per function, with its preconditions, meaning and cycles."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from tvm_ergo.target.errors import MachineError
from tvm_ergo.target.isa import cpu_post, cpu_rows
from tvm_ergo.target.isa.operand import DType, Operand


class CpuFunction(IntEnum):
    """Function numbers of CPU_CALL."""

    ARGMAX = 0
    GATHER_ROWS = 1
    SOFTMAX = 2
    SIGMOID = 3
    TOPK = 4
    BOXES = 5
    SUPPRESS = 6
    KEYPOINTS = 7
    MASK = 8
    CTC = 9
    ANOMALY = 10
    TOP_ROWS = 11
    LOG_SOFTMAX = 12


class Argmax:
    """``outputs[0] i32[...] = index of the first maximum of inputs[0] i8[..., K]`` along the last axis; out shape
    x.shape[:-1] or [1]."""

    CYCLES_PER_ELEMENT = 4  # load, compare, branch, index update

    @staticmethod
    def check(call) -> None:
        call.require(
            len(call.inputs) == 1 and len(call.outputs) == 1 and not call.params,
            "ARGMAX takes one input, one output, no parameter",
        )
        (x,), (out,) = call.inputs, call.outputs
        call.require(
            x.dtype in (DType.I8, DType.U8) and out.dtype == DType.I32, "ARGMAX takes 8-bit elements and gives int32"
        )
        call.require(
            out.shape == (x.shape[:-1] or (1,)), "the output has the wrong shape", x.shape[:-1] or (1,), out.shape
        )

    @staticmethod
    def run(inputs: list[np.ndarray], outputs: list[np.ndarray], params: tuple[int, ...]) -> None:
        from tvm_ergo.target.machine import kernels

        kernels.argmax(inputs[0], out=outputs[0])

    @classmethod
    def cycles(cls, inputs: tuple[Operand, ...], outputs: tuple[Operand, ...], params: tuple[int, ...]) -> int:
        return cls.CYCLES_PER_ELEMENT * inputs[0].elements


class GatherRows:
    """``outputs[0][..., :] = inputs[0][inputs[1][...], :]``: table [N, C] of any type, int32 indices; a row number
    outside raises."""

    CYCLES_PER_ROW = 8  # index load, bound check, address
    BYTES_PER_CYCLE = 2  # a load and a store of 32 bits take two cycles

    @staticmethod
    def check(call) -> None:
        call.require(
            len(call.inputs) == 2 and len(call.outputs) == 1 and not call.params,
            "GATHER_ROWS takes two inputs, one output, no parameter",
        )
        (table, indices), (out,) = call.inputs, call.outputs
        call.require(
            table.rank == 2 and indices.dtype == DType.I32 and out.dtype == table.dtype,
            "GATHER_ROWS takes table [N, C], int32 indices and an output of the table's type",
        )
        expected = indices.shape + table.shape[1:]
        call.require(
            out.shape in (expected, indices.shape[:-1] + table.shape[1:] if indices.shape[-1] == 1 else expected),
            "the output has the wrong shape",
            expected,
            out.shape,
        )

    @staticmethod
    def run(inputs: list[np.ndarray], outputs: list[np.ndarray], params: tuple[int, ...]) -> None:
        table, indices = inputs
        if indices.min() < 0 or indices.max() >= len(table):
            raise MachineError(
                "GATHER_ROWS got a row number outside its table",
                required=f"0..{len(table) - 1}",
                available=f"{indices.min()}..{indices.max()}",
            )
        outputs[0][...] = table[indices].reshape(outputs[0].shape)

    @classmethod
    def cycles(cls, inputs: tuple[Operand, ...], outputs: tuple[Operand, ...], params: tuple[int, ...]) -> int:
        return cls.CYCLES_PER_ROW * inputs[1].elements + outputs[0].size_bytes // cls.BYTES_PER_CYCLE


LIBRARY = {
    CpuFunction.ARGMAX: Argmax,
    CpuFunction.GATHER_ROWS: GatherRows,
    CpuFunction.SOFTMAX: cpu_post.Softmax,
    CpuFunction.SIGMOID: cpu_post.Sigmoid,
    CpuFunction.TOPK: cpu_post.TopK,
    CpuFunction.BOXES: cpu_post.Boxes,
    CpuFunction.SUPPRESS: cpu_post.Suppress,
    CpuFunction.KEYPOINTS: cpu_post.Keypoints,
    CpuFunction.MASK: cpu_post.Mask,
    CpuFunction.CTC: cpu_post.Ctc,
    CpuFunction.ANOMALY: cpu_post.Anomaly,
    CpuFunction.TOP_ROWS: cpu_rows.TopRows,
    CpuFunction.LOG_SOFTMAX: cpu_rows.LogSoftmax,
}
