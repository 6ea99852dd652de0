"""A network of which nothing stays on the host but its ports, as a chain of plain steps: calls of Programs, and the
numbers in and out of them.

A compiled model's file holds the chain instead of a library: it is data, run by the emulator and NumPy alone, and gives
the same outputs to the bit."""

from tvm_ergo.chain.described import described
from tvm_ergo.chain.run import Chain

__all__ = ["Chain", "described"]
