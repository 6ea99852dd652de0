"""The emulator: runs a Program's instructions on the unified memory, bit-exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from tvm_ergo.target.chip import Chip, Point
from tvm_ergo.target.chip import chip as chip_by_name
from tvm_ergo.target.errors import InputError, MachineError, ProgramError
from tvm_ergo.target.isa import Instruction
from tvm_ergo.target.isa.coded import coded_operands
from tvm_ergo.target.isa.cost import Cost
from tvm_ergo.target.machine.hazards import HazardCheck, describe
from tvm_ergo.target.machine.kernels.workers import a_run
from tvm_ergo.target.machine.memory import Memory
from tvm_ergo.target.machine.native import NativeProgram
from tvm_ergo.target.machine.timeline import simulate
from tvm_ergo.target.machine.trace import Trace
from tvm_ergo.target.program import Port, Program

Watch = Callable[[int, Instruction, Memory], None]


@dataclass(frozen=True)
class TileCount:
    """What became of one compressed tensor in one run. node, name : in the Program's node table; by_dropped[d] : tiles
    that lost d low bits."""

    node: int
    name: str
    by_dropped: tuple[int, ...]

    @property
    def tiles(self) -> int:
        return sum(self.by_dropped)

    @property
    def reduced(self) -> int:
        """Tiles that lost anything."""
        return self.tiles - self.by_dropped[0]

    def to_json(self) -> dict:
        return {
            "node": self.node,
            "name": self.name,
            "tiles": self.tiles,
            "reduced": self.reduced,
            "by_dropped": list(self.by_dropped),
        }


@dataclass(frozen=True)
class Result:
    """outputs : by port name, arrays of their own. trace : what the run cost. compressed : what it compressed, and what
    that lost."""

    outputs: dict[str, np.ndarray]
    trace: Trace
    compressed: tuple[TileCount, ...] = ()


MOST_CYCLES = 1 << 30
"""Of one instruction: two seconds of a chip at 500 MHz. By arithmetic, 3 x 3 taps from 64 to 64 channels on a frame of
3840 x 2160 are 306 G products, a fourteenth of it at the 4096 products a cycle of ergo/1."""


def _check_work(program: Program, chip: Chip) -> None:
    """A few bytes may name an operand that repeats what it reads without end (a stride of 0). Errors: ProgramError for
    an instruction of more than `MOST_CYCLES`, looked for where an operand has more elements than the memory bytes."""
    for index, instruction in enumerate(program.instructions):
        operands = (*instruction.reads(), *instruction.writes())
        if all(operand.elements <= program.memory_bytes for operand in operands):
            continue
        cycles = instruction.cost(chip).cycles
        if cycles > MOST_CYCLES:
            raise ProgramError(
                "an instruction takes longer than any layer does",
                where=f"instruction {index}",
                required=f"at most {MOST_CYCLES:,} cycles",
                available=f"{cycles:,} cycles",
            )


class Machine:
    """One emulated chip with one Program loaded.

    Parameters
    ----------
    program : validated here. chip : Chip, a shipped chip's name, or None for the one the program names.
    strict : check once that no instruction reads unwritten bytes or races with another (``HazardCheck``); in every run
    poison the memory first and confine each instruction to the operands it declares. Results of valid programs are the
    same.
    point : operating point (name or Point) for seconds and energy; None is the chip's default.
    native : False leaves all instructions to NumPy, as strict does; otherwise the compiled runtime (`target.native`)
    executes those that it knows, to the same bits. A name chooses one of its code paths.

    Instructions are executed in program order: validation lets them wait only for earlier ones, so it is one of the
    orders the chip may take, and without races all orders give the same result. Everything that does not depend on
    inputs (prepared weights, and timeline and energy but for SPMV) is computed once. Any number of threads may call
    `run` at a time: each run has a memory of its own, and memories are kept for the next runs, as many as ran at once.
    Errors: ProgramError, TargetError, MachineError."""

    def __init__(
        self,
        program: Program,
        chip: Chip | str | None = None,
        strict: bool = False,
        point: Point | str | None = None,
        native: bool | str = True,
    ):
        self.program, self.strict = program, strict
        self.chip = chip_by_name(chip or program.chip_name) if chip is None or isinstance(chip, str) else chip
        if program.memory_bytes > self.chip.memory_bytes:
            raise MachineError(
                "the program needs more memory than the chip has",
                where=self.chip.name,
                required=f"{program.memory_bytes} bytes",
                available=f"{self.chip.memory_bytes} bytes",
                remedy="compile the network for this chip",
            )
        program.validate()
        _check_work(program, self.chip)
        if strict:
            HazardCheck(program).run()
        self.trace = Trace(program, self.chip, point)
        self._coded = {i: c for i, instruction in enumerate(program.instructions) if (c := coded_operands(instruction))}
        written = _written_spans(program)
        mutable = [_meets(addr, addr + len(content), written) for addr, content in program.data]
        self._constant = [(a, a + len(c)) for (a, c), changes in zip(program.data, mutable) if not changes]
        self._reload = [section for section, changes in zip(program.data, mutable) if changes]
        self.memory = self._loaded(None)
        """The one that runs one after another have, and the first of those that run at once."""
        self._idle = [self.memory]
        self._native = (
            NativeProgram.of(program, native if isinstance(native, str) else None) if native and not strict else None
        )

    def _loaded(self, sibling: Memory | None) -> Memory:
        memory = Memory(self.program.memory_bytes, self._constant, sibling)
        for addr, content in self.program.data:
            memory.load(addr, content)
        return memory

    @contextmanager
    def _own_memory(self) -> Iterator[Memory]:
        """A memory that no other run has meanwhile."""
        try:
            memory = self._idle.pop()  # one step under the interpreter's lock, as `append` is
        except IndexError:
            memory = self._loaded(self.memory)
        try:
            yield memory
        finally:
            self._idle.append(memory)

    def run(self, inputs: dict[str, np.ndarray], watch: Watch | None = None) -> Result:
        """One inference.

        inputs : one array per input port, of exactly its shape and dtype. watch : called after each instruction with
        (index, instruction, memory); ``memory.view(operand).copy()`` takes an intermediate tensor. Errors: InputError,
        MachineError."""
        arrays = check_inputs(self.program.inputs, inputs)
        with self._own_memory() as memory, a_run():
            return self._run(memory, arrays, watch)

    def _run(self, memory: Memory, arrays: list[np.ndarray], watch: Watch | None) -> Result:
        self._reset(memory)
        for number, (port, array) in enumerate(zip(self.program.inputs, arrays)):
            if port.streamed:
                memory.streams[number] = np.ascontiguousarray(array)
            else:
                memory.view(port.operand)[...] = array
        spent: dict[int, Callable[[], Cost]] = {}  # by instruction whose cost depends on data
        native = self._native.on(memory) if self._native is not None else None
        instructions, index = self.program.instructions, 0
        while index < len(instructions):
            done = native.run(index, None if watch is None else 1) if native is not None else 0
            if not done:
                self._execute(memory, index, instructions[index], spent)
                done = 1
            if watch is not None:
                watch(index, instructions[index], memory)
            index += done
        return Result(
            {port.name: memory.view(port.operand).copy() for port in self.program.outputs},
            self._trace(spent),
            self._compressed(memory),
        )

    def executed_by(self, index: int) -> str:
        """Who executes an instruction, after a first run: the runtime's "packed" or "plain" kernels, or "NumPy"."""
        return "NumPy" if self._native is None else self._native.executed_by(index)

    def _trace(self, spent: dict[int, Callable[[], Cost]]) -> Trace:
        """What this run took: the trace of every run, unless an instruction's time depends on its data."""
        if not spent:
            return self.trace

        def timeline():
            costs = [spent[i]() if i in spent else cost for i, cost in enumerate(self.trace.timeline.costs)]
            return simulate(self.program, self.chip, costs)

        return Trace(self.program, self.chip, self.trace.point, timeline)

    def _compressed(self, memory: Memory) -> tuple[TileCount, ...]:
        if not memory.tiles:
            return ()
        names = [node.name for node in self.program.nodes] or [""]
        return tuple(
            TileCount(node, names[node], tuple(counts.tolist())) for node, counts in sorted(memory.tiles.items())
        )

    def _execute(
        self, memory: Memory, index: int, instruction: Instruction, spent: dict[int, Callable[[], Cost]]
    ) -> None:
        coded = self._coded.get(index)
        try:
            if coded:
                memory.open(coded)
            if self.strict:
                memory.restrict(instruction)
            instruction.execute(memory)
            if instruction.DEPENDS_ON_DATA:
                spent[index] = instruction.spent(memory, self.chip)
            if coded:
                memory.close(instruction)
        except MachineError as error:
            error.where = "; ".join(filter(None, (describe(self.program, index), error.where)))
            raise
        finally:
            memory.restrict(None)

    def _reset(self, memory: Memory) -> None:
        memory.tiles.clear()
        memory.streams = {}
        if self.strict:
            memory.poison()
        for addr, content in self.program.data if self.strict else self._reload:
            memory.load(addr, content)


