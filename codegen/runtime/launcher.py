"""Runs a Program when the TVM virtual machine calls its symbol.

`load` is what the native module calls (global function ``tvm_ergo.runtime.load``): it decodes and checks the Program
once and returns the function for the symbol. That function takes the inputs and then, as destination-passing callers
do, the outputs to write; without outputs it returns them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from weakref import WeakValueDictionary

import numpy as np

from tvm_ergo.codegen.runtime.recording import ChipCall, Watched, recorders, watchers
from tvm_ergo.target.environment import STRICT, debug_level
from tvm_ergo.target.errors import InputError
from tvm_ergo.target.isa import DType, Operand
from tvm_ergo.target.machine import Machine
from tvm_ergo.target.program import Port, Program

_machines: WeakValueDictionary[tuple[bytes, bool], Machine] = WeakValueDictionary()


def load(symbol: str, data: bytes) -> Callable:
    """The callable of one symbol. Errors: ProgramError if ``data`` is not an intact Program."""
    data = bytes(data)
    strict = STRICT.value == "1" or debug_level() >= 4
    key = hashlib.sha256(data).digest(), strict
    machine = _machines.get(key)
    if machine is None:
        program = Program.from_bytes(data)
        machine = Machine(program, chip_of_program(program), strict=strict)
        _machines[key] = machine
    return Launcher(str(symbol), machine)


def chip_of_program(program: Program):
    """The chip a Program was compiled for: its own description in ``meta["chip"]`` where there is one, else by name.

    Errors: TargetError if the name is not that of a chip in the package.
    """
    from tvm_ergo.target.chip import Chip, chip

    described = program.meta.get("chip")
    return (
        Chip.from_json(described, "the program's meta")
        if described
        else chip(program.chip_name).with_memory(program.memory_bytes)
    )


class Launcher:
    """A Program bound to its symbol; the machine (decoded weights and constants) stays between calls."""

    def __init__(self, symbol: str, machine: Machine):
        self.symbol, self.machine, self.program = symbol, machine, machine.program

    def __call__(self, *args):
        inputs, outputs = self.program.inputs, self.program.outputs
        if len(args) not in (len(inputs), len(inputs) + len(outputs)):
            raise InputError(
                f"the chip function takes {len(inputs)} inputs (and {len(outputs)} outputs to write), got {len(args)} "
                f"arguments",
                where=self.symbol,
                required=", ".join(describe(p) for p in (*inputs, *outputs)),
            )
        values = {port.name: self._input(port, tensor) for port, tensor in zip(inputs, args)}
        for port, tensor in zip(outputs, args[len(inputs) :]):
            self._check(port, tensor)
        results = self.run(values)
        if len(args) > len(inputs):
            for port, tensor in zip(outputs, args[len(inputs) :]):
                tensor.copyfrom(results[port.name].reshape(tuple(int(n) for n in tensor.shape)))
            return None
        return self._returned([results[port.name] for port in outputs])

    def run(self, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the chip on arrays by port name, telling the open recorders and watchers."""
        watching = watchers()
        result = self.machine.run(values, watch=self._teller(watching)) if watching else self.machine.run(values)
        call = ChipCall(self.symbol, self.program, values, result.outputs, result.trace, result.compressed)
        for calls in recorders():
            calls.append(call)
        return result.outputs

    def _teller(self, watching):
        """The machine's hook: after an instruction, hands out the tensors it completed (the Program's meta says which)
        and stores what comes back."""
        completed: dict[int, list[tuple[Watched, Operand]]] = {}
        for t in self.program.meta.get("tensors", ()):
            operand = Operand(
                t["addr"],
                DType.of(t["dtype"]),
                tuple(t["shape"]) or (1,),
                tuple(t["strides"]) or (DType.of(t["dtype"]).itemsize,),
            )
            about = Watched(self.symbol, t["name"], t["layer"], t["op"], t["out_scale"], t["out_zp"])
            completed.setdefault(t["instructions"] - 1, []).append((about, operand))

        def tell(index, _instruction, memory):
            for about, operand in completed.get(index, ()):
                value = memory.view(operand).copy()
                for watcher in watching:
                    if (replacement := watcher(about, value)) is not None:
                        check_replacement(about, value, replacement)
                        memory.view(operand)[...] = value = replacement

        return tell

    def _check(self, port: Port, tensor) -> None:
        shape, dtype = tuple(int(n) for n in tensor.shape), str(tensor.dtype)
        if dtype != dtype_name(port) or not same_shape(shape, port.operand.shape):
            raise InputError(
                f"tensor {port.name!r} has the wrong shape or dtype",
                where=self.symbol,
                required=describe(port),
                available=f"{dtype}{list(shape)}",
            )

    def _input(self, port: Port, tensor) -> np.ndarray:
        self._check(port, tensor)
        # a copy: the caller may reuse the buffer, and a recorded call keeps its inputs
        return np.array(tensor.numpy(), copy=True).reshape(tuple(port.operand.shape))

    def _returned(self, arrays: list[np.ndarray]):
        import tvm

        tensors = [tvm.runtime.tensor(np.ascontiguousarray(a)) for a in arrays]
        return tensors[0] if len(tensors) == 1 else tensors


def check_replacement(about: Watched, value: np.ndarray, replacement: np.ndarray) -> None:
    """Errors: InputError where a watcher's answer cannot stand for the tensor."""
    if not isinstance(replacement, np.ndarray) or replacement.shape != value.shape or replacement.dtype != value.dtype:
        given = (
            f"{replacement.dtype}{list(replacement.shape)}"
            if isinstance(replacement, np.ndarray)
            else type(replacement).__name__
        )
        raise InputError(
            "a watcher's answer cannot replace the tensor",
            where=about.name,
            required=f"{value.dtype}{list(value.shape)}",
            available=given,
            remedy="return None to leave it as it is",
        )


def same_shape(shape: tuple[int, ...], port_shape: tuple[int, ...]) -> bool:
    """Whether a tensor's shape is the port's. A scalar is a port of shape (1,): operands have rank 1 at least."""
    return shape == tuple(port_shape) or (shape == () and tuple(port_shape) == (1,))


def dtype_name(port: Port) -> str:
    """TVM's name of a port's type."""
    return {"I8": "int8", "U8": "uint8", "I16": "int16", "I32": "int32"}[port.operand.dtype.name]


def describe(port: Port) -> str:
    """``name: int8[1, 32, 32, 3]``."""
    return f"{port.name}: {dtype_name(port)}{list(port.operand.shape)}"
