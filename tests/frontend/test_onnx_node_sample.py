"""A sample of ONNX's own node tests through the whole compiler; `benchmarks/onnx_node_tests.py` runs all of them."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]))  # benchmarks are no package of the product

from benchmarks.onnx_node_tests import known_cases, run_case  # noqa: E402

PASS = """abs add add_bcast argmax_keepdims_example averagepool_2d_default basic_conv_with_padding batchnorm_example bitshift_left_uint8
bitshift_left_int32_negative_shift cast_FLOAT_to_DOUBLE ceil celu clip concat_2d_axis_0 constant convtranspose convtranspose_group_2
convtranspose_output_shape cos depthtospace_example div dropout_default einsum_transpose equal erf exp expand_dim_changed
flatten_axis1 gather_0 gelu_default_1_expanded gemm_all_attributes globalaveragepool greater hardsigmoid hardswish identity
isinf isinf_negative layer_normalization_2d_axis0 leakyrelu logsoftmax_axis_1 matmul_2d maxpool_2d_default mean_example
not_2d pow_types_int32_int32 prelu_example reduce_sum_keepdims_example relu reshape_reordered_all_dims
resize_upsample_scales_linear resize_downsample_scales_linear round sce_mean shape sigmoid size slice softmax_axis_1 spacetodepth_crd_mode_example
split_1d_uneven_split_opset18 sub top_k transpose_default unsqueeze_axis_0 where_example""".split()
REFUSED = """adam batchnorm_example_training_mode equal_string if_seq quantizelinear_e4m3fn reduce_max_empty_set
roialign_mode_max top_k_uint64 training_dropout""".split()


@pytest.mark.parametrize("name", PASS)
def test_node_gives_the_onnx_answer(name):
    outcome, detail = run_case(known_cases()[f"test_{name}"])
    assert outcome in ("exact", "int8", "coarse"), (outcome, detail)


@pytest.mark.parametrize("name", REFUSED)
def test_node_is_refused_with_a_reason(name):
    outcome, detail = run_case(known_cases()[f"test_{name}"])
    assert outcome == "refused", (outcome, detail)
