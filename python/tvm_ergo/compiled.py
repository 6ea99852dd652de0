"""A compiled model: running it, what it cost, saving and loading it."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import tvm
from tvm import relax

from tvm_ergo import container
from tvm_ergo.accuracy import Accuracy
from tvm_ergo.chain import Chain
from tvm_ergo.codegen.runtime.native import programs_of
from tvm_ergo.codegen.runtime.recording import ChipCall, record
from tvm_ergo.files import write_atomically
from tvm_ergo.frontend import TensorInfo
from tvm_ergo.frontend.imported import StateInfo
from tvm_ergo.model_meta import EntryMeta, Meta, stored_state
from tvm_ergo.relay_passes import compat
from tvm_ergo.relay_passes.macro.choose_ranks import Projection
from tvm_ergo.relay_passes.micro.lower_quantized import HostFallback
from tvm_ergo.relay_passes.port_scales import INFINITE_MASK, how_to_quantize
from tvm_ergo.states import Kept
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.errors import InputError, ProgramError
from tvm_ergo.target.limits import Declared, parsed_json, whole
from tvm_ergo.target.program import Program
from tvm_ergo.tokenizer import Tokenizer

_making = threading.Lock()  # a virtual machine looks its functions up in runtime modules, which models may share


@dataclass(frozen=True)
class RunResult:
    """outputs : arrays by the model's output names. calls : every call of the chip, in order, with its trace. states :
    what the run leaves to the next one."""

    outputs: dict[str, np.ndarray]
    calls: tuple[ChipCall, ...]
    states: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def traces(self) -> dict[str, object]:
        """Trace by symbol (of the last call of each)."""
        return {call.symbol: call.trace for call in self.calls}

    @property
    def compressed(self) -> list[dict]:
        """What the chip compressed: symbol, node, name, tiles, reduced (tiles that lost low bits), by_dropped[d] (tiles
        that lost d)."""
        return [{"symbol": call.symbol, **count.to_json()} for call in self.calls for count in call.compressed]


@dataclass(frozen=True)
class CompiledModel:
    """A network compiled for a chip.

    module : the TVM runtime module; None where a file held no library, or it was not to be loaded. chip : what it was
    compiled for. inputs, outputs : names, shapes, dtypes of the source model.
    fallbacks : operators on the host CPU, with reason and remedy. source : the model's file. quantized, lowered : the
    Relax module after quantization and in the integer dialect; reference : the network before quantization, in normal
    form; executable : TVM's;
    equalized : the float network whose tensors the chip's stand for (None: reference); projection : what became of the
    tensors kept in fewer channels (None: not asked for); sample : one calibration input by name. All None in a loaded
    model. library : the shared library that a loaded model came from. chain : what runs instead of a module where
    nothing but Programs does the work (`tvm_ergo.chain`). carried : bytes of a file's Programs, by symbol. states :
    tensors that live from one run to the next. accuracy : what quantization lost (None: nothing was quantized here).
    entries : Programs for fewer tokens, and for writing token by token (`tvm_ergo.entries.Entry`), in the same memory.
    tokenizer : the vocabulary that came with the model.
    file : the compiled file that a loaded model came from; messages name it. notes : what to know of how it was
    compiled.
    """

    module: tvm.runtime.Module | None
    chip: Chip
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    fallbacks: tuple[HostFallback, ...]
    source: str
    quantized: tvm.IRModule | None = field(default=None, repr=False, compare=False)
    lowered: tvm.IRModule | None = field(default=None, repr=False, compare=False)
    reference: tvm.IRModule | None = field(default=None, repr=False, compare=False)
    executable: object = field(default=None, repr=False, compare=False)
    equalized: tvm.IRModule | None = field(default=None, repr=False, compare=False)
    projection: Projection | None = field(default=None, repr=False, compare=False)
    sample: dict[str, np.ndarray] | None = field(default=None, repr=False, compare=False)
    library: bytes | None = field(default=None, repr=False, compare=False)
    chain: dict | Chain | None = field(default=None, repr=False, compare=False)
    carried: dict[str, bytes] | None = field(default=None, repr=False, compare=False)
    states: tuple[StateInfo, ...] = ()
    accuracy: Accuracy | None = field(default=None, repr=False, compare=False)
    entries: tuple = field(default=(), repr=False, compare=False)
    tokenizer: Tokenizer | None = field(default=None, repr=False, compare=False)
    file: str = field(default="", repr=False, compare=False)
    notes: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def __repr__(self) -> str:
        def listed(tensors):
            return ", ".join(map(str, tensors))

        return (
            f"CompiledModel({self.source or 'module'} for {self.chip.name}: ({listed(self.inputs)}) -> "
            f"({listed(self.outputs)}); "
            f"{len(self.programs)} programs, {len(self.fallbacks)} operators on the host CPU)"
        )

    @cached_property
    def programs(self) -> dict[str, Program]:
        """Every Program by its symbol."""
        found = {data: Program.from_bytes(data) for data in set(self._program_bytes.values())}
        return {name: found[data] for name, data in sorted(self._program_bytes.items())}

    @property
    def _program_bytes(self) -> dict[str, bytes]:
        return programs_of(self.module) if self.carried is None else self.carried

    @cached_property
    def virtual_machine(self) -> relax.VirtualMachine:
        """A virtual machine of TVM for this model, on the CPU, for one thread at a time. `run` has its own."""
        return relax.VirtualMachine(self.module, tvm.cpu())

    @cached_property
    def _steps(self) -> Chain | None:
        """The chain, ready to run: to the bit what a virtual machine gives, without its time. None where operators stay
        on the host."""
        if self.chain is None or isinstance(self.chain, Chain):
            return self.chain
        types = [
            [(tuple(t.shape), t.dtype) for t in tensors]
            for tensors in (self.inputs + self.states, self.outputs + self.states)
        ]
        return Chain.of(self.chain, *types, self._program_bytes, self.programs, self.source)

    @cached_property
    def _idle(self) -> list[relax.VirtualMachine]:
        """Virtual machines that no run has now."""
        return []

    @contextmanager
    def _own_machine(self) -> Iterator[relax.VirtualMachine]:
        """A virtual machine that no other run has meanwhile: each has one stack."""
        try:
            machine = self._idle.pop()  # one step under the interpreter's lock, as `append` is
        except IndexError:
            with _making:
                machine = relax.VirtualMachine(self.module, tvm.cpu())
        try:
            yield machine
        finally:
            self._idle.append(machine)

    def run(self, inputs: dict[str, np.ndarray] | np.ndarray) -> RunResult:
        """One inference. ``inputs``: arrays by input name, of exactly the shape and dtype; for a model with one input,
        the array. Any number of threads may call it at a time (docs/reliability.md).

        Errors: InputError for a missing or unknown name, a wrong shape or dtype, or (where the chip computes) a value
        that is not finite; ProgramError where the model has operators on the host and was loaded with
        ``programs_only``.

        Of a model with entries the arrays may have fewer tokens (axis 1): the smallest entry that holds them runs, and
        outputs have as many rows."""
        if self.module is None and self.chain is None:
            raise ProgramError(
                "the model does not run by its Programs alone",
                where=self.file or self.source,
                available=self._why_not_alone,
                remedy="give the model file (.onnx, .tflite); or, if you trust whoever made this one, `tvm-ergo run` "
                "it without --programs-only "
                "(load it without programs_only): the machine code in it then runs",
            )
        if self.entries:
            from tvm_ergo.entries import run_short

            result = run_short(self, self._by_name(inputs))
            if result is not None:
                return result
        with self.kept.turn if self.states else nullcontext():
            arrays = self.check_inputs(inputs)
            with record() as calls:
                values = self._on_machine(arrays) if self._steps is None else self._steps.run(arrays)
            names = [t.name for t in (*self.outputs, *self.states)]
            found = list(zip(names, values, strict=True))
            left = dict(found[len(self.outputs) :])
            self.kept.values = {name: np.array(v) for name, v in left.items()}  # the caller may write into the others
        return RunResult(dict(found[: len(self.outputs)]), tuple(calls), left)

    @cached_property
    def kept(self) -> Kept:
        """The values of the states between two runs."""
        return Kept(self.states)

    @property
    def state(self) -> dict[str, np.ndarray]:
        """What the last run left to the next one, by name; before the first run, the file's own first values."""
        return {name: array.copy() for name, array in self.kept.values.items()}

    def set_state(self, values: dict[str, np.ndarray]) -> None:
        """Gives states values (those of `state`, kept from an earlier run, for instance). Errors: InputError."""
        self.kept.set(values)

    def reset(self) -> None:
        """The next run is as the first."""
        self.kept.reset()

    def _on_machine(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        with self._own_machine() as machine:
            result = machine["main"](*[tvm.runtime.tensor(a) for a in arrays])
            return [tensor.numpy() for tensor in compat.flatten_result(result)]

    def generate(self, prompt="", *, tokens: int = 100, temperature: float = 0.0, top_k: int = 0, seed: int = 0):
        """Text written by a model that was compiled to (``generate=True``): see `tvm_ergo.generation.generate`."""
        from tvm_ergo.generation import generate

        return generate(self, prompt, tokens=tokens, temperature=temperature, top_k=top_k, seed=seed)

    def _by_name(self, inputs: dict[str, np.ndarray] | np.ndarray) -> dict[str, np.ndarray]:
        """Inputs as a dict. Errors: InputError for an array where the model has several inputs."""
        if isinstance(inputs, dict):
            return inputs
        if len(self.inputs) != 1:
            raise InputError(
                "the model has several inputs",
                required=f"a dict by name: {', '.join(map(str, self.inputs))}",
                available=type(inputs).__name__,
                remedy=f"give {{{', '.join(f'{i.name!r}: array' for i in self.inputs)}}}",
            )
        return {self.inputs[0].name: inputs}

    def check_inputs(self, inputs: dict[str, np.ndarray] | np.ndarray) -> list[np.ndarray]:
        """The inputs in the model's order, and behind them the states: as the last run left them, where they are not
        given. Errors: InputError."""
        listing = ", ".join(map(str, self.inputs))
        inputs = self._by_name(inputs)
        if self.states:
            inputs = {**self.kept.values, **inputs}
        names = {i.name for i in (*self.inputs, *self.states)}
        if set(inputs) != names:
            raise InputError(
                "the inputs are not those of the model",
                required=listing,
                available=", ".join(map(str, inputs)) or "none",
                remedy="name the arrays so: "
                + ", ".join(f"--input {i.name}=FILE.npy" for i in self.inputs)
                + "; in Python run({"
                + ", ".join(f"{i.name!r}: array" for i in self.inputs)
                + "})",
            )
        finite = bool(self.programs)  # the host knows NaN and infinity
        return [checked_input(info, inputs[info.name], finite) for info in (*self.inputs, *self.states)]

    def run_float(self, inputs: dict[str, np.ndarray] | np.ndarray) -> list[np.ndarray]:
        """Outputs of the network before quantization, evaluated in float by NumPy; states are read and not changed.
        Errors: InputError, also in a loaded model."""
        feeds = self.reference_inputs(inputs)  # first: it says so where there is no float network
        return self._interpreter.run(feeds)[: len(self.outputs)]

    def reference_inputs(self, inputs: dict[str, np.ndarray] | np.ndarray) -> dict[str, np.ndarray]:
        """The checked inputs under the names of the reference module's parameters."""
        if self.reference is None:
            raise InputError(
                "a loaded model does not hold the float network",
                where=self.file or self.source,
                remedy="compile from the model file",
            )
        return dict(zip((str(p.name) for p in self.reference["main"].params), self.check_inputs(inputs)))

    @cached_property
    def _interpreter(self):
        from tvm_ergo.relay_passes.interpreter import Interpreter

        return Interpreter(self.reference)

    # ---- files ----
    def save(self, path: str | Path) -> None:
        """Writes the model as one file with a checksum; nothing is left behind on failure. Errors: OutputError."""
        write_atomically(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """The file that `save` writes."""
        meta = {
            "chip": self.chip.to_json(),
            "source": self.source,
            "inputs": [asdict(i) for i in self.inputs],
            "outputs": [asdict(o) for o in self.outputs],
            "fallbacks": [asdict(f) for f in self.fallbacks],
        }
        if self.states:
            meta["states"] = [stored_state(s) for s in self.states]
        if self.entries:
            from tvm_ergo import entry_files

            meta["entries"] = [entry_files.described(e) for e in self.entries]
        head = {"meta": json.dumps(meta).encode()}
        if self.tokenizer is not None:
            head["tokenizer"] = self.tokenizer.to_bytes()
        if self.entries:
            return container.packed({**head, **entry_files.sections(self)})
        if self.chain is not None:
            return container.packed(
                {
                    **head,
                    "chain": json.dumps(self.chain_data).encode(),
                    **container.program_sections(self._program_bytes, None),
                }
            )
        # `module` may hold a library linked for this process only, which cannot be written: the executable or the
        # file's bytes can
        library = self.library or container.library_bytes(self.executable or self.module)
        return container.packed(
            {**head, "library": library, **container.program_sections(self._program_bytes, library)}
        )

    @property
    def chain_data(self) -> dict | None:
        """The chain as JSON."""
        return self.chain.data if isinstance(self.chain, Chain) else self.chain

    @property
    def is_code(self) -> bool:
        """Whether the file that `save` writes holds machine code: operators stay on the host CPU."""
        return self.chain is None

    @property
    def _why_not_alone(self) -> str:
        hosts = ", ".join(sorted({f.op for f in self.fallbacks})[:8])
        return (
            f"host operators: {hosts}"
            if hosts
            else "a library, as all files of the format's first version have; compiled again it may need none"
        )

    @classmethod
    def load(cls, path: str | Path, *, programs_only: bool = False) -> CompiledModel:
        """Reads what `save` wrote.

        A file with host operators holds a shared library, which is machine code: loading it runs what its maker wrote.
        programs_only : never load one; such a model can be looked at, not run. Files without host operators hold no
        code. Errors: ProgramError if the file cannot be read, is no such file, or any of its bits changed."""
        if not isinstance(path, (str, os.PathLike)):
            raise InputError(
                "this is no path of a compiled model",
                required="a str or pathlib.Path",
                available=type(path).__name__,
                remedy="give the path of a file that CompiledModel.save or `tvm-ergo compile -o` wrote",
            )
        with whole():
            return cls._of(container.read(Path(path)), str(path), programs_only)

    @classmethod
    def _of(cls, sections: dict[str, bytes], path: str, programs_only: bool) -> CompiledModel:
        library, chain = sections.get("library"), None
        declared = Declared(path, error=ProgramError)
        found = Meta.read(sections, path, declared)
        entries = ()
        try:
            carried = container.programs_in(sections)
            tokenizer = Tokenizer.from_bytes(sections["tokenizer"]) if "tokenizer" in sections else None
        except (ValueError, TypeError, KeyError, InputError) as error:
            raise ProgramError(
                f"the model file lacks a part: {error}", where=path, remedy="compile the model again"
            ) from None
        if found.entries:
            from tvm_ergo import entry_files

            carried, entries = entry_files.read(sections, found, path, declared)
        if library is None:
            if "chain" not in sections:
                raise ProgramError(
                    "the model file lacks a part: it has neither a chain of Programs nor a library",
                    where=path,
                    remedy="compile the model again",
                )
            chain = chain_of(sections["chain"], found, carried, path, declared)
        declared.check()
        module = None if library is None or programs_only else container.library_module(library)
        # what a library holds is what it runs, whatever the file says of places
        return cls(
            module,
            found.chip,
            found.inputs,
            found.outputs,
            found.fallbacks,
            found.source,
            library=library,
            chain=chain,
            carried=carried if module is None else None,
            states=found.states,
            entries=entries,
            tokenizer=tokenizer,
            file=path,
        )

    # ---- copies ----
    def __reduce__(self):
        """Pickled as the file that `save` writes: another process has the model as `load` gives it, its states as
        before the first run. Like every pickle it is for processes that trust each other: one with host operators holds
        machine code."""
        return _unpickled, (self.to_bytes(), self.module is None and self.chain is None)

    def __copy__(self) -> CompiledModel:
        return replace(self)  # its parts never change; virtual machines and states are its own

    def __deepcopy__(self, memo) -> CompiledModel:
        return replace(self)


def _unpickled(data: bytes, programs_only: bool) -> CompiledModel:
    return CompiledModel._of(container.unpacked(data, "a pickled model"), "a pickled model", programs_only)


def load(path: str | Path, *, programs_only: bool = False) -> CompiledModel:
    """As `CompiledModel.load`."""
    return CompiledModel.load(path, programs_only=programs_only)


def chain_of(
    content: bytes, found: Meta | EntryMeta, carried: dict[str, bytes], path: str, declared: Declared
) -> Chain:
    """The chain of a model's file between the ports that it says of the model. Errors: ProgramError."""
    try:
        data = parsed_json(content)
    except ValueError as error:
        raise ProgramError(
            f"the chain of the model's Programs is not JSON: {error}", where=path, remedy="compile the model again"
        ) from None
    programs = {symbol: Program.from_bytes(content) for symbol, content in carried.items()}
    types = [
        [(tuple(t.shape), t.dtype) for t in tensors]
        for tensors in (found.inputs + found.states, found.outputs + found.states)
    ]
    return Chain.of(data, *types, carried, programs, path, declared)


def _remedy(info: TensorInfo, array: np.ndarray) -> str | None:
    want = tuple(info.shape)
    if array.shape == want:
        if np.dtype(info.dtype).kind in "iu" and array.dtype.kind == "f":
            return how_to_quantize(info.dtype, info.scale, info.zero_point)
        return f"array.astype({info.dtype!r})"
    if array.shape == want[1:]:
        return "the first axis is missing: array[None]"
    if array.ndim == len(want) and array.shape[1:] == want[1:]:
        return "one inference takes one of them: array[i:i + 1]; `tvm-ergo eval` runs a whole data set"
    if array.ndim == len(want) == 4 and array.shape[1:] in (want[2:] + want[1:2], want[3:] + want[1:3]):
        axes = (0, 3, 1, 2) if array.shape[1:] == want[2:] + want[1:2] else (0, 2, 3, 1)
        return f"the channels are at the other end: numpy.transpose(array, {axes})"
    if array.size == math.prod(want):
        return f"where the elements are in this order: array.reshape({list(want)})"
    return f"bring it to {list(want)}, as for the network's training; `tvm-ergo report` lists what the inputs take"


def checked_input(info: TensorInfo, value, finite: bool) -> np.ndarray:
    """The array of one input, its dtype native and its elements in C order. Errors: InputError."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(
            "an input is no array",
            where=f"input {info.name!r}",
            required=f"{info.dtype}{list(info.shape)}",
            available=str(error),
            remedy="give an array of numbers, all rows of one length",
        ) from None
    if np.ma.is_masked(value):
        raise InputError(
            "an input is a masked array, and the network knows no masks",
            where=f"input {info.name!r}",
            available=f"{int(np.ma.count_masked(value))} of {array.size} values masked",
            remedy="fill them: array.filled(0)",
        )
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.name != info.dtype or array.shape != tuple(info.shape):
        raise InputError(
            "an input has the wrong shape or dtype",
            where=f"input {info.name!r}",
            required=info.content,
            available=f"{array.dtype.name}{list(array.shape)}",
            remedy=_remedy(info, array),
        )
    if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(
            "an input holds NaN or infinite values",
            where=f"input {info.name!r}",
            available=f"{int((~np.isfinite(array)).sum())} of {array.size} values",
            remedy=INFINITE_MASK if np.isneginf(array[~np.isfinite(array)]).all() else "",
        )
    return np.asarray(array, order="C")  # ascontiguousarray would make rank 0 rank 1
