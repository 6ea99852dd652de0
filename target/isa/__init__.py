"""The instruction set: one class per instruction holds its fields, preconditions, meaning and cost."""

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.isa.base import MNEMONICS, OPCODES, Engine, Instruction, Memory, decode, parse
from tvm_ergo.target.isa.bits import Binarize, BinaryPool, Xnor, XnorSum
from tvm_ergo.target.isa.compression import Decode, Encode
from tvm_ergo.target.isa.control import CpuCall, Halt
from tvm_ergo.target.isa.cost import Cost, Event
from tvm_ergo.target.isa.cpu_library import CpuFunction
from tvm_ergo.target.isa.elementwise import Add, MaxMin, MaxMinKind, Mul, Table
from tvm_ergo.target.isa.int16 import Add16, Conv16, Mul16, Rescale16, Table16
from tvm_ergo.target.isa.movement import Copy, Fill, Receive
from tvm_ergo.target.isa.operand import DType, Operand, contiguous, contiguous_strides, overlap
from tvm_ergo.target.isa.positions import PutRows, ShiftRows, TakeRows
from tvm_ergo.target.isa.rows import ExpRows, Gather, Norm, Rotate, WeightedMean
from tvm_ergo.target.isa.running import Accumulate, Requantize
from tvm_ergo.target.isa.sparse import Spmv
from tvm_ergo.target.isa.tensor import Conv, ConvTranspose, Depthwise, MatMul
from tvm_ergo.target.isa.vector import Pool, PoolKind, Reduce, ReduceKind, Resize, ResizeScaled, Softmax
from tvm_ergo.target.isa.wide import AddWide, Rescale

__all__ = [
    "Codec",
    "MNEMONICS",
    "OPCODES",
    "Engine",
    "Instruction",
    "Memory",
    "decode",
    "parse",
    "Binarize",
    "BinaryPool",
    "Xnor",
    "XnorSum",
    "CpuCall",
    "CpuFunction",
    "Halt",
    "Cost",
    "Event",
    "Accumulate",
    "Requantize",
    "Decode",
    "Encode",
    "Copy",
    "Fill",
    "Receive",
    "DType",
    "Operand",
    "contiguous",
    "contiguous_strides",
    "overlap",
    "Conv",
    "ConvTranspose",
    "Depthwise",
    "MatMul",
    "Add",
    "MaxMin",
    "MaxMinKind",
    "Mul",
    "Pool",
    "PoolKind",
    "Reduce",
    "ReduceKind",
    "Resize",
    "ResizeScaled",
    "Softmax",
    "Spmv",
    "Table",
    "Add16",
    "AddWide",
    "Conv16",
    "Mul16",
    "Rescale16",
    "Table16",
    "ExpRows",
    "Gather",
    "Norm",
    "PutRows",
    "Rescale",
    "Rotate",
    "ShiftRows",
    "TakeRows",
    "WeightedMean",
]
