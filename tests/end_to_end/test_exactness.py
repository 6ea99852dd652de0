"""A sample of `benchmarks/exactness.py`, which plans every net of the manifest at several memory limits: bits equal to whole layers, limits met."""

import sys
from itertools import islice
from pathlib import Path

import pytest

from tvm_ergo import evaluation
from tvm_ergo.evaluation.nets import BIG_MEMORY_BYTES, chip_parts
from tvm_ergo.target.chip import chip

sys.path.append(str(Path(__file__).resolve().parents[2]))  # benchmarks are no package of the product

from benchmarks.exactness import measure  # noqa: E402

pytestmark = pytest.mark.skipif(not evaluation.has_shared(), reason="the shared models and data are absent (set ERGO_SHARED)")


@pytest.mark.parametrize("name, plans", [("str_ww_ref_model", None), ("ic_resnet8_qdq_int8", 4)])
def test_plans_in_space_are_exact_and_meet_their_limits(name, plans):
    (part,) = chip_parts(name, 1)
    rows = list(islice(measure(part, chip("ergo/1").with_memory(BIG_MEMORY_BYTES), shares=(0.5,)), plans))
    assert [row for row in rows if row["wrong"]] == []
    whole, least = rows[0], rows[1]
    assert whole["plan"] == "whole" and least["plan"] == "memory" and least["reached KiB"] < whole["reached KiB"]
    assert all(row["reached KiB"] <= row["limit KiB"] for row in rows if row["limit KiB"])
    assert {row["input"] for row in rows} == ({"resident"} if plans else {"resident", "streamed"})
