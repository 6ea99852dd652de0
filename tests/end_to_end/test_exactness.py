"""A sample of `benchmarks/exactness.py`, which plans every net of the manifest at several memory limits: bits equal to
whole layers, limits met."""

import sys
from itertools import islice
from pathlib import Path

import pytest

from tvm_ergo import evaluation
from tvm_ergo.evaluation.nets import BIG_MEMORY_BYTES, chip_parts, compile_net, parts_of
from tvm_ergo.relay_passes.compile.partition import Partition, chip_functions
from tvm_ergo.target.chip import chip
from tvm_ergo.target.codecs import Codec

sys.path.append(str(Path(__file__).resolve().parents[2]))  # benchmarks are no package of the product

from benchmarks.exactness import against_tvm, measure, measure_slots  # noqa: E402

pytestmark = pytest.mark.skipif(
    not evaluation.has_shared(), reason="the shared models and data are absent (set ERGO_SHARED)"
)


@pytest.mark.parametrize("name, plans", [("str_ww_ref_model", None), ("ic_resnet8_qdq_int8", 4)])
def test_plans_in_space_are_exact_and_meet_their_limits(name, plans):
    (part,) = chip_parts(name, 1)
    rows = list(islice(measure(part, chip("ergo/1").with_memory(BIG_MEMORY_BYTES), shares=(0.5,)), plans))
    assert [row for row in rows if row["wrong"]] == []
    whole, least = rows[0], rows[1]
    assert whole["plan"] == "whole" and least["plan"] == "memory" and least["reached KiB"] < whole["reached KiB"]
    assert all(row["reached KiB"] <= row["limit KiB"] for row in rows if row["limit KiB"])
    assert {row["input"] for row in rows} == ({"resident"} if plans else {"resident", "streamed"})


def test_all_tensors_in_slots_are_exact():
    compiled = compile_net("ic_resnet8_qdq_int8")
    ((symbol, func),) = chip_functions(Partition()(compiled.lowered))
    (part,) = parts_of("ic_resnet8_qdq_int8", compiled, 1)
    rows = list(measure_slots(part, func, chip("ergo/1").with_memory(BIG_MEMORY_BYTES), (Codec.CONTEXT,)))
    assert [(row["plan"], row["input"], row["tensors"], row["wrong"]) for row in rows] == [
        ("slots context whole", "resident", 13, ""),
        ("slots context rows", "resident", 13, ""),
        ("slots context rows", "streamed", 13, ""),
    ]


def test_whole_layers_equal_tvm():
    assert against_tvm("pretrainedResnet_quant", compile_net("pretrainedResnet_quant"), 2)["wrong"] == ""
