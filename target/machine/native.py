"""The emulator's way to the compiled runtime: the instructions that it knows, many at a time; NumPy does the others.

The runtime reads instructions from their bytes, so one that it does not know, or a new form of one, is simply left to
NumPy. What it reports as an error
is executed again by NumPy, which says what is wrong.
"""

from __future__ import annotations

import ctypes
import math
import threading
import weakref

import numpy as np

from tvm_ergo.target.errors import MachineError
from tvm_ergo.target.isa import Conv, ConvTranspose, Depthwise, Encode, Instruction, MatMul, WeightedMean
from tvm_ergo.target.machine.kernels.workers import alone, thread_count
from tvm_ergo.target.machine.memory import Memory
from tvm_ergo.target.native.library import Stream, library, path_number
from tvm_ergo.target.program import Program

PLAIN_MACS = 1 << 17
"""More products than this are left to NumPy's BLAS where the runtime has no fast kernel for them."""
MOST_DROPPED = 9


class NativeProgram:
    """A Program's instructions as the runtime takes them, constant weights packed: made once, used by any number of
    runs at a time.

    path : name of a code path, None for the best.
    """

    def __init__(self, program: Program, path: str | None = None):
        self.program, self.library, self.path = program, library(), path_number(path)
        # which write compressed tiles: they run alone, so that their tiles are counted as theirs
        self.tells = [
            isinstance(i, Encode) or any(getattr(i, name).codec and i.FIELDS[name].out for name in i.CODED)
            for i in program.instructions
        ]
        self.handles: list[int | None] | None = None
        self.fast: set[int] = set()
        self._own: list[int] = []
        self._lock = threading.Lock()
        weakref.finalize(self, _release, self.library, self._own)

    @classmethod
    def of(cls, program: Program, path: str | None = None) -> NativeProgram | None:
        """None where there is no runtime."""
        return cls(program, path) if library() is not None else None

    def on(self, memory: Memory) -> NativeRun:
        """One run on a memory that holds the Program's constants and, in ``streams``, its streamed inputs."""
        with self._lock:
            if self.handles is None:
                self.handles = [self._prepared(memory, instruction) for instruction in self.program.instructions]
                self.list = (ctypes.c_void_p * len(self.handles))(*self.handles)
        return NativeRun(self, memory)

    def _prepared(self, memory: Memory, instruction: Instruction) -> int | None:
        if instruction.DEPENDS_ON_DATA:
            return None
        coded = any(getattr(instruction, name).codec.of_weights for name in instruction.WEIGHTS)
        data, status = instruction.encode(), ctypes.c_int()
        handle = self.library.ergo_host_new(data, len(data), memory.size_bytes, ctypes.byref(status))
        if handle is None:
            return None
        self._own.append(handle)
        packed = self._packed(memory, instruction, handle)
        if packed:
            self.fast.add(handle)
        # NumPy keeps what it decoded
        return handle if packed or not coded and macs_of(instruction) <= PLAIN_MACS else None

    def _packed(self, memory: Memory, instruction: Instruction, handle: int) -> bool:
        """Whether the runtime has a fast kernel, its constant weights packed."""
        if isinstance(instruction, (Conv, ConvTranspose, Depthwise)):
            operands = [instruction.w, instruction.bias, instruction.mult, instruction.shift]
        elif isinstance(instruction, (MatMul, WeightedMean)):
            operands = [instruction.b]
        else:
            return False
        if not all(memory.is_constant(operand) for operand in operands):
            return len(operands) == 1 and bool(self.library.ergo_host_pack(handle, self.path, *[None] * 4))
        try:
            arrays = [np.ascontiguousarray(memory.view(operand)) for operand in operands]
        except MachineError:
            return False  # a stream that no encoder wrote: executing it says so
        places = [array.ctypes.data for array in arrays] + [None] * (4 - len(arrays))
        return bool(self.library.ergo_host_pack(handle, self.path, *places))

    def executed_by(self, index: int) -> str:
        """Who executes an instruction: "packed" and "plain" kernels of the runtime, or "NumPy"."""
        if self.handles is None or self.handles[index] is None:
            return "NumPy"
        return "packed" if self.handles[index] in self.fast else "plain"


class NativeRun:
    """The runtime at work on one memory."""

    def __init__(self, program: NativeProgram, memory: Memory):
        self.program, self.memory = program, memory
        self._streams = (Stream * max(1, len(program.program.inputs)))()
        for number, array in memory.streams.items():
            self._streams[number] = Stream(array.ctypes.data, array.nbytes)

    def run(self, index: int, most: int | None = None) -> int:
        """Executes instructions from ``index`` on, ``most`` at most, up to the first that is NumPy's; returns how
        many."""
        handles, tells, end = self.program.handles, self.program.tells, index
        limit = len(handles) if most is None else min(len(handles), index + most)
        while end < limit and handles[end] is not None and (end == index or not (tells[end] or tells[index])):
            end += 1
        if end == index:
            return 0
        dropped, status = (ctypes.c_int64 * MOST_DROPPED)(), ctypes.c_int()
        first = ctypes.addressof(self.program.list) + index * ctypes.sizeof(ctypes.c_void_p)
        done = self.program.library.ergo_host_run(
            first,
            end - index,
            self.memory.bytes.ctypes.data,
            self._streams,
            1 if alone() else thread_count(),
            dropped,
            ctypes.byref(status),
        )
        if tells[index] and done:
            self.memory.count(self.program.program.instructions[index], np.array(dropped, np.int64))
        return done


def macs_of(instruction: Instruction) -> int:
    """Products of an instruction of the tensor engine; 0 of others."""
    if isinstance(instruction, Conv):
        return instruction.out.elements * math.prod(instruction.w.shape[1:])
    if isinstance(instruction, Depthwise):
        return instruction.out.elements * math.prod(instruction.w.shape[:2])
    if isinstance(instruction, ConvTranspose):
        return instruction.x.elements * instruction.w.elements // instruction.x.shape[-1]
    if isinstance(instruction, (MatMul, WeightedMean)):
        return instruction.out.elements * instruction.a.shape[-1]
    return 0


def _release(loaded: ctypes.CDLL, handles: list[int]) -> None:
    for handle in handles:
        loaded.ergo_host_free(handle)
