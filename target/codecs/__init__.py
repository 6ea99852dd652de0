"""What the compression hardware reads and writes: the enumeration every operand names, one file per codec next to it."""

from __future__ import annotations

from enum import IntEnum


class Codec(IntEnum):
    """How an operand's elements stand in memory. A new codec takes the next free number and never reuses one."""

    RAW = 0  # plain little-endian elements at addr + sum(index * stride)
