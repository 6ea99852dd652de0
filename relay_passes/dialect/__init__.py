"""The integer dialect: Relax ops ``relax.ergo.*``, one frozen dataclass each.

>>> from tvm_ergo.relay_passes import dialect
>>> call = dialect.Conv2d(strides=(2, 2), padding=(1, 1, 1, 1), in_zp=-128).call(x, w, bias, mult, shift)
>>> dialect.from_call(call).strides
(2, 2)
"""

from tvm_ergo.relay_passes import compat
from tvm_ergo.relay_passes.dialect.accumulate import Conv2dAccumulate, DepthwiseConv2dAccumulate, MatMulAccumulate
from tvm_ergo.relay_passes.dialect.argmax import Argmax
from tvm_ergo.relay_passes.dialect.base import OPS, ErgoOp, Region, Shape, ergo_op, from_call, is_ergo_call
from tvm_ergo.relay_passes.dialect.binary import (
    Binarize,
    BinaryConv2d,
    BinaryConv2dAccumulate,
    BinaryConv2dSum,
    BinaryMaxPool2d,
)
from tvm_ergo.relay_passes.dialect.compression import Compress, Decompress
from tvm_ergo.relay_passes.dialect.elementwise import Add, Maximum, Minimum, Mul, Table
from tvm_ergo.relay_passes.dialect.int16 import Add16, Conv2d16, Mul16, Rescale16, Table16
from tvm_ergo.relay_passes.dialect.linear import Conv2d, Conv2dTranspose, DepthwiseConv2d, MatMul
from tvm_ergo.relay_passes.dialect.movement import Concat, Pad, Receive, Reshape, Resize2d, Slice, Transpose
from tvm_ergo.relay_passes.dialect.order import LogSoftmax, TopK
from tvm_ergo.relay_passes.dialect.pooling import AvgPool2d, MaxPool2d, ReduceMax, ReduceMin, ReduceSum, Softmax
from tvm_ergo.relay_passes.dialect.positions import PutRows, ShiftRows, TakeRows
from tvm_ergo.relay_passes.dialect.rows import ExpRows, GatherRows, Norm, Rotate, WeightedMean
from tvm_ergo.relay_passes.dialect.running import RequantizeLast, RunningSum
from tvm_ergo.relay_passes.dialect.wide import AddWide, Conv2dWide, MatMulWide, Rescale

__all__ = [
    "OPS",
    "ErgoOp",
    "Region",
    "Shape",
    "ergo_op",
    "from_call",
    "is_ergo_call",
    "Conv2d",
    "DepthwiseConv2d",
    "Conv2dTranspose",
    "MatMul",
    "Conv2dAccumulate",
    "DepthwiseConv2dAccumulate",
    "MatMulAccumulate",
    "Add",
    "Mul",
    "Maximum",
    "Minimum",
    "Table",
    "MaxPool2d",
    "AvgPool2d",
    "Argmax",
    "ReduceSum",
    "ReduceMax",
    "ReduceMin",
    "Softmax",
    "LogSoftmax",
    "TopK",
    "Resize2d",
    "Pad",
    "Concat",
    "Receive",
    "Slice",
    "Transpose",
    "Reshape",
    "Binarize",
    "BinaryConv2d",
    "BinaryConv2dAccumulate",
    "BinaryConv2dSum",
    "BinaryMaxPool2d",
    "Compress",
    "Decompress",
    "RunningSum",
    "RequantizeLast",
    "Add16",
    "AddWide",
    "Conv2d16",
    "Mul16",
    "Rescale16",
    "Table16",
    "Conv2dWide",
    "MatMulWide",
    "Rescale",
    "ExpRows",
    "GatherRows",
    "Norm",
    "PutRows",
    "ShiftRows",
    "Rotate",
    "TakeRows",
    "WeightedMean",
]


def _script_function(cls: type[ErgoOp]):
    def make(*args, **attrs):
        return cls(**{key: compat.to_python(value) for key, value in attrs.items()}).call(*args)

    make.__name__, make.__doc__ = cls.op_name, cls.__doc__
    return make


compat.register_script_namespace("ergo", {name: _script_function(cls) for name, cls in OPS.items()})
