"""The unified memory: one byte array, seen through operands."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.errors import MachineError
from tvm_ergo.target.isa import Instruction, Operand
from tvm_ergo.target.isa.coded import CodedOperand
from tvm_ergo.target.isa.weights import decoded

POISON = 0xA5  # what memory holds before anything is written, in strict mode


class Memory:
    """``size_bytes`` of memory. ``view(operand)`` is the only way instructions reach it.

    constant : half-open byte ranges that no instruction and no input port ever writes: weights, tables. What is
    computed from them may be kept from one run to the next (``prepared``). tiles : tiles compressed since the run
    began, int64[9] by dropped bits, by node. sibling : a memory of the same Program: what is computed from constants is
    shared with it. One run at a time has it: not thread-safe but for what is shared."""

    def __init__(self, size_bytes: int, constant: Sequence[tuple[int, int]] = (), sibling: Memory | None = None):
        self.bytes = np.zeros(size_bytes, np.uint8)
        self.constant = tuple(constant)
        self._views: dict[int, tuple[Operand, np.ndarray]] = {}
        # written by any of the memories that share them; the same value whoever does, and read-only then
        self._prepared: dict[int, tuple[Instruction, object]] = {} if sibling is None else sibling._prepared
        self._weights: dict[tuple, np.ndarray] = (
            {} if sibling is None else sibling._weights
        )  # decoded, of constant streams
        self._plain: list[tuple[CodedOperand, np.ndarray]] = []  # of the running instruction
        self.tiles: dict[int, np.ndarray] = {}
        self.streams: dict[int, np.ndarray] = {}  # the arrays of streamed ports in this run, dense, by port number
        self._writable: list[Operand] | None = None  # while a strict run executes an instruction: its outputs
        self._readable: list[Operand] | None = None

    @property
    def size_bytes(self) -> int:
        return self.bytes.size

    def view(self, operand: Operand) -> np.ndarray:
        """The operand's elements as an ndarray of its dtype, shape and strides, on this memory.

        Writable; in strict mode only for the operands the running instruction declares as written. Errors: MachineError
        when any byte is outside the memory, the address or a stride is not aligned to the element, or (strict) the
        running instruction does not declare the operand. Of a compressed operand it is the expanded rows, while the
        instruction that `open`ed it runs; of coded weights the decoded ones, read-only, kept while they are constant.
        """
        if operand.codec.of_weights:
            return self._decoded(operand)
        if operand.codec != Codec.RAW:
            return self._expanded(operand)
        known = self._views.get(id(operand))
        if len(self._views) > 1 << 16:
            self._views.clear()  # operands made on the fly, by a watch
        if known is None or known[0] is not operand:
            known = self._views[id(operand)] = (operand, self._make_view(operand))
        if self._readable is None:
            return known[1]
        if any(operand is declared for declared in self._writable):
            return known[1]
        if not any(operand is declared for declared in self._readable):
            raise MachineError("an instruction touches an operand that it does not declare", where=str(operand))
        view = known[1].view()
        view.flags.writeable = False
        return view

    def received(self, port: int, source: Operand) -> np.ndarray:
        """What a streamed port's array holds at ``source``. Errors: MachineError where the port has no such bytes."""
        stream = self.streams.get(port)
        if stream is None or source.extent[1] > stream.nbytes:
            raise MachineError(
                f"streamed input port {port} does not have what is received",
                where=str(source),
                available="nothing" if stream is None else f"{stream.nbytes} bytes",
            )
        return np.ndarray(source.shape, source.dtype.numpy, stream, source.addr, source.strides)

    def _make_view(self, operand: Operand) -> np.ndarray:
        low, high = operand.extent
        if low < 0 or high > self.size_bytes:
            raise MachineError(
                "an operand lies outside the unified memory",
                where=str(operand),
                required=f"bytes [{low:#x}, {high:#x})",
                available=f"[0, {self.size_bytes:#x})",
            )
        size = operand.dtype.itemsize
        if operand.addr % size or any(s % size for s in operand.strides):
            raise MachineError(
                "an operand is not aligned to its elements",
                where=str(operand),
                required=f"address and strides divisible by {size}",
            )
        return np.ndarray(operand.shape, operand.dtype.numpy, self.bytes, operand.addr, operand.strides)

    def _expanded(self, operand: Operand) -> np.ndarray:
        found = next((array for known, array in self._plain if known.operand is operand), None)
        if found is None:
            raise MachineError(
                "a compressed operand is touched by an instruction that does not expand it", where=str(operand)
            )
        return found

    def _decoded(self, operand: Operand) -> np.ndarray:
        if self._readable is not None and not any(operand is declared for declared in self._readable):
            raise MachineError("an instruction touches an operand that it does not declare", where=str(operand))
        key = (operand.addr, operand.shape, operand.strides, operand.codec)
        known = self._weights.get(key)
        if known is None:
            known = decoded(operand, self._make_view(operand.stored))
            known.flags.writeable = False
            if self.is_constant(operand):
                self._weights[key] = known
        return known

    def open(self, operands: Sequence[CodedOperand]) -> None:
        """Expands what an instruction reads compressed, and makes room for what it writes. Errors: MachineError."""
        self._plain = [
            (c, np.empty(c.operand.shape, np.int8) if c.out else c.expand(self._make_view(c.stored))) for c in operands
        ]

    def close(self, instruction: Instruction) -> None:
        """Shrinks what the instruction wrote into its slots."""
        for c, plain in self._plain:
            if c.out:
                slots = self._make_view(c.stored)
                slots[...] = c.shrink(plain)
                self.tell(instruction, c.layout.dropped(slots))
        self._plain = []

    def prepared(self, instruction: Instruction, operands: Sequence[Operand], factory: Callable[[], object]) -> object:
        """``factory()``, kept for ``instruction`` across runs when every one of ``operands`` (weights, bias, ...) is
        constant."""
        known = self._prepared.get(id(instruction))
        if known is not None and known[0] is instruction:
            return known[1]
        value = factory()
        if all(self.is_constant(operand) for operand in operands):
            self._prepared[id(instruction)] = (instruction, value)
        return value

    def tell(self, instruction: Instruction, dropped: np.ndarray) -> None:
        """Counts tiles that an encoder wrote, by the low bits they lost."""
        self.count(instruction, np.bincount(dropped, minlength=9))

    def count(self, instruction: Instruction, by_dropped: np.ndarray) -> None:
        """The same, of int64[9] tiles that lost so many low bits."""
        self.tiles[instruction.node] = self.tiles.get(instruction.node, 0) + by_dropped

    def is_constant(self, operand: Operand) -> bool:
        """Whether all of the operand's bytes lie in one constant range."""
        low, high = operand.extent
        return any(begin <= low and high <= end for begin, end in self.constant)

    def load(self, addr: int, content: bytes) -> None:
        """Write initial contents. Errors: MachineError when they do not fit."""
        if addr < 0 or addr + len(content) > self.size_bytes:
            raise MachineError(
                "a data section lies outside the unified memory",
                where=f"address {addr:#x}",
                required=f"{len(content)} bytes",
                available=f"[0, {self.size_bytes:#x})",
            )
        self.bytes[addr : addr + len(content)] = np.frombuffer(content, np.uint8)

    def poison(self) -> None:
        """Fill everything with POISON."""
        self.bytes.fill(POISON)

    def restrict(self, instruction: Instruction | None) -> None:
        """From now on only ``instruction``'s declared operands may be viewed, and only its outputs written; None lifts
        the restriction."""
        self._readable = None if instruction is None else instruction.reads()
        self._writable = None if instruction is None else instruction.writes()
