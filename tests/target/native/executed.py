"""One instruction on a memory, by NumPy and by the native runtime."""

from __future__ import annotations

import ctypes

import numpy as np

from tvm_ergo.target.isa import Conv, ConvTranspose, Depthwise
from tvm_ergo.target.isa.coded import coded_operands
from tvm_ergo.target.machine.memory import Memory
from tvm_ergo.target.native.library import Stream, library, path_number


def by_numpy(memory: Memory, instruction) -> tuple[np.ndarray, np.ndarray]:
    """What the memory holds afterwards, and tiles by dropped bits."""
    after = Memory(memory.size_bytes)
    after.bytes[:], after.streams = memory.bytes, memory.streams
    operands = coded_operands(instruction)
    after.open(operands)
    instruction.execute(after)
    after.close(instruction)
    return after.bytes, after.tiles.get(0, np.zeros(9, np.int64))


def by_native(
    memory: Memory, instruction, path: str | None = None, constant: bool = True
) -> tuple[np.ndarray, np.ndarray, bool]:
    """The same by the runtime, and whether a fast kernel did it; path: a code path of the fast kernels, None for the
    plain ones; constant: whether its weights are packed beforehand."""
    loaded, status, data, after = library(), ctypes.c_int(), instruction.encode(), memory.bytes.copy()
    handle = loaded.ergo_host_new(data, len(data), after.size, ctypes.byref(status))
    assert handle is not None, f"{instruction}: refused with status {status.value}"
    fast = False
    try:
        if path is not None:
            names = (
                ("w", "bias", "mult", "shift") if isinstance(instruction, (Conv, ConvTranspose, Depthwise)) else ("b",)
            )
            arrays = [np.ascontiguousarray(memory.view(getattr(instruction, name))) for name in names if constant]
            places = [array.ctypes.data for array in arrays]
            fast = bool(loaded.ergo_host_pack(handle, path_number(path), *places, *[None] * (4 - len(places))))
        streams = (Stream * 2)()
        for number, array in memory.streams.items():
            streams[number] = Stream(array.ctypes.data, array.nbytes)
        dropped, one = (ctypes.c_int64 * 9)(), (ctypes.c_void_p * 1)(handle)
        done = loaded.ergo_host_run(one, 1, after.ctypes.data, streams, 2, dropped, ctypes.byref(status))
        assert done == 1, f"{instruction}: status {status.value}"
    finally:
        loaded.ergo_host_free(handle)
    return after, np.array(dropped), fast
