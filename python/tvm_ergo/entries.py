"""One network, several Programs: for fewer tokens than the longest sequence, and to write token by token.

Every entry is a compiled model of its own; all of them lie in one memory, with each constant once
(`codegen.shared`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import tvm

from tvm_ergo.chain import described
from tvm_ergo.codegen.byoc import program_of_function
from tvm_ergo.codegen.choices import Weights
from tvm_ergo.codegen.shared import shared
from tvm_ergo.compiled import CompiledModel
from tvm_ergo.frontend.imported import StateInfo, TensorInfo
from tvm_ergo.pipeline import PipelineOptions, fallbacks_of, run_stages
from tvm_ergo.relay_passes.attention import lengths as shorter
from tvm_ergo.relay_passes.attention import lower, steps
from tvm_ergo.relay_passes.compile.partition import chip_functions
from tvm_ergo.relay_passes.micro.weights import WeightScale
from tvm_ergo.target.errors import InputError, UnsupportedError
from tvm_ergo.target.program import Program
from tvm_ergo.waiting import Compression

PARTS_OF_ALL = (8, 4, 2)
"""Without other lengths, entries are made for the whole sequence divided by these."""


class Kind(StrEnum):
    """What an entry does."""

    WHOLE = "whole"  # all outputs of so many tokens
    PREFILL = "prefill"  # the same, keys and values are kept
    DECODE = "decode"  # one token more, which sees so many positions


@dataclass(frozen=True)
class Entry:
    """length : tokens it takes; of a decode, positions that it sees. pads : whether shorter inputs may be filled up
    with zeros: nothing sees those."""

    kind: Kind
    length: int
    pads: bool
    model: CompiledModel

    @property
    def name(self) -> str:
        return f"{self.kind.value}_{self.length}"


@dataclass(frozen=True)
class Wanted:
    """lengths : tokens of the entries beside the whole sequence. generate : prefill and decode are among them."""

    lengths: tuple[int, ...]
    generate: bool = False


def checked(lengths, generate: bool, whole: int | None) -> Wanted | None:
    """What is asked for; None where nothing is. whole : tokens the network takes. Errors: InputError."""
    if not lengths and not generate:
        return None
    if whole is None or whole < 2:
        raise InputError(
            "the network takes no sequence of tokens",
            required="inputs with an axis of tokens behind the batch",
            remedy="leave out lengths and generate",
        )
    found = sorted({int(n) for n in lengths or {whole // part for part in PARTS_OF_ALL} if lengths or whole // 8 > 1})
    if any(not 2 <= n <= whole for n in found):
        raise InputError(
            "a length is no number of tokens of the network",
            where="lengths (--lengths)",
            required=f"2 to {whole}",
            available=", ".join(map(str, found)),
            remedy="give lengths in that range, none twice",
        )
    return Wanted(tuple(n for n in found if n < whole), generate)


def with_entries(
    compiled: CompiledModel, seen: lower.Seen | None, options: PipelineOptions, wanted: Wanted
) -> CompiledModel:
    """The model with its entries, all in one memory; its own Program is that for the whole sequence. seen : what
    calibration saw. Errors: UnsupportedError where anything stays on the host."""
    if seen is None:
        raise UnsupportedError(
            "there are no shorter sequences of this network",
            required="a float network with attention, whole on the chip, and calibration data",
            remedy="leave out lengths and generate (--lengths, --generate)",
        )
    options = replace(
        options, weights=Weights.DENSE, compression=Compression.OFF, database=None, calibration=None, stream=False
    )
    made = dict(_modules(compiled, seen, WeightScale(options.quantize.weight_scale), wanted))
    built = {name: _built(name, mod, options) for name, (_, mod, _) in made.items()}
    programs = shared({name: program for name, (_, program) in built.items()}, options.chip.memory_bytes)
    found = {}
    for name, (head, _, caches) in made.items():
        model = CompiledModel(
            None,
            compiled.chip,
            *_ports(compiled, made[name][1], head[0], len(caches)),
            (),
            compiled.source,
            chain=built[name][0],
            carried={name: programs[name].to_bytes()},
            states=caches,
        )
        found[name] = Entry(*head, model)
    main = found.pop("whole").model
    return replace(
        compiled, module=None, executable=None, chain=main.chain, carried=main.carried, entries=tuple(found.values())
    )


def _modules(compiled: CompiledModel, seen: lower.Seen, weight_scale: WeightScale, wanted: Wanted):
    """``(name, ((kind, length, pads), module in the integer dialect, states))`` of every entry, the whole first."""
    reference = compiled.reference
    whole, pads = shorter.tokens_of(reference), shorter.may_pad(reference)
    yield "whole", ((Kind.WHOLE, whole, pads), compiled.lowered, ())
    for n in wanted.lengths:
        if wanted.generate:
            stepped = steps.prefill(reference, seen, n, weight_scale)
            yield f"prefill_{n}", ((Kind.PREFILL, n, pads), stepped.mod, _states(stepped))
        else:
            made = lower.lower(shorter.at_length(reference, n), seen, weight_scale, whole=reference)
            yield f"whole_{n}", ((Kind.WHOLE, n, pads), made, ())
    for n in (*wanted.lengths, whole) if wanted.generate else ():
        stepped = steps.decode(reference, seen, n, weight_scale)
        yield f"decode_{n}", ((Kind.DECODE, n, False), stepped.mod, _states(stepped))


def _states(stepped: steps.Stepped) -> tuple[StateInfo, ...]:
    return tuple(
        StateInfo(c.name, c.shape, "int8", c.quant.scale, c.quant.zero_point, initial=np.zeros(c.shape, np.int8))
        for c in stepped.caches
    )


def _built(name: str, mod: tvm.IRModule, options: PipelineOptions) -> tuple[dict, Program]:
    """The chain and the Program of an entry, which is called by the entry's name."""
    mod = run_stages(mod, options, start="partition", until="compress")
    chain, functions = described(mod), chip_functions(mod)
    if chain is None or len(functions) != 1:
        left = fallbacks_of(mod)
        raise UnsupportedError(
            f"entry {name}: shorter sequences are made of networks that are whole on the chip",
            available="; ".join(f"{f.node} ({f.op}): {f.reason}" for f in left[:4]) or f"{len(functions)} chip parts",
            remedy="leave out lengths and generate (--lengths, --generate)",
        )
    program = program_of_function(functions[0][1], options.chip, objective=options.objective)
    chain = json.loads(json.dumps(chain))
    for step, _, params in chain["steps"]:
        if step == "call":
            params["symbol"] = name
    return chain, replace(program, meta={**program.meta, "name": name})


