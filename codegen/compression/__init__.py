"""Activations that wait compressed: which tensors, which codec, in which plan.

`statistics` measures tensors on calibration data, `waiting` says what a plan's live bytes would be, `solve` selects
exactly, `choose` compares the plans, of whole layers and of rows, `report` gives the rows of reports."""

from tvm_ergo.codegen.compression.choose import Compressed, compress, needs_compression
from tvm_ergo.codegen.compression.report import rows_of
from tvm_ergo.codegen.compression.statistics import Collector, TensorStatistics

__all__ = ["Collector", "Compressed", "TensorStatistics", "compress", "needs_compression", "rows_of"]
