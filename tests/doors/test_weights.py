"""Coded weights through the front door: same results in every form, where they are used, what the model then says."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import tvm
from onnx import TensorProto, helper, numpy_helper

import tvm_ergo
from tvm_ergo import frontend
from tvm_ergo.pipeline import STAGES
from tvm_ergo.report.build import build_report
from tvm_ergo.report.weights import weights_table, weights_text
from tvm_ergo.target.errors import InputError, OutOfMemoryError
from tvm_ergo.target.machine import Trace

from .small_models import frames


def sparse_net(host: bool = False) -> onnx.ModelProto:
    """[1,3,32,32] float -> conv 3x3 stride 2 to 32, relu, conv 3x3 to 32, relu, global pool, dense 64; 80 % of the
    weights are zero. host: an operator that is left to the CPU stands in the middle, so that there are two chip
    functions."""
    rng = np.random.default_rng(0)

    def weights(name, *shape, density=0.2):
        return numpy_helper.from_array(
            (rng.choice([-0.5, -0.2, 0.3, 0.4], shape) * (rng.random(shape) < density)).astype(np.float32), name
        )

    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="conv1", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
    ]
    if host:
        nodes.append(helper.make_node("Hardmax", ["r1"], ["h1"], name="host", axis=1))
    nodes += [
        helper.make_node("Conv", ["h1" if host else "r1", "w2", "b2"], ["c2"], name="conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], name="dense"),
    ]
    graph = helper.make_graph(
        nodes,
        "sparse",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
        [
            weights("w1", 32, 3, 3, 3),
            weights("b1", 32, density=1),
            weights("w2", 32, 32, 3, 3),
            weights("b2", 32, density=1),
            weights("w3", 32, 64),
            weights("b3", 64, density=1),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


CALIBRATION = frames(6)


def compiled(weights="auto", host=False, **options):
    return tvm_ergo.compile(sparse_net(host), calibration=CALIBRATION, weights=weights, **options)


@pytest.fixture(scope="module")
def dense():
    return compiled("dense")


def rows(model):
    return [row for program in model.programs.values() for row in program.meta["weights"]]


def constants(model):
    return sum(program.meta["constant_bytes"] for program in model.programs.values())


def cycles(model):
    return sum(t.cycles for t in model.run(CALIBRATION[:1]).traces.values())


def assert_same(a, b):
    for x in CALIBRATION:
        expected = a.run(x[None]).outputs
        for name, value in b.run(x[None]).outputs.items():
            np.testing.assert_array_equal(value, expected[name])


@pytest.mark.parametrize("weights", ["auto", "coded"])
@pytest.mark.parametrize(
    "options", [{}, {"objective": "energy"}, {"objective": "memory"}, {"objective": "memory", "stream": True}], ids=str
)
def test_every_form_computes_the_same_in_less_memory(dense, weights, options, monkeypatch):
    monkeypatch.setenv("TVM_ERGO_STRICT", "1")
    model = compiled(weights, **options)
    assert_same(dense, model)
    assert constants(model) < 0.75 * constants(dense) and any(row["codec"] for row in rows(model))
    assert not any(row["codec"] for row in rows(dense))


def test_auto_costs_no_time_and_coded_is_smallest(dense):
    auto, coded = compiled(), compiled("coded")
    assert cycles(auto) <= cycles(dense)
    assert constants(coded) <= constants(auto) and all(row["codec"] or row["dense_bytes"] < 4096 for row in rows(coded))


def test_a_limit_that_needs_more_of_it(dense):
    auto, coded = compiled(), compiled("coded")
    activations = max(p.meta["activation_bytes"] for p in auto.programs.values())
    least, free = constants(coded) + activations, constants(auto) + activations
    assert least < free
    tight = compiled(memory=(least + free) // 2, compression="off")
    assert all(p.meta["peak_bytes"] <= (least + free) // 2 for p in tight.programs.values())
    # the cheaper of more constants coded and of rows and tiles
    assert sum(Trace(p, tight.chip).cycles for p in tight.programs.values()) <= sum(
        Trace(p, coded.chip).cycles for p in coded.programs.values()
    )
    assert_same(dense, tight)
    with pytest.raises(OutOfMemoryError):
        compiled("dense", memory=constants(auto) + 500, compression="off")


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_auto_is_never_slower_than_plain_weights_where_these_fit(dense, share):
    """In tiles, too, which read weights once each."""
    smallest = compiled("dense", objective="memory", compression="off")
    low, high = (max(p.meta["peak_bytes"] for p in model.programs.values()) for model in (smallest, dense))
    limit = int(low + share * (high - low))
    plain, auto = (compiled(weights, memory=limit, compression="off") for weights in ("dense", "auto"))
    assert cycles(auto) <= cycles(plain)


def test_several_chip_functions_share_the_memory():
    split, plain = compiled("coded", host=True), compiled("dense", host=True)
    assert len(split.programs) == 2 and all(
        any(row["codec"] for row in p.meta["weights"]) for p in split.programs.values()
    )
    assert_same(plain, split)
    assert_same(
        plain,
        compiled(
            host=True,
            memory=constants(split) + max(p.meta["activation_bytes"] for p in split.programs.values()) + 64,
            compression="off",
        ),
    )


def test_it_survives_the_file(tmp_path, dense):
    model = compiled()
    model.save(tmp_path / "net.ergo")
    again = tvm_ergo.load(tmp_path / "net.ergo")
    assert rows(again) == rows(model)
    assert_same(dense, again)


def test_tvm_compile_codes_as_well(dense):
    imported = frontend.load(sparse_net())
    quantized = tvm_ergo.quantize(sparse_net(), CALIBRATION)
    executable = tvm.compile(quantized, target="ergo")
    result = tvm.relax.VirtualMachine(executable, tvm.cpu())["main"](tvm.runtime.tensor(CALIBRATION[:1]))
    np.testing.assert_array_equal(
        np.asarray(result.numpy()).ravel(), next(iter(dense.run(CALIBRATION[:1]).outputs.values())).ravel()
    )
    assert (
        imported.inputs
        and [stage.name for stage in STAGES].index("code_weights")
        == [stage.name for stage in STAGES].index("compress") - 1
    )


def test_reports_have_a_row_a_constant(dense):
    for model in (dense, compiled()):
        report = build_report("net", model.programs, model.chip)
        (program,) = report.programs
        assert sum(r.coded_bytes for r in program.weights) <= program.constant_bytes and [
            r.codec for r in program.weights
        ] == [r["codec"] for r in rows(model)]
        table = weights_table(program)
        assert len(table) == len(program.weights) + 1 and table[0][1] == (program.weights[0].codec or "plain")
        coded = sum(r.codec is not None for r in program.weights)
        assert f"{coded} of {len(program.weights)} constants coded" in weights_text(program)
        assert json.loads(report.model_dump_json())["programs"][0]["weights"][1]["density"] == pytest.approx(
            program.weights[1].density
        )
        for row in program.weights:
            assert (
                row.bits_per_weight == pytest.approx(8 * row.coded_bytes / np.prod(row.shape))
                and row.coded_bytes <= row.dense_bytes
            )


@pytest.mark.parametrize("wrong", ["huffman", 3, None])
def test_wrong_options(wrong):
    with pytest.raises(InputError, match="weights"):
        compiled(wrong)
