"""``tvm_ergo.export_c``: a compiled network as a folder of C that runs on any processor with a C11 compiler."""

from __future__ import annotations

import base64
import math
from pathlib import Path

import numpy as np

from tvm_ergo.chain.run import Chain
from tvm_ergo.compiled import CompiledModel
from tvm_ergo.files import write_folder
from tvm_ergo.target.errors import InputError, UnsupportedError
from tvm_ergo.target.native.export import Exported, exported
from tvm_ergo.target.native.exported_states import PortState
from tvm_ergo.target.program import Program

KEEPS_VALUES = ("reshape", "transpose", "cast")
Scale = tuple[float, int]


def export_c(model: CompiledModel, folder: str | Path, *, name: str | None = None) -> Exported:
    """Writes the runtime's sources (only the instructions used), the network as an array, a header, an example
    ``main.c``, a Makefile, a CMake file and two boards.

    folder : new or empty. name : of the network in C (default: the source file's). Inputs and outputs are the chip's
    own integers; the header says what they
    stand for. Returns what was written and the RAM it needs.
    Errors: UnsupportedError for a network of which a part stays on the host CPU, or that keeps values between runs in
    another form than it takes them; ModelError for an instruction that the runtime in C does not have; OutputError.
    """
    symbol, program = _the_program(model)
    name = name or Path(model.source).name.partition(".")[0] or symbol
    found = exported(program, name, port_scales(model, symbol, program), port_states(model, program))
    write_folder(folder, found.files)
    return found


def _the_program(model: CompiledModel) -> tuple[str, Program]:
    """Symbol and Program of a network that is one call of the chip. Errors: InputError, UnsupportedError."""
    if model.fallbacks:
        raise UnsupportedError(
            "a part of this network runs on the host CPU, which exported C has not",
            where=model.file or model.source,
            available=", ".join(sorted({f.op for f in model.fallbacks})),
            remedy="compile with --strict: it says for each operator what would put it on the chip",
        )
    if len(model.programs) != 1:
        raise InputError(
            f"this model has {len(model.programs)} Programs",
            where=model.file or model.source,
            required="one",
            available=", ".join(model.programs) or "none",
            remedy="compile with --strict: nothing then splits the network",
        )
    return next(iter(model.programs.items()))


class _Chain:
    """The host's steps around the one call of the chip: which stored integers its ports stand for.

    known, wanted : scale and zero point by the number of a value: of what the chip is given, of what is made of its
    results. source, sink : which input of the model a value is, and which port's value an output is, where only its
    form changes on the way."""

    def __init__(self, model: CompiledModel, data: dict):
        inputs = (*model.inputs, *model.states)
        constants = {len(inputs) + i: _array(stored) for i, stored in enumerate(data["constants"])}
        self.known: dict[int, Scale] = {i: (t.scale, t.zero_point) for i, t in enumerate(inputs) if t.scale is not None}
        self.wanted: dict[int, Scale] = {
            at: (t.scale, t.zero_point)
            for at, t in zip(data["outputs"], (*model.outputs, *model.states))
            if t.scale is not None
        }
        self.source, self.sink = {i: i for i in range(len(inputs))}, {at: at for at in data["outputs"]}
        self.outputs, steps, at = data["outputs"], [], len(inputs) + len(constants)
        for op, operands, params in data["steps"]:
            steps.append((op, operands, at))
            at += len(params["shapes"]) if op == "call" else 1
        for op, operands, result in steps:  # forwards: what the chip is given
            if op == "quantize" and (scale := _scale(constants, operands)):
                self.known[result] = scale
            elif op in KEEPS_VALUES and operands[0] in self.known:
                self.known[result] = self.known[operands[0]]
            if op in ("quantize", "reshape") and operands[0] in self.source:
                self.source[result] = self.source[operands[0]]
        for op, operands, result in reversed(steps):  # backwards: what is made of its results
            if op == "dequantize" and (scale := _scale(constants, operands)):
                self.wanted[operands[0]] = scale
            elif op in KEEPS_VALUES and result in self.wanted:
                self.wanted.setdefault(operands[0], self.wanted[result])
            if op in ("dequantize", "reshape") and result in self.sink:
                self.sink.setdefault(operands[0], self.sink[result])
        _, self.operands, self.first = next(step for step in steps if step[0] == "call")