def _ports(compiled: CompiledModel, mod: tvm.IRModule, kind: Kind, states: int):
    """Inputs and outputs of an entry: the model's, with the entry's shapes."""
    func = mod["main"]
    shapes = [tuple(int(d) for d in p.ty.shape.values) for p in func.params]
    fields = func.ret_ty.fields if hasattr(func.ret_ty, "fields") else [func.ret_ty]
    inputs = tuple(replace(i, shape=shape) for i, shape in zip(compiled.inputs, shapes))
    if kind is Kind.DECODE:
        inputs += (TensorInfo(steps.POSITION, (1,), "int32"),)
    outputs = tuple(replace(o, shape=tuple(int(d) for d in f.shape.values)) for o, f in zip(compiled.outputs, fields))
    return inputs, outputs


# ---- running --------------------------------------------------------------------------------------------------------
def run_short(model: CompiledModel, inputs: dict[str, np.ndarray]):
    """A run on arrays of fewer tokens than the whole sequence; None for other arrays. Errors: see `_chosen`."""
    used, filled, tokens = _chosen(model, inputs)
    if tokens is None:
        return None
    result = used.run(filled)
    return replace(result, outputs=_cut(model, result.outputs, tokens), states={})


def _chosen(model: CompiledModel, inputs: dict[str, np.ndarray]) -> tuple[CompiledModel, dict, int | None]:
    """``(the model to run, inputs as it takes them, tokens given)`` for arrays of fewer tokens than the whole sequence;
    tokens is None where nothing has to be cut off the outputs.

    Errors: InputError for inputs of different numbers of tokens, or a length without an entry where inputs cannot be
    filled up."""
    entries = [e for e in model.entries if e.kind is not Kind.DECODE]
    axes = _token_inputs(model, entries)
    given = {
        name: np.asarray(inputs[name]).shape[1]
        for name in axes
        if name in inputs and np.ndim(inputs[name]) == len(axes[name]) and np.shape(inputs[name])[1] < axes[name][1]
    }
    if not given or set(given) != set(axes) & set(inputs):
        return model, inputs, None
    if len(set(given.values())) != 1:
        raise InputError(
            "the inputs have different numbers of tokens",
            available=", ".join(f"{n}: {k}" for n, k in given.items()),
            remedy="give every input the same number of tokens",
        )
    tokens = next(iter(given.values()))
    sizes = {e.length: e.model for e in sorted(entries, key=lambda e: e.length)}
    sizes.setdefault(next(iter(axes.values()))[1], model)
    if not entries[0].pads and tokens not in sizes:
        raise InputError(
            f"there is no entry for {tokens} tokens, and without a mask the sequence cannot be filled up",
            available=", ".join(map(str, sizes)),
            remedy=f"compile with lengths=[{tokens}] (--lengths {tokens}), or give the network a mask input",
        )
    length = next(n for n in sizes if n >= tokens)
    filled = {name: _filled(np.asarray(array), length) if name in given else array for name, array in inputs.items()}
    return sizes[length], filled, tokens


def _token_inputs(model: CompiledModel, entries: Sequence[Entry]) -> dict[str, tuple[int, ...]]:
    """Shapes of the inputs that differ between the model and its entries."""
    other = {i.name: tuple(i.shape) for e in entries[:1] for i in e.model.inputs}
    return {i.name: tuple(i.shape) for i in model.inputs if other.get(i.name, i.shape) != tuple(i.shape)}


def _filled(array: np.ndarray, length: int) -> np.ndarray:
    return np.pad(array, [(0, length - n) if axis == 1 else (0, 0) for axis, n in enumerate(array.shape)])


def _cut(model: CompiledModel, outputs: dict[str, np.ndarray], tokens: int) -> dict:
    """The outputs for the tokens given: where they have a row for each, no others."""
    found = {}
    entries = [e.model for e in model.entries if e.kind is not Kind.DECODE]
    for info in model.outputs:
        other = next(o for o in entries[0].outputs if o.name == info.name)
        index = tuple(slice(tokens) if a != b else slice(None) for a, b in zip(info.shape, other.shape))
        found[info.name] = outputs[info.name][index]
    return found
