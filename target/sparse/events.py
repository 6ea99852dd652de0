"""What a sparse matrix-vector product counts for the energy table."""

from __future__ import annotations

from tvm_ergo.target.events import Event
from tvm_ergo.target.sparse.timing import Activity

QUEUED_BYTES = 3  # a column's number u16 and the activation
SUM_BYTES = 4
LINE_BYTES = 8


def events(activity: Activity, pes: int) -> dict[Event, int]:
    """Pointers and lines come out of the unified memory. Queues, sums and tables of values are of the size of a look-up
    table, so that each byte of a queue or sum and each value costs a LUT_READ (a write taken as a read): per product
    its value and the sum read and written."""
    return {
        Event.MAC_8X8: activity.macs,
        Event.ACC_ADD_32: activity.macs,
        Event.LUT_READ: activity.macs * (1 + 2 * SUM_BYTES) + activity.columns * pes * 2 * QUEUED_BYTES,
        Event.SRAM_READ_BYTE: activity.pointer_bytes + activity.line_reads * LINE_BYTES,
    }
