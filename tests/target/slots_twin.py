"""The slow, obvious twin of slots: one tile, value by value, bits as text."""

import numpy as np

from tvm_ergo.target.codecs.registry import CODECS


def levels(zero_point, dropped):
    """{level: values that it stands for}, levels counted from the zero point."""
    step = 2**dropped
    groups = {}
    for x in range(-128, 128):
        level = int(np.floor((x - zero_point) / step + 0.5))
        groups.setdefault(level, []).append(x)
    if len(groups) > 256 // step:
        low, high = min(groups), max(groups)
        if high >= -low:
            groups[high - 1] += groups.pop(high)
        else:
            groups[low + 1] = groups.pop(low) + groups[low + 1]
    return groups


def code_of(level, groups):
    both = min(-min(groups), max(groups))
    return abs(level) + both if abs(level) > both else 2 * level - 1 if level > 0 else -2 * level


def tables(zero_point, dropped):
    """({x: code}, {code: value})"""
    groups = levels(zero_point, dropped)
    codes = {x: code_of(level, groups) for level, members in groups.items() for x in members}
    values = {
        code_of(level, groups): zero_point if level == 0 else (min(members) + max(members) + 1) // 2
        for level, members in groups.items()
    }
    return codes, values


def encode(tile, codec, slot_bytes, zero_point):
    """uint8[slot_bytes]"""
    coder = CODECS[codec](zero_point=zero_point, tile_rows=len(tile))
    for dropped in range(9):
        codes, _ = tables(zero_point, dropped)
        u = np.array([codes[int(x)] for x in tile.ravel()], np.uint8).reshape(tile.shape)
        bits = "".join(f"{c:08b}"[dropped:] for c in u.ravel().tolist())
        packed = bytes(int(bits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(bits), 8))
        (coded,) = coder.encode_tiles([u]) if dropped < 8 else [None]
        is_packed = coded is None or len(coded) >= len(packed)
        payload = packed if is_packed else coded
        if 4 + len(payload) <= slot_bytes:
            head = len(payload) + dropped * 2**27 + is_packed * 2**31
            return np.frombuffer((head.to_bytes(4, "little") + payload).ljust(slot_bytes, b"\0"), np.uint8)
    raise AssertionError("a slot holds at least its header")


def decode(slot, shape, codec, zero_point):
    """int8[shape]"""
    head = int.from_bytes(slot[:4].tobytes(), "little")
    length, dropped, is_packed = head % 2**27, head // 2**27 % 16, head // 2**31
    payload = slot[4 : 4 + length].tobytes()
    if is_packed:
        bits = "".join(f"{b:08b}" for b in payload)
        width = 8 - dropped
        u = [int(bits[i * width : (i + 1) * width] or "0", 2) for i in range(int(np.prod(shape)))]
    else:
        (u,) = CODECS[codec](zero_point=zero_point, tile_rows=shape[0]).decode_tiles([payload], [shape])
        u = u.ravel().tolist()
    values = tables(zero_point, dropped)[1]
    return np.array([values[c] for c in u], np.int8).reshape(shape)
