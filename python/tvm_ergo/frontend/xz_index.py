"""What an .xz opens to, as its own index says: at the end of each stream stands how long every block is once it is
unpacked (the format's description, tukaani.org/xz/xz-file-format.txt, sections 2.1.2 and 4)."""

from __future__ import annotations

FOOTER_BYTES = HEADER_BYTES = 12


def unpacked_bytes(data: bytes) -> int | None:
    """Of all streams together; None where the index cannot be followed. Nothing is unpacked, and whether it is true
    shows when the file is."""
    end, total = len(data), 0
    try:
        while end > 0:
            if data[end - 4 : end] == b"\0\0\0\0":  # padding between streams
                end -= 4
                continue
            index = (int.from_bytes(data[end - 8 : end - 4], "little") + 1) * 4
            start = end - FOOTER_BYTES - index
            if data[end - 2 : end] != b"YZ" or start < HEADER_BYTES or data[start]:
                return None
            packed, plain = _records(data, start + 1, end - FOOTER_BYTES)
            end, total = start - packed - HEADER_BYTES, total + plain
    except IndexError:
        return None
    return total if end == 0 else None


def _records(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Bytes of the blocks as they stand in the file, and unpacked."""
    count, at = _number(data, at)
    packed = plain = 0
    for _ in range(count):
        if at >= end:
            raise IndexError
        size, at = _number(data, at)
        packed += -(-size // 4) * 4
        size, at = _number(data, at)
        plain += size
    return packed, plain


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Seven bits a byte, the lowest first; at most nine bytes."""
    value = 0
    for shift in range(0, 63, 7):
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise IndexError
