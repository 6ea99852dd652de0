/* Everything this runtime knows. An export lists what its network needs instead. */
#include "ergo_internal.h"

extern const ergo_op ergo_op_conv, ergo_op_depthwise, ergo_op_conv_transpose, ergo_op_matmul, ergo_op_add, ergo_op_mul,
    ergo_op_maxmin, ergo_op_table, ergo_op_pool, ergo_op_reduce, ergo_op_softmax, ergo_op_resize, ergo_op_resize_scaled, ergo_op_accumulate,
    ergo_op_requantize, ergo_op_copy, ergo_op_fill, ergo_op_receive, ergo_op_encode, ergo_op_decode, ergo_op_cpu_call,
    ergo_op_halt, ergo_op_spmv, ergo_op_add_wide, ergo_op_rescale, ergo_op_norm, ergo_op_exp_rows, ergo_op_weighted_mean,
    ergo_op_rotate, ergo_op_gather, ergo_op_take_rows, ergo_op_put_rows, ergo_op_shift_rows, ergo_op_conv_16, ergo_op_add_16,
    ergo_op_mul_16, ergo_op_rescale_16, ergo_op_table_16, ergo_op_binarize, ergo_op_binary_pool, ergo_op_xnor,
    ergo_op_xnor_sum;
const ergo_op *const ergo_ops[] = {
    &ergo_op_conv, &ergo_op_depthwise, &ergo_op_conv_transpose, &ergo_op_matmul, &ergo_op_add, &ergo_op_mul,
    &ergo_op_maxmin, &ergo_op_table, &ergo_op_pool, &ergo_op_reduce, &ergo_op_softmax, &ergo_op_resize,
    &ergo_op_resize_scaled,
    &ergo_op_accumulate, &ergo_op_requantize, &ergo_op_copy, &ergo_op_fill, &ergo_op_receive, &ergo_op_encode,
    &ergo_op_decode, &ergo_op_cpu_call, &ergo_op_halt, &ergo_op_spmv, &ergo_op_add_wide,
    &ergo_op_rescale, &ergo_op_norm, &ergo_op_exp_rows, &ergo_op_weighted_mean, &ergo_op_rotate, &ergo_op_gather,
    &ergo_op_take_rows, &ergo_op_put_rows, &ergo_op_shift_rows, &ergo_op_conv_16, &ergo_op_add_16, &ergo_op_mul_16,
    &ergo_op_rescale_16, &ergo_op_table_16, &ergo_op_binarize, &ergo_op_binary_pool, &ergo_op_xnor,
    &ergo_op_xnor_sum, NULL};

extern const ergo_slot_codec ergo_codec_bitmask, ergo_codec_bitplane, ergo_codec_context, ergo_codec_static,
    ergo_codec_predict;
const ergo_slot_codec *const ergo_slot_codecs[] = {&ergo_codec_bitmask, &ergo_codec_bitplane, &ergo_codec_context,
                                                   &ergo_codec_static, &ergo_codec_predict, NULL};

extern const ergo_weight_codec ergo_codec_packed, ergo_codec_huffman, ergo_codec_huffman_runs, ergo_codec_runs,
    ergo_codec_cabac;
const ergo_weight_codec *const ergo_weight_codecs[] = {
    &ergo_codec_packed, &ergo_codec_huffman, &ergo_codec_huffman_runs, &ergo_codec_runs, &ergo_codec_cabac, NULL};

extern const ergo_cpu_function ergo_cpu_argmax, ergo_cpu_gather_rows, ergo_cpu_softmax, ergo_cpu_sigmoid, ergo_cpu_topk,
    ergo_cpu_boxes, ergo_cpu_suppress, ergo_cpu_keypoints, ergo_cpu_mask, ergo_cpu_ctc, ergo_cpu_anomaly,
    ergo_cpu_top_rows, ergo_cpu_log_softmax;
const ergo_cpu_function *const ergo_cpu_functions[] = {
    &ergo_cpu_argmax, &ergo_cpu_gather_rows, &ergo_cpu_softmax,   &ergo_cpu_sigmoid, &ergo_cpu_topk, &ergo_cpu_boxes,
    &ergo_cpu_suppress, &ergo_cpu_keypoints, &ergo_cpu_mask, &ergo_cpu_ctc, &ergo_cpu_anomaly,
    &ergo_cpu_top_rows, &ergo_cpu_log_softmax, NULL};
