"""Dense layers whose weights the sparse engine can compute on: which they are, and their streams."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.eie import bits_needed
from tvm_ergo.target.codecs.weights import CodedWeights
from tvm_ergo.target.sparse.form import stored
from tvm_ergo.target.sparse.rows import DENSITY

if TYPE_CHECKING:
    from tvm_ergo.codegen.graph import Graph, Node, Tensor
    from tvm_ergo.target.chip import Chip

MOST_CODE_BITS = 4
"""The table of a processing element has 16 values, as EIE's."""
MOST_NONZERO = 0.7
"""Share of nonzero weights above which it is not tried: an entry takes more bits than a dense weight then, and most
products remain."""


@dataclass(frozen=True)
class SparseWeights(CodedWeights):
    """A matrix in the sparse engine's form: ``lanes`` processing elements, of which the busiest has ``steps`` entries.
    entries : with padding; entry_bits, columns_per_word : as SPMV's fields say."""

    entries: int = 0
    entry_bits: int = 0
    columns_per_word: int = 0


def sparse_weights(values: np.ndarray, pes: int) -> SparseWeights:
    """int8[O, ...], its first axis the rows, for so many processing elements."""
    kept = stored(values.reshape(values.shape[0], -1), pes)
    return SparseWeights(
        kept.data,
        Codec.EIE,
        kept.shape,
        pes,
        int(kept.counts.sum(0).max()),
        kept.entries,
        values.size,
        kept.entries,
        kept.format.entry_bits,
        kept.columns_per_word,
    )


def runs_sparse(graph: Graph, tensor: Tensor, readers: Iterable[Node], chip: Chip) -> bool:
    """Whether SPMV can do all that reads a constant: dense layers, few values, no more outputs than the engine has
    sums."""
    if (
        not all(is_dense_layer(graph, node) for node in readers)
        or tensor.shape[0] > chip.sparse.elements * chip.sparse.sums
    ):
        return False
    counts = np.bincount(tensor.data.ravel().view(np.uint8), minlength=256)
    return (
        bits_needed(int((counts[1:] > 0).sum())) <= MOST_CODE_BITS
        and counts[1:].sum() <= MOST_NONZERO * tensor.data.size
    )


def is_dense_layer(graph: Graph, node: Node) -> bool:
    """A 1x1 convolution of one row of pixels, vectors times a matrix, whose results go straight to memory."""
    if type(node.op) not in (dialect.Conv2d, dialect.Conv2dAccumulate) or node.table is not None:
        return False
    op, (x, w, *_) = node.op, graph.shapes(node)
    return (
        x[0] == x[1] == 1
        and w[1:3] == (1, 1)
        and op.groups == 1
        and op.w_zp == 0
        and tuple(op.strides) == (1, 1)
        and not any(op.padding)
    )


def expected_share(graph: Graph, t: int, zero_point: int) -> float:
    """Of the values of a tensor, how many are expected to differ from its zero point: `DENSITY` behind a clip at zero,
    else all."""
    while (node := graph.producer.get(t)) is not None and node.inner.traits.keeps_zero:
        t = node.inputs[0]
    clipped = node is not None and node.table is None and getattr(node.inner, "lo", None) == zero_point
    return DENSITY if clipped else 1.0