def _chain(model: CompiledModel) -> _Chain | None:
    data = model.chain.data if isinstance(model.chain, Chain) else model.chain
    return None if data is None else _Chain(model, data)


def port_scales(model: CompiledModel, symbol: str, program: Program) -> dict[str, Scale]:
    """``(scale, zero point)`` of each port for which one of each holds, by the port's name: of integer inputs and
    outputs of the model, or of how the host makes and reads them."""
    chain = _chain(model)
    if chain is None:
        return {}
    ports = {port.name: chain.known[o] for port, o in zip(program.inputs, chain.operands) if o in chain.known}
    results = ((port.name, chain.first + i) for i, port in enumerate(program.outputs))
    return ports | {name: chain.wanted[at] for name, at in results if at in chain.wanted}


def port_states(model: CompiledModel, program: Program) -> tuple[PortState, ...]:
    """What the network keeps from one run to the next, as ports of its Program. Errors: UnsupportedError where the
    Program takes a state in other integers than it leaves."""
    if not model.states:
        return ()
    chain, found = _chain(model), []
    for number, state in enumerate(model.states):
        kept = chain and _port_state(chain, state, len(model.inputs) + number, len(model.outputs) + number, program)
        if not kept:
            raise UnsupportedError(
                "this network keeps a value from one run to the next in another form than it takes it",
                where=f"state {state.name!r} of {model.source}",
                required="the same integers, scale and zero point on both sides of a run",
                remedy="export the network without its states as inputs and outputs",
            )
        found.append(kept)
    return tuple(found)


def _port_state(chain: _Chain, state, taken: int, left: int, program: Program) -> PortState | None:
    """One state; None where its ports are not found or do not fit each other."""
    inputs = [i for i, o in enumerate(chain.operands) if chain.source.get(o) == taken]
    outputs = [i for i in range(len(program.outputs)) if chain.sink.get(chain.first + i) == chain.outputs[left]]
    if len(inputs) != 1 or len(outputs) != 1:
        return None
    before, after = program.inputs[inputs[0]], program.outputs[outputs[0]]
    scale, at = chain.known.get(chain.operands[inputs[0]]), chain.first + outputs[0]
    if before.streamed or before.operand.dtype != after.operand.dtype or before.operand.shape != after.operand.shape:
        return None
    initial = np.asarray(state.initial)
    if initial.dtype != before.operand.dtype.numpy:
        if scale is None or scale != chain.wanted.get(at):
            return None
        limits = np.iinfo(before.operand.dtype.numpy)
        initial = np.clip(np.rint(initial / np.float32(scale[0])) + scale[1], limits.min, limits.max)
    elif scale != chain.wanted.get(at):
        return None
    stored = np.ascontiguousarray(initial, before.operand.dtype.numpy)
    shared = chain.outputs.count(chain.outputs[left]) > 1
    return PortState(state.name, inputs[0], outputs[0], stored.tobytes(), hidden=not shared)


def _array(stored) -> np.ndarray:
    """A constant as chains hold it."""
    dtype, shape, text = stored
    return np.frombuffer(base64.b64decode(text), np.dtype(dtype).newbyteorder("<")).reshape(shape)


def _scale(constants: dict, operands: list[int]) -> Scale | None:
    """Of a quantize or dequantize with one scale and zero point."""
    found = [constants.get(at) for at in operands[1:3]]
    if any(array is None or math.prod(array.shape) != 1 for array in found):
        return None
    return float(found[0].reshape(-1)[0]), int(found[1].reshape(-1)[0])
