"""The meaning of the instructions: pure NumPy functions on ndarray views, bit-exact, usable on their own.

Arithmetic is that of ``numerics.requantize`` and docs/architecture.md section 2. Every function takes ``out=``, which
may be a strided view. The ``Prepared...`` classes hold what depends on constant weights only, so that repeated calls do
not pay for it again."""

from tvm_ergo.target.machine.kernels.bits import (
    binarize,
    binary_conv2d,
    binary_conv2d_accumulate,
    binary_conv2d_sum,
    binary_max_pool2d,
)
from tvm_ergo.target.machine.kernels.conv import PreparedConv, PreparedConvTranspose, conv2d, conv2d_transpose
from tvm_ergo.target.machine.kernels.depthwise import PreparedDepthwise, depthwise_conv2d
from tvm_ergo.target.machine.kernels.elementwise import add, maximum, minimum, mul, softmax, table
from tvm_ergo.target.machine.kernels.int16 import PreparedConv16, add_16, conv2d_16, mul_16, rescale_16, table_16
from tvm_ergo.target.machine.kernels.matmul import matmul
from tvm_ergo.target.machine.kernels.order import log_softmax, topk
from tvm_ergo.target.machine.kernels.pool import (
    argmax,
    avg_pool2d,
    max_pool2d,
    reduce_max,
    reduce_min,
    reduce_sum,
    resize2d,
)
from tvm_ergo.target.machine.kernels.positions import put_rows, shift_rows, take_rows
from tvm_ergo.target.machine.kernels.rows import exp_rows, gather_rows, norm, rotate, weighted_mean
from tvm_ergo.target.machine.kernels.sparse import PreparedSparse
from tvm_ergo.target.machine.kernels.wide import add_wide, conv2d_wide, matmul_wide, rescale

__all__ = [
    "PreparedConv",
    "PreparedConv16",
    "PreparedConvTranspose",
    "PreparedDepthwise",
    "PreparedSparse",
    "add",
    "argmax",
    "binarize",
    "binary_conv2d",
    "binary_conv2d_accumulate",
    "binary_conv2d_sum",
    "binary_max_pool2d",
    "avg_pool2d",
    "conv2d",
    "conv2d_transpose",
    "depthwise_conv2d",
    "log_softmax",
    "matmul",
    "max_pool2d",
    "maximum",
    "minimum",
    "mul",
    "reduce_max",
    "reduce_min",
    "reduce_sum",
    "resize2d",
    "softmax",
    "table",
    "topk",
    "add_16",
    "add_wide",
    "conv2d_16",
    "mul_16",
    "rescale_16",
    "table_16",
    "conv2d_wide",
    "exp_rows",
    "gather_rows",
    "matmul_wide",
    "norm",
    "put_rows",
    "rescale",
    "rotate",
    "shift_rows",
    "take_rows",
    "weighted_mean",
]
