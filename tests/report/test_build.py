"""The report of real Programs: kinds, lives, decisions, and tensors that wait compressed."""

from dataclasses import replace

import numpy as np
import pytest

import tvm_ergo
from tvm_ergo import zoo
from tvm_ergo.codegen.compile import compile_function
from tvm_ergo.codegen.compression import compress, rows_of
from tvm_ergo.codegen.graph import from_function
from tvm_ergo.codegen.space import Objective, choose
from tvm_ergo.report.buffers import bytes_over_time
from tvm_ergo.report.build import build_report
from tvm_ergo.report.figures import COMPRESSED_HEADER, compressed_rows
from tvm_ergo.target.chip import chip
from tvm_ergo.target.machine import Machine
from tvm_ergo.target.machine.trace import Trace

from ..codegen.compression.nets import Waits, statistics

CHIP = chip("ergo/1")


@pytest.fixture(scope="module", params=["latency", "memory", "streamed"])
def program(request):
    images = zoo.digits()[0][:32]
    objective = "memory" if request.param != "latency" else "latency"
    (found,) = tvm_ergo.compile(
        zoo.DIGITS_MODEL, calibration=images, objective=objective, stream=request.param == "streamed", compression="off"
    ).programs.values()
    return found


def report_of(program):
    return build_report("digits", {"main": program}, CHIP).programs[0]


def test_kinds_are_the_memory_map(program):
    report = report_of(program)
    count = len(program.instructions)
    peaks = {row.kind: row.peak_bytes for row in report.kinds}
    for kind, peak in peaks.items():
        by_hand = [
            sum(b.size_bytes for b in report.buffers if b.kind == kind and b.first <= i < b.last) for i in range(count)
        ]
        assert peak == max(by_hand)
        np.testing.assert_array_equal(bytes_over_time([b for b in report.buffers if b.kind == kind], count), by_hand)
    assert peaks["scratch"] == 0 and peaks["input"] > 0 and peaks["constant"] <= report.constant_bytes
    assert report.peak_activation_bytes <= program.meta["activation_bytes"]


def test_every_tensor_has_a_life_within_the_program(program):
    report = report_of(program)
    assert {t.name for t in report.tensors} == {b.name for b in report.buffers if b.kind != "constant"}
    assert all(
        0 <= t.first < t.last <= report.instructions and 0 < t.held_bytes <= t.whole_bytes and t.codec is None
        for t in report.tensors
    )


def test_decisions_name_every_layer_once_and_add_up(program):
    plan = report_of(program).plan
    assert plan.live_bytes <= plan.activation_bytes and plan.least_bytes <= plan.live_bytes and plan.order
    if plan.in_space:
        assert [layer for part in plan.subproblems for layer in part.layers] == list(
            dict.fromkeys(n.layer for n in program.nodes)
        )
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
    row = {
        "name": "wide",
        "codec": "CONTEXT",
        "stored_bytes": 100,
        "raw_bytes": 400,
        "bits_mean": 1.5,
        "bits_worst": 2.0,
        "max_error": 0,
    }
    other = {**row, "name": "wid"}  # not this one's
    report = report_of(replace(program, buffers=buffers, meta={**program.meta, "compression": [other, row]}))
    (tensor,) = [t for t in report.tensors if t.codec]
    assert (tensor.name, tensor.whole_bytes, tensor.bits_mean, tensor.bits_worst, tensor.kind) == (
        "wide",
        400,
        1.5,
        2.0,
        "compressed",
    )
    boxes = [b for b in report.buffers if b.kind == "compressed"]
    assert (
        boxes
        and all(b.raw_bytes == 4 * b.size_bytes for b in boxes)
        and {"compressed"} < {k.kind for k in report.kinds}
    )


@pytest.fixture(scope="module")
def waiting():
    """The Program of a small net compiled for the least memory with compression, and pictures like the measured
    ones."""
    function = Waits()
    func = function.finish()["main"]
    limit = choose(from_function(func), CHIP, 1 << 30, objective=Objective.MEMORY).memory_bytes
    measured = statistics(func, function.pictures(6))
    found, _ = compress(func, CHIP, limit, Objective.MEMORY, measured)
    assert found is not None and found.decisions
    return compile_function(found.annotated(rows_of(found.decisions, measured)), CHIP), function.pictures(2)


def test_compressed_buffers_of_a_real_compile(waiting):
    """Names, sizes and lives in the report against the Program's own instructions and map."""
    program, _ = waiting
    report, meta = report_of(program), program.meta["compression"]
    coded = {t.name: t for t in report.tensors if t.codec}
    assert set(coded) == {row["name"] for row in meta} and coded
    for row in meta:
        tensor, slots = coded[row["name"]], [b for b in report.buffers if b.name.startswith(row["name"] + "_slots")]
        assert slots and all(b.kind == "compressed" and b.raw_bytes >= b.size_bytes for b in slots)
        assert (tensor.kind, tensor.codec, tensor.whole_bytes, tensor.max_error) == (
            "compressed",
            row["codec"],
            row["raw_bytes"],
            row["max_error"],
        )
        assert 0 < tensor.held_bytes <= row["stored_bytes"] == row["tiles"] * row["slot_bytes"] < row["raw_bytes"]
        assert 0 < tensor.bits_mean <= tensor.bits_worst <= 8 * row["stored_bytes"] / row["raw_bytes"]
        assert 0 <= tensor.first < tensor.last <= report.instructions
    kinds = {row.kind: row.peak_bytes for row in report.kinds}
    assert 0 < kinds["compressed"] <= sum(row["stored_bytes"] for row in meta)
    assert compressed_rows(report) and all(len(line) == len(COMPRESSED_HEADER) for line in compressed_rows(report))


def test_subproblems_of_a_plan_with_compression(waiting):
    plan = report_of(waiting[0]).plan
    if plan.in_space:
        assert plan.subproblems and {layer for part in plan.subproblems for layer in part.layers} <= {
            n.layer for n in waiting[0].nodes
        }


def test_a_run_of_it_counts_the_tiles_the_report_names(waiting):
    program, pictures = waiting
    result = Machine(program, CHIP).run(pictures[0])
    noise = {"x": np.random.default_rng(0).integers(-128, 128, pictures[0]["x"].shape).astype(np.int8)}
    noisy = Machine(program, CHIP).run(noise)
    assert (
        sum(c.tiles for c in result.compressed)
        == sum(c.tiles for c in noisy.compressed)
        >= sum(row["tiles"] for row in program.meta["compression"])
    )
