"""Events of a product of which everything is known."""

from tvm_ergo.target.events import Event
from tvm_ergo.target.sparse.events import events
from tvm_ergo.target.sparse.timing import Activity


def test_events_of_a_small_product():
    activity = Activity(cycles=50, columns=4, entries=11, macs=10, pointer_reads=6, pointer_bytes=48, line_reads=5)
    # ten sums of four bytes read and written and ten values; four columns of three bytes into and out of two queues
    assert events(activity, 2) == {
        Event.MAC_8X8: 10,
        Event.ACC_ADD_32: 10,
        Event.LUT_READ: 10 + 80 + 48,
        Event.SRAM_READ_BYTE: 48 + 40,
    }
