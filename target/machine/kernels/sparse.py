"""Sparse matrix times vectors: entries of the columns whose input is not zero, summed in float64, where every sum of
integers below 2**53 is exact."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from tvm_ergo.target.codecs.eie import decode, entry_places
from tvm_ergo.target.errors import MachineError
from tvm_ergo.target.machine.kernels.rescale import Rescale
from tvm_ergo.target.sparse.timing import Work

INPUT_BOUND = 255  # of an int8 input less its zero point


class PreparedSparse:
    """A stored matrix [O, C] (`codecs.eie`), ready for ``x int8[M, C] -> int8[M, O]``.

    Parameters: data: the stored bytes; shape: (O, C); bias, mult, shift: [O]; in_zp, out_zp, lo, hi. Errors:
    ProgramError for bytes that no encoder wrote, MachineError for multipliers or shifts out of range."""

    def __init__(self, data: bytes, shape: tuple[int, int], bias, mult, shift, *, in_zp, out_zp, lo, hi):
        self.matrix, self.in_zp, outputs = decode(data, shape), in_zp, shape[0]
        if self.matrix.values.dtype != np.int8:
            raise MachineError("the stored matrix has values of 16 bits", required="int8")
        form = self.matrix.format
        pe, column, slot = entry_places(self.matrix.counts, self.matrix.runs)
        real = np.flatnonzero(self.matrix.codes)
        order = real[np.argsort(column[real], kind="stable")]
        row_at = np.zeros(form.slots(outputs) * form.pes, np.int64)
        row_at[self.matrix.place] = np.arange(outputs)
        self.column, self.row = column[order], row_at[slot[order] * form.pes + pe[order]]
        self.value = self.matrix.values[self.matrix.codes[order]].astype(np.float64)
        magnitude = np.bincount(self.row, np.abs(self.value), outputs).astype(np.int64)
        self.rescale = Rescale(
            mult, shift, out_zp, lo, hi, acc_bound=magnitude * INPUT_BOUND, bias=bias, channels=outputs
        )

    @cached_property
    def work(self) -> Work:
        """The matrix as the engine sees it."""
        return Work(self.matrix)

    def __call__(self, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        """``out`` int8 or int32 [M, O]: int32 takes the sums with bias."""
        sums = np.empty(out.shape, np.float64)
        for inputs, result in zip(x.astype(np.float64) - self.in_zp, sums):
            taken = np.flatnonzero(inputs[self.column])
            result[...] = np.bincount(self.row[taken], self.value[taken] * inputs[self.column[taken]], out.shape[1])
        target = out if out.flags.c_contiguous else np.empty(out.shape, out.dtype)
        self.rescale(sums, target)
        if target is not out:
            out[...] = target
        return out
