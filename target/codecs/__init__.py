"""What the compression hardware reads and writes: the enumeration every operand names, one file per codec next to it.

The codecs themselves: `tvm_ergo.target.codecs.registry`.
"""

from __future__ import annotations

from enum import IntEnum


class Codec(IntEnum):
    """How an operand's elements stand in memory. A new codec takes the next free number and never reuses one."""

    RAW = 0  # plain little-endian elements at addr + sum(index * stride)
    BITMASK = 1  # one bit per value, then the nonzero ones
    BITPLANE = 2  # two-level zero map, nonzero magnitudes in blocks of as many bit planes as they need
    CONTEXT = 3  # adaptive binary arithmetic code, logistic mixing of three contexts
    REDUCED = 4  # fewer bits where a budget demands it (lossy, bounded)
    STATIC = 5  # entropy code with fixed tables
    PREDICT = 6  # prediction in space and time, residuals in the static code
    KLT = 8  # projection of the channels to a few coordinates (lossy, bounded)
    # of constant weights (weights.py): codes into a table of values
    HUFFMAN = 9  # canonical Huffman code, one symbol a weight
    HUFFMAN_RUNS = 10  # canonical Huffman codes of the run of defaults before a value, and of the value
    RUNS = 11  # fields of fixed width: run and code, padding entries where a run is longer (relative index)
    CABAC = 12  # adaptive binary arithmetic code, logistic mixing of neighbouring contexts
    PACKED = 13  # codes in fields of as many bits as the table of values needs
    EIE = (
        14  # entries of a sparse matrix dealt to processing elements (eie.py): no operand has it, SPMV reads its bytes
    )

    @property
    def of_weights(self) -> bool:
        """Whether it codes constant weights (`isa.weights`), not tensors in slots."""
        return Codec.HUFFMAN <= self <= Codec.PACKED
