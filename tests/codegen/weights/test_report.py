"""Rows of weights for reports: what stands in the program's memory, and what the values are."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ergo.codegen.compile import compile_graph
from tvm_ergo.codegen.weights.coding import Coding
from tvm_ergo.target.chip import chip
from tvm_ergo.target.codecs import Codec

from .nets import conv_graph


@pytest.mark.parametrize("coding", [None, Coding(Codec.HUFFMAN_RUNS, 4)])
def test_rows(coding):
    graph = conv_graph(32, coding)
    program = compile_graph(graph, chip("ergo/1"))
    (row,) = program.meta["weights"]
    (w,) = [t.data for t in graph.tensors if t.name == "conv.w"]
    (buffer,) = [b for b in program.buffers if b.name == "conv.w"]
    assert row["density"] == pytest.approx(np.mean(w != 0)) and row["distinct"] == len(np.unique(w)) == 5
    assert (
        row["dense_bytes"] == w.size
        and row["coded_bytes"] == buffer.size_bytes
        and row["layers"] == ["conv"]
        and row["shape"] == list(w.shape)
    )
    share = np.unique(w, return_counts=True)[1] / w.size
    assert row["entropy_bits"] == pytest.approx(-(share * np.log2(share)).sum())
    if coding is None:
        assert (
            row["codec"] is None
            and (row["panels"], row["lanes"], row["steps"]) == (0, 0, 0)
            and row["coded_bytes"] == w.size
        )
    else:
        assert (
            row["codec"] == "HUFFMAN_RUNS"
            and row["panels"] == 1
            and row["lanes"] == 4
            and row["coded_bytes"] < 0.3 * w.size
        )
        assert program.instructions[0].w.strides[1] == row["steps"] << 4 | 3
