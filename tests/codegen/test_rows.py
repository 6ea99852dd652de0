"""Ops on 16-bit elements and on rows: the strict machine equals TVM on the CPU, as whole nodes and in tiles, between
movements that are views."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tvm import relax

from tvm_ergo.codegen.compile import compile_graph, emit_program
from tvm_ergo.codegen.graph import from_function
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.plan import Step, make_plan
from tvm_ergo.relay_passes import cpu, dialect
from tvm_ergo.relay_passes.dialect import testing
from tvm_ergo.relay_passes.dialect.testing.wide import EXPONENTIALS
from tvm_ergo.target.chip import chip
from tvm_ergo.target.machine import Machine

CHIP, MEMORY = chip("ergo/1"), 1 << 20
NAMES = (
    "add_16",
    "conv2d_16",
    "mul_16",
    "rescale_16",
    "table_16",
    "add_wide",
    "argmax",
    "conv2d_wide",
    "exp_rows",
    "gather_rows",
    "matmul_wide",
    "norm",
    "rescale",
    "rotate",
    "weighted_mean",
)
WHOLE_ROWS = (dialect.Norm, dialect.ExpRows, dialect.Rotate)
SLOW = {"deadline": None, "suppress_health_check": list(HealthCheck)}


def run(program, inputs):
    return list(Machine(program, CHIP, strict=True).run(inputs).outputs.values())


def cut(draw, graph, node):
    """Boxes that partition the node's output, in random order; rows stay whole where the op needs them."""
    shape, cuts = graph.tensors[node.outputs[0]].shape, []
    for axis, extent in enumerate(shape):
        whole = extent == 1 or isinstance(node.op, WHOLE_ROWS) and axis == len(shape) - 1
        inner = set() if whole else draw(st.sets(st.integers(1, extent - 1), max_size=2))
        cuts.append(list(itertools.pairwise([0, *sorted(inner), extent])))
    return draw(st.permutations(list(itertools.product(*cuts))))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=4, **SLOW)
@given(data=st.data())
def test_machine_equals_tvm(name, data):
    cases = [testing.random_call(name, data.draw) for _ in range(4)]
    mod = testing.module_of(cases)
    graph = from_function(mod["main"])
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    inputs = {
        p.name: a for p, a in zip(mod["main"].params, (a for case in cases for a in case.activations(rng)), strict=True)
    }
    expected = cpu.build_cpu(mod)(*inputs.values())
    tiled = [Step(node, box) for node in graph.nodes for box in cut(data.draw, graph, node)]
    for program in (
        compile_graph(graph, CHIP, memory_bytes=MEMORY),
        emit_program(make_plan(graph, MEMORY, Options(), tiled), CHIP),
    ):
        ports = {n: a.reshape(a.shape or (1,)) for n, a in inputs.items()}
        for actual, wanted in zip(run(program, ports), expected, strict=True):
            np.testing.assert_array_equal(actual.reshape(wanted.shape), wanted)


def attention_module(causal: bool, masked: bool, groups: int, heads: int, rows: int, depth: int):
    """int8 q [1, rows, groups * heads, depth], k and v [1, rows, groups, depth]: scores, exponentials, means; heads of
    a group share keys."""
    builder = relax.BlockBuilder()
    q = relax.Var("q", relax.TensorType((1, rows, groups * heads, depth), "int8"))
    k, v = (relax.Var(n, relax.TensorType((1, rows, groups, depth), "int8")) for n in "kv")
    mask = relax.Var("mask", relax.TensorType((1, 1, 1, 1, rows), "int8"))
    params = [q, k, v, *([mask] if masked else [])]
    with builder.function("main", params):
        with builder.dataflow():

            def emit(op, *args):
                return builder.emit(op.call(*args))

            queries = emit(
                dialect.Transpose(perm=(0, 2, 3, 1, 4)), emit(dialect.Reshape(shape=(1, rows, groups, heads, depth)), q)
            )
            keys, values = (
                emit(
                    dialect.Transpose(perm=(0, 2, 3, 1, 4)), emit(dialect.Reshape(shape=(1, rows, groups, 1, depth)), t)
                )
                for t in (k, v)
            )
            scores = emit(dialect.MatMulWide(transpose_b=True, a_zp=0, b_zp=0, mult=2**23, shift=24), queries, keys)
            weights = emit(
                dialect.ExpRows(causal=causal), scores, relax.const(EXPONENTIALS), *([mask] if masked else [])
            )
            means = emit(dialect.WeightedMean(wide=False, b_zp=0, mult=2**23, shift=31), weights, values)
            out = emit(
                dialect.Reshape(shape=(1, rows, groups * heads * depth)),
                emit(dialect.Transpose(perm=(0, 3, 1, 2, 4)), means),
            )
            out = builder.emit_output(out)
        builder.emit_func_output(out)
    return builder.get()


@pytest.mark.parametrize("causal, masked", itertools.product((False, True), (False, True)))
def test_grouped_attention_needs_no_copies_of_keys(causal, masked):
    """Against NumPy's float attention; rows whose keys are all masked are 0; heads, groups and the way back are
    views."""
    groups, heads, rows, depth = 2, 3, 9, 4
    mod = attention_module(causal, masked, groups, heads, rows, depth)
    rng = np.random.default_rng(5)
    inputs = {
        p.name: rng.integers(-40, 41, [int(d) for d in p.ty.shape.values]).astype(np.int8) for p in mod["main"].params
    }
    kept = np.ones(rows, bool)
    if masked:
        inputs["mask"][...] = kept = np.arange(rows) % 4 != 0
        kept = inputs["mask"][0, 0, 0, 0] != 0
    program = compile_graph(from_function(mod["main"]), CHIP, memory_bytes=MEMORY)
    (result,) = run(program, inputs)
    np.testing.assert_array_equal(result, cpu.build_cpu(mod)(*inputs.values())[0])
    assert not any(i.MNEMONIC == "COPY" for i in program.instructions), (
        "heads are views, and joined where they are written"
    )
    q, k, v = (inputs[n][0].astype(float) for n in "qkv")
    scores = np.einsum("mhd,nhd->hmn", q, np.repeat(k, heads, axis=1)) / 2 / 256
    valid = np.broadcast_to(kept, scores.shape) & (np.tril(np.ones((rows, rows), bool)) if causal else True)
    weights = np.where(valid, 2.0**scores, 0)
    weights /= np.maximum(weights.sum(-1, keepdims=True), 1e-9)
    wanted = np.einsum("hmn,nhd->mhd", weights, np.repeat(v, heads, axis=1)).reshape(1, rows, -1)
    assert np.abs(result - wanted).max() < 1.2
    if causal and masked:
        assert not result[0, 0].any(), "the first row sees only the first key, which is masked"
