"""Running a chain: every step checked once when it is read, its shapes and their bytes known before anything is
allocated."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tvm_ergo.chain.described import FORMAT
from tvm_ergo.chain.steps import DTYPES, STEPS, Type, require, shape_of
from tvm_ergo.codegen.runtime.launcher import Launcher, load, same_shape
from tvm_ergo.target.errors import ProgramError
from tvm_ergo.target.limits import Declared
from tvm_ergo.target.program import Program

PORT_DTYPES = {"I8": "int8", "U8": "uint8", "I16": "int16", "I32": "int32"}


@dataclass(frozen=True)
class Chain:
    """A network's steps, ready to run.

    data : what `described` gave, checked by `of`. programs : bytes by symbol. types : shape and dtype of every value.
    constants : arrays."""

    data: Mapping
    programs: Mapping[str, bytes]
    types: Sequence[Type]
    constants: Sequence[np.ndarray]
    inputs: int

    @classmethod
    def of(
        cls,
        data,
        inputs: Sequence[Type],
        outputs: Sequence[Type],
        programs: Mapping[str, bytes],
        decoded: Mapping[str, Program],
        source: str,
        declared: Declared | None = None,
    ) -> Chain:
        """inputs, outputs : the model's, as ``(shape, dtype)``. decoded : the Programs. declared : what the file has
        asked for before. Errors: ProgramError for what
        is no chain between them."""
        declared = declared or Declared(source, error=ProgramError)
        try:
            made = cls._of(data, inputs, outputs, programs, decoded, declared)
            declared.check()
            return made
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            declared.check()
            raise ProgramError(
                "the chain of the model's Programs is damaged",
                where=source,
                available=f"{error}"[:200],
                remedy="compile the model again",
            ) from None

    @classmethod
    def _of(cls, data, inputs, outputs, programs, decoded, declared: Declared) -> Chain:
        require(isinstance(data, dict) and data.get("format") == FORMAT, f"its format is not {FORMAT}")
        constants = [_constant(c) for c in data["constants"]]
        types: list[Type] = [*inputs, *((c.shape, c.dtype.name) for c in constants)]
        for number, (op, operands, params) in enumerate(data["steps"]):
            given = [types[_number(at, len(types))] for at in operands]
            require(isinstance(params, dict), f"step {number} has no parameters")
            made = _called(params, given, decoded) if op == "call" else [STEPS[op][0](params, *given)]
            for shape, dtype in made:
                declared.note_tensor(shape, np.dtype(dtype).itemsize, f"step {number}")
            types += made
        found = [types[_number(at, len(types))] for at in data["outputs"]]
        require(found == list(outputs), f"it gives {found}, where the model gives {list(outputs)}")
        return cls(data, programs, tuple(types), tuple(constants), len(inputs))

    @cached_property
    def _launchers(self) -> dict[str, Launcher]:
        return {symbol: load(symbol, data) for symbol, data in self.programs.items()}

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The model's outputs. arrays : its inputs, in order, of exactly their shapes and dtypes."""
        values: list[np.ndarray] = [*arrays, *self.constants]
        with np.errstate(all="ignore"):
            for op, operands, params in self.data["steps"]:
                given = [values[at] for at in operands]
                values += self._call(params, given) if op == "call" else [STEPS[op][1](params, *given)]
        return [np.array(values[at], order="C") for at in self.data["outputs"]]  # copies: an output may be an input

    def _call(self, params: Mapping, given: Sequence[np.ndarray]) -> list[np.ndarray]:
        launcher = self._launchers[params["symbol"]]
        ports = launcher.program.inputs
        # a copy: a recorded call keeps its inputs
        results = launcher.run(
            {port.name: np.array(array, order="C").reshape(port.operand.shape) for port, array in zip(ports, given)}
        )
        return [results[port.name].reshape(shape) for port, shape in zip(launcher.program.outputs, params["shapes"])]


def _number(at, count: int) -> int:
    require(type(at) is int and 0 <= at < count, f"{str(at)[:40]!r} is no value before it")
    return at


def _constant(stored) -> np.ndarray:
    dtype, shape, text = stored
    require(dtype in DTYPES, "a constant's dtype is unknown")
    shape, content = shape_of(shape), base64.b64decode(text, validate=True)
    require(len(content) == math.prod(shape) * np.dtype(dtype).itemsize, "a constant has another size than its shape")
    return np.frombuffer(content, np.dtype(dtype).newbyteorder("<")).astype(dtype).reshape(shape)


def _called(params: Mapping, given: Sequence[Type], decoded: Mapping[str, Program]) -> list[Type]:
    program = decoded[params["symbol"]]
    shapes = [shape_of(s) for s in params["shapes"]]
    for ports, types in ((program.inputs, given), (program.outputs, [(s, None) for s in shapes])):
        require(
            len(ports) == len(types),
            f"Program {params['symbol']!r} has {len(program.inputs)} inputs and {len(program.outputs)} outputs",
        )
        for port, (shape, dtype) in zip(ports, types):
            fits = same_shape(shape, port.operand.shape) and dtype in (None, PORT_DTYPES[port.operand.dtype.name])
            require(
                fits,
                f"port {port.name!r} takes {port.operand.dtype.name}{list(port.operand.shape)}, not "
                f"{dtype}{list(shape)}",
            )
    return [(shape, PORT_DTYPES[port.operand.dtype.name]) for shape, port in zip(shapes, program.outputs)]
