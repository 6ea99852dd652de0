"""The report of real Programs: kinds, lives, decisions, and tensors that wait compressed."""

from dataclasses import replace

import numpy as np
import pytest
import tvm_ergo
from tvm_ergo import zoo
from tvm_ergo.report.build import build_report
from tvm_ergo.report.buffers import bytes_over_time
from tvm_ergo.target.chip import chip
from tvm_ergo.target.machine.trace import Trace

CHIP = chip("ergo/1")


@pytest.fixture(scope="module", params=["latency", "memory", "streamed"])
def program(request):
    images = zoo.digits()[0][:32]
    objective = "memory" if request.param != "latency" else "latency"
    (found,) = tvm_ergo.compile(zoo.DIGITS_MODEL, calibration=images, objective=objective, stream=request.param == "streamed", compression="off").programs.values()
    return found


def report_of(program):
    return build_report("digits", {"main": program}, CHIP).programs[0]


def test_kinds_are_the_memory_map(program):
    report = report_of(program)
    count = len(program.instructions)
    peaks = {row.kind: row.peak_bytes for row in report.kinds}
    for kind, peak in peaks.items():
        by_hand = [sum(b.size_bytes for b in report.buffers if b.kind == kind and b.first <= i < b.last) for i in range(count)]
        assert peak == max(by_hand)
        np.testing.assert_array_equal(bytes_over_time([b for b in report.buffers if b.kind == kind], count), by_hand)
    assert peaks["scratch"] == 0 and peaks["input"] > 0 and peaks["constant"] <= report.constant_bytes
    assert report.peak_activation_bytes <= program.meta["activation_bytes"]


def test_every_tensor_has_a_life_within_the_program(program):
    report = report_of(program)
    assert {t.name for t in report.tensors} == {b.name for b in report.buffers if b.kind != "constant"}
    assert all(0 <= t.first < t.last <= report.instructions and 0 < t.held_bytes <= t.whole_bytes and t.codec is None for t in report.tensors)


def test_decisions_name_every_layer_once_and_add_up(program):
    plan = report_of(program).plan
    assert plan.live_bytes <= plan.activation_bytes and plan.least_bytes <= plan.live_bytes and plan.order
    if plan.in_space:
        assert [layer for part in plan.subproblems for layer in part.layers] == list(dict.fromkeys(n.layer for n in program.nodes))
        assert plan.live_bytes <= max(part.peak_bytes for part in plan.subproblems) and plan.mac_overhead >= 1
        macs = sum(trace.macs for trace in [Trace(program, CHIP)])
        assert macs == pytest.approx(plan.mac_overhead * program.meta["macs"])
        assert all((part.how == "whole") == (not part.decisions) and part.ways >= 1 for part in plan.subproblems)
    else:
        assert plan.subproblems == [] and plan.mac_overhead == 1


def test_compressed_tensors_are_known_by_their_slots(program):
    """Program.meta["compression"] as the compiler leaves it, for a buffer renamed to a slots buffer."""
    victim = next(b for b in program.buffers if b.kind.name == "ACTIVATION")
    buffers = [replace(b, name="wide_slots1") if b.name == victim.name else b for b in program.buffers]
    row = {"name": "wide", "codec": "CONTEXT", "stored_bytes": 100, "raw_bytes": 400, "bits_mean": 1.5, "bits_worst": 2.0, "max_error": 0}
    other = {**row, "name": "wid"}  # not this one's
    report = report_of(replace(program, buffers=buffers, meta={**program.meta, "compression": [other, row]}))
    (tensor,) = [t for t in report.tensors if t.codec]
    assert (tensor.name, tensor.whole_bytes, tensor.bits_mean, tensor.bits_worst, tensor.kind) == ("wide", 400, 1.5, 2.0, "compressed")
    boxes = [b for b in report.buffers if b.kind == "compressed"]
    assert boxes and all(b.raw_bytes == 4 * b.size_bytes for b in boxes) and {"compressed"} < {k.kind for k in report.kinds}
