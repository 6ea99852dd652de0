"""Instructions of the data mover: any permutation, slice or concatenation is a copy between two strided operands."""

from __future__ import annotations

from tvm_ergo.target.isa.base import Engine, Instruction, instruction
from tvm_ergo.target.isa.fields import I32, Tensor
from tvm_ergo.target.isa.operand import DType


@instruction(0x20, Engine.DMA)
class Copy(Instruction):
    """``out = src``, element by element: equal shapes and element types, any strides on both sides."""

    src = Tensor("*", tuple(DType), "source; stride 0 repeats")
    out = Tensor("*", tuple(DType), "destination", out=True)


@instruction(0x21, Engine.DMA)
class Fill(Instruction):
    """Every element of ``out`` becomes ``value``."""

    out = Tensor("*", tuple(DType), "destination", out=True)
    value = I32("the element's value, in out's range")
