"""Which files the runtime in C is made of: the core, and what each instruction and code adds. A new instruction is
one line here and one file."""

from __future__ import annotations

from tvm_ergo.target.codecs import Codec

CORE = (
    "ergo.h",
    "ergo_internal.h",
    "sha256.h",
    "sha256.c",
    "parse.c",
    "operand.c",
    "check.c",
    "memory.c",
    "load.c",
    "run.c",
    "rows.c",
    "slots.c",
    "output_table.c",
    "box.h",
    "box.c",
)
STATES = ("state.h", "state.c")
"""Of a network that keeps values from one run to the next."""
TENSOR, BOX = ("output.c", "window.h", "weights.c"), ("box.h", "box.c")
ELEMENTS, MATRICES = ("elements.h", "elements.c", *BOX), ("matrices.h", "matrices.c")
RANS = ("rans.h", "rans.c")
LOGISTIC = ("logistic.h", "logistic.c", "arithmetic.c")
# the runtime's name of an instruction, and its sources
OPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "CONV": ("conv", ("op_conv.c", *TENSOR)),
    "DEPTHWISE": ("depthwise", ("op_depthwise.c", *TENSOR)),
    "CONV_TRANSPOSE": ("conv_transpose", ("op_conv_transpose.c", *TENSOR)),
    "MATMUL": ("matmul", ("op_matmul.c", *MATRICES, *TENSOR)),
    "WEIGHTED_MEAN": ("weighted_mean", ("op_weighted_mean.c", *MATRICES, *ELEMENTS)),
    "ADD": ("add", ("op_elementwise.c", *BOX)),
    "MUL": ("mul", ("op_elementwise.c", *BOX)),
    "MAXMIN": ("maxmin", ("op_elementwise.c", *BOX)),
    "TABLE": ("table", ("op_table.c", *BOX)),
    "POOL": ("pool", ("op_pool.c", "window.h")),
    "REDUCE": ("reduce", ("op_reduce.c",)),
    "SOFTMAX": ("softmax", ("op_softmax.c", *BOX)),
    "RESIZE": ("resize", ("op_resize.c",)),
    "RESIZE_SCALED": ("resize_scaled", ("op_resize.c",)),
    "ACCUMULATE": ("accumulate", ("op_running.c", *BOX)),
    "REQUANTIZE": ("requantize", ("op_running.c", *BOX)),
    "ADD_WIDE": ("add_wide", ("op_wide.c", *ELEMENTS)),
    "RESCALE": ("rescale", ("op_wide.c", *ELEMENTS)),
    "CONV_16": ("conv_16", ("op_conv_16.c", *TENSOR)),
    "ADD_16": ("add_16", ("op_int16.c", *ELEMENTS)),
    "MUL_16": ("mul_16", ("op_int16.c", *ELEMENTS)),
    "RESCALE_16": ("rescale_16", ("op_int16.c", *ELEMENTS)),
    "TABLE_16": ("table_16", ("op_int16.c", *ELEMENTS)),
    "NORM": ("norm", ("op_norm.c", *ELEMENTS)),
    "EXP_ROWS": ("exp_rows", ("op_exp_rows.c", *ELEMENTS)),
    "ROTATE": ("rotate", ("op_rotate.c", *ELEMENTS)),
    "GATHER": ("gather", ("op_gather.c", *ELEMENTS)),
    "TAKE_ROWS": ("take_rows", ("op_rows.c", *BOX)),
    "PUT_ROWS": ("put_rows", ("op_rows.c", *BOX)),
    "SHIFT_ROWS": ("shift_rows", ("op_rows.c", *BOX)),
    "COPY": ("copy", ("op_move.c", *BOX)),
    "FILL": ("fill", ("op_move.c", *BOX)),
    "RECEIVE": ("receive", ("op_move.c", *BOX)),
    "ENCODE": ("encode", ("op_code.c",)),
    "DECODE": ("decode", ("op_code.c",)),
    "CPU_CALL": ("cpu_call", ("op_cpu.c", *BOX)),
    "HALT": ("halt", ("op_cpu.c", *BOX)),
    "BINARIZE": ("binarize", ("op_bits.c", "window.h")),
    "BINARY_POOL": ("binary_pool", ("op_bits.c", "window.h")),
    "XNOR": ("xnor", ("op_bits.c", "window.h")),
    "XNOR_SUM": ("xnor_sum", ("op_bits.c", "window.h")),
    "SPMV": ("spmv", ("op_spmv.c", "output.c")),
}
SLOTS: dict[Codec, tuple[str, tuple[str, ...]]] = {
    Codec.BITMASK: ("bitmask", ("codec_bitmask.c",)),
    Codec.BITPLANE: ("bitplane", ("codec_bitplane.c",)),
    Codec.CONTEXT: ("context", ("codec_context.c", *LOGISTIC)),
    Codec.STATIC: ("static", ("codec_static.c", *RANS)),
    Codec.PREDICT: ("predict", ("codec_predict.c", *RANS)),
}
WEIGHTS: dict[Codec, tuple[str, tuple[str, ...]]] = {
    Codec.PACKED: ("packed", ("weights_fields.c",)),
    Codec.RUNS: ("runs", ("weights_fields.c",)),
    Codec.HUFFMAN: ("huffman", ("weights_huffman.c",)),
    Codec.HUFFMAN_RUNS: ("huffman_runs", ("weights_huffman.c",)),
    Codec.CABAC: ("cabac", ("weights_cabac.c", *LOGISTIC)),
}
POST = ("ergo_post.h", "op_post.h", "op_post.c", "post_arithmetic.c")
# functions of CPU_CALL by the names of `CpuFunction`: the runtime's name, and sources, those in the folder post
CPU: dict[str, tuple[str, tuple[str, ...]]] = {
    "ARGMAX": ("argmax", ()),
    "GATHER_ROWS": ("gather_rows", ()),
    "SOFTMAX": ("softmax", ("op_post_scores.c", "post_scores.c", *POST)),
    "SIGMOID": ("sigmoid", ("op_post_scores.c", "post_scores.c", *POST)),
    "TOPK": ("topk", ("op_post_scores.c", "post_scores.c", *POST)),
    "BOXES": ("boxes", ("op_post_boxes.c", "post_boxes.c", "post_suppress.c", *POST)),
    "SUPPRESS": ("suppress", ("op_post_boxes.c", "post_boxes.c", "post_suppress.c", *POST)),
    "KEYPOINTS": ("keypoints", ("op_post_maps.c", "post_maps.c", *POST)),
    "MASK": ("mask", ("op_post_maps.c", "post_maps.c", *POST)),
    "CTC": ("ctc", ("op_post_scores.c", "post_scores.c", *POST)),
    "ANOMALY": ("anomaly", ("op_post_scores.c", "post_scores.c", *POST)),
    "TOP_ROWS": ("top_rows", ("op_cpu_rows.c",)),
    "LOG_SOFTMAX": ("log_softmax", ("op_cpu_rows.c",)),
}