def check_inputs(ports: list[Port], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The arrays in port order. Errors: InputError for a missing or unknown name, wrong dtype or shape, saying expected
    and given."""
    expected = {port.name: port.operand for port in ports}
    listing = ", ".join(f"{name}: {o.dtype.numpy.name}{list(o.shape)}" for name, o in expected.items()) or "no inputs"
    if not isinstance(inputs, dict):
        raise InputError(
            "the inputs are not a dict of arrays by name", required=listing, available=type(inputs).__name__
        )
    for problem, names in (("missing", expected.keys() - inputs.keys()), ("unknown", inputs.keys() - expected.keys())):
        if names:
            raise InputError(
                f"{problem} input {', '.join(sorted(map(repr, names)))}",
                required=listing,
                available=", ".join(map(repr, inputs)) or "no inputs",
            )
    arrays = []
    for name, operand in expected.items():
        array = inputs[name]
        if not isinstance(array, np.ndarray):
            raise InputError(
                "an input is not a NumPy array", where=name, required=listing, available=type(array).__name__
            )
        if array.dtype != operand.dtype.numpy or array.shape != operand.shape:
            raise InputError(
                "an input has the wrong shape or element type",
                where=name,
                required=f"{operand.dtype.numpy.name}{list(operand.shape)}",
                available=f"{array.dtype.name}{list(array.shape)}",
            )
        arrays.append(array)
    return arrays


def _written_spans(program: Program) -> np.ndarray:
    """int64[n, 2]: byte ranges around everything that instructions and input ports write."""
    spans = [operand.extent for instruction in program.instructions for operand in instruction.writes()]
    return np.array(spans + [port.operand.extent for port in program.inputs if not port.streamed], np.int64).reshape(
        -1, 2
    )


def _meets(low: int, high: int, spans: np.ndarray) -> bool:
    return bool(((spans[:, 0] < high) & (spans[:, 1] > low)).any())
