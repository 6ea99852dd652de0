"""Dense layers on the sparse engine: the same results, where they are chosen, what they cannot be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tvm_ergo.codegen.compile import compile_graph
from tvm_ergo.codegen.graph import Graph, Node, Tensor
from tvm_ergo.codegen.space import Objective
from tvm_ergo.codegen.weights.apply import coded
from tvm_ergo.codegen.weights.choose import Candidates
from tvm_ergo.codegen.weights.coding import Coding
from tvm_ergo.codegen.weights.sparse import expected_share, is_dense_layer, runs_sparse, sparse_weights
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.chip import chip
from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.eie import decode
from tvm_ergo.target.isa import Spmv
from tvm_ergo.target.machine import Machine
from tvm_ergo.target.machine.trace import Trace

CHIP = chip("ergo/1")
SPARSE = Coding(Codec.EIE, CHIP.sparse.elements)


def dense_layers(sizes, density=0.1, vectors=1, seed=0, values=15, out_dtype="int8", **fields) -> Graph:
    """Dense layers with ReLU between, weights drawn from few values; inputs int8 [1, 1, vectors, sizes[0]]."""
    rng = np.random.default_rng(seed)
    table = np.setdiff1d(rng.permutation(np.arange(-128, 128)), 0)[:values]
    tensors, nodes = [Tensor(0, "x", (1, 1, vectors, sizes[0]), "int8")], []
    for layer, (inputs, outputs) in enumerate(zip(sizes, sizes[1:])):
        w = np.where(
            rng.random((outputs, 1, 1, inputs)) < density, rng.choice(table, (outputs, 1, 1, inputs)), 0
        ).astype(np.int8)
        shift = np.full(outputs, 30 + int(np.log2(1 + inputs * density)), np.int8)
        constants = (
            w,
            rng.integers(-999, 999, outputs).astype(np.int32),
            rng.integers(2**23, 2**24, outputs).astype(np.int32),
            shift,
        )
        last = layer == len(sizes) - 2
        op = (dialect.Conv2dAccumulate if last and out_dtype == "int32" else dialect.Conv2d)(
            **{
                **dict(
                    name=f"dense{layer}",
                    strides=(1, 1),
                    padding=(0, 0, 0, 0),
                    dilation=(1, 1),
                    groups=1,
                    in_zp=-128 if layer else 3,
                    out_zp=-128,
                    lo=-128,
                    hi=127,
                ),
                **fields,
            }
        )
        first = len(tensors)
        tensors += [
            Tensor(first + i, f"{role}{layer}", a.shape, a.dtype.name, a)
            for i, (role, a) in enumerate(zip(("w", "bias", "mult", "shift"), constants))
        ]
        tensors.append(Tensor(first + 4, f"y{layer}", (1, 1, vectors, outputs), out_dtype if last else "int8"))
        nodes.append(
            Node(
                layer,
                f"dense{layer}",
                op,
                (first - 1 if layer else 0, first, first + 1, first + 2, first + 3),
                (first + 4,),
            )
        )
    return Graph(tuple(tensors), tuple(nodes), (0,), (len(tensors) - 1,))


def on_sparse_engine(graph: Graph) -> Graph:
    return replace(
        graph, tensors=tuple(replace(t, coding=SPARSE) if t.name.startswith("w") else t for t in graph.tensors)
    )


def decided(graph: Graph, choices) -> Graph:
    return coded(graph, {c.digest: c.chosen.coding for c in choices if c.chosen.coding is not None})


def weights_of(graph: Graph) -> list[Tensor]:
    return [t for t in graph.tensors if t.name.startswith("w")]


def run(program, x):
    return Machine(program, CHIP, strict=True).run({"x": x})


@pytest.mark.parametrize("vectors", [1, 3])
@pytest.mark.parametrize("out_dtype", ["int8", "int32"])
@pytest.mark.parametrize("seed", range(3))
def test_same_results_in_less_memory_and_time(seed, vectors, out_dtype):
    """Random widths; the program has SPMVs alone and survives its bytes and text."""
    rng = np.random.default_rng(seed)
    sizes = [int(n) for n in rng.integers(100, 400, 4)]
    graph = dense_layers(sizes, rng.choice([0.02, 0.1, 0.3]), vectors, seed, int(rng.integers(1, 16)), out_dtype)
    plain, sparse = compile_graph(graph, CHIP), compile_graph(on_sparse_engine(graph), CHIP)
    assert [i.MNEMONIC for i in sparse.instructions] == ["SPMV"] * 3 + ["HALT"]
    sparse = type(sparse).from_text(type(sparse).from_bytes(sparse.to_bytes()).to_text())
    for _ in range(3):
        x = np.where(
            rng.random((1, 1, vectors, sizes[0])) < 0.4, rng.integers(-128, 128, (1, 1, vectors, sizes[0])), 3
        ).astype(np.int8)
        ours, theirs = run(sparse, x), run(plain, x)
        np.testing.assert_array_equal(ours.outputs["y2"], theirs.outputs["y2"])
        if vectors == 1:
            assert ours.trace.cycles < theirs.trace.cycles
    assert sparse.meta["constant_bytes"] < plain.meta["constant_bytes"]
    assert sum(row["coded_bytes"] for row in sparse.meta["weights"]) == sum(
        len(sparse_weights(t.data, 64).data) for t in weights_of(graph)
    )
    assert {row["codec"] for row in sparse.meta["weights"]} == {"EIE"}


def test_stream_is_the_matrix():
    (tensor,) = weights_of(dense_layers([200, 100]))
    stream = sparse_weights(tensor.data, 64)
    matrix = decode(stream.data, (100, 200))
    assert (matrix.dense() == tensor.data[:, 0, 0]).all()
    assert (stream.entries, stream.entry_bits, stream.columns_per_word) == (
        matrix.entries,
        matrix.format.entry_bits,
        matrix.columns_per_word,
    )


@pytest.mark.parametrize("objective", ["cycles", "energy", "bytes"])
def test_chosen_where_it_is_better(objective):
    """Beside every other form of the weights: fewer cycles, less energy; by bytes alone the smallest stream wins,
    whatever it is."""
    graph = dense_layers([784, 300, 100], 0.1)
    candidates = Candidates(graph, CHIP)
    choices = {"cycles": candidates.free(), "energy": candidates.free(by_energy=True), "bytes": candidates.least()}[
        objective
    ]
    every = [
        [
            candidates.plain(t.id),
            *candidates._coded(t.id, [Codec.PACKED, Codec.HUFFMAN, Codec.HUFFMAN_RUNS, Codec.RUNS, Codec.CABAC]),
            *candidates._sparse(t.id),
        ]
        for t in weights_of(graph)
    ]
    for choice, ways in zip(choices, every, strict=True):
        key = {
            "cycles": lambda c: c.cycles,
            "energy": lambda c: c.energy_pj + CHIP.leakage_pj(c.cycles),
            "bytes": lambda c: c.size_bytes,
        }[objective]
        assert key(choice.chosen) == min(map(key, ways))
        assert objective == "bytes" or choice.chosen.coding == SPARSE
    chosen = compile_graph(decided(graph, choices), CHIP)
    assert any(isinstance(i, Spmv) for i in chosen.instructions) or objective == "bytes"
    assert objective != "cycles" or Trace(chosen, CHIP).cycles < Trace(compile_graph(graph, CHIP), CHIP).cycles


def test_prices_are_those_of_the_program():
    graph = dense_layers([500, 200], 0.1)
    (choice,) = Candidates(graph, CHIP).free()
    trace = Trace(compile_graph(decided(graph, [choice]), CHIP), CHIP)
    assert trace.entries[0].cycles == choice.chosen.cycles and trace.entries[0].energy_pj == pytest.approx(
        choice.chosen.energy_pj
    )


@pytest.mark.parametrize(
    "why, graph",
    [
        ("pixels", dense_layers([64, 64], vectors=64)),
        ("values", dense_layers([300, 100], 0.3, values=16)),
        ("dense", dense_layers([300, 100], 0.9)),
        ("zero point", dense_layers([300, 100], w_zp=1)),
        ("sums", dense_layers([20, 5000], 0.05)),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_where_it_is_not_taken(why, graph):
    candidates = Candidates(graph, CHIP)
    for choices in (candidates.free(), candidates.free(by_energy=True)):
        assert all(c.chosen.coding is None or c.chosen.coding.codec is not Codec.EIE for c in choices), why
    (tensor,) = weights_of(graph)
    assert why == "pixels" or not runs_sparse(graph, tensor, graph.consumers[tensor.id], CHIP)


def test_only_one_row_of_pixels_is_a_dense_layer():
    graph = dense_layers([30, 20], vectors=4)
    assert is_dense_layer(graph, graph.nodes[0])
    square = replace(
        graph, tensors=tuple(replace(t, shape=(1, 2, 2, t.shape[3])) if t.data is None else t for t in graph.tensors)
    )
    assert not is_dense_layer(square, square.nodes[0])


def test_expected_inputs():
    """All of the network's input, about a third behind a ReLU."""
    graph = dense_layers([30, 20, 10])
    assert expected_share(graph, 0, 3) == 1.0
    assert expected_share(graph, graph.nodes[1].inputs[0], -128) == pytest.approx(0.35)
    assert expected_share(graph, graph.nodes[1].inputs[0], 0) == 1.0


@pytest.mark.parametrize("objective", list(Objective))
def test_with_little_memory(objective):
    """The weights fit only in the sparse form; any objective's plan gives the same results."""
    graph = dense_layers([784, 300, 100], 0.08)
    sparse = on_sparse_engine(graph)
    memory = compile_graph(sparse, CHIP).meta["peak_bytes"]
    assert memory < graph.tensors[1].size_bytes / 3
    x = np.random.default_rng(0).integers(-128, 128, (1, 1, 1, 784)).astype(np.int8)
    small = compile_graph(sparse, CHIP, memory_bytes=memory, objective=objective)
    np.testing.assert_array_equal(run(small, x).outputs["y1"], run(compile_graph(graph, CHIP), x).outputs["y1"])
