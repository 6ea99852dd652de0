"""Entries in a compiled model's file: a chain and a Program each, and the constants of all of them once.

Sections beside those of `container`: ``constants`` (u32 number of sections; each u64 address, u64 bytes, content), and
for each entry ``chain:NAME``; ``program:NAME`` sections then hold no data of their own. ``tokenizer``: the
vocabulary."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, replace

from tvm_ergo import container
from tvm_ergo.compiled import CompiledModel, chain_of
from tvm_ergo.entries import Entry, Kind
from tvm_ergo.model_meta import Meta, stored_state
from tvm_ergo.target.errors import ProgramError
from tvm_ergo.target.limits import Declared
from tvm_ergo.target.program import Program

CONSTANTS, CHAIN = "constants", "chain:"


def described(entry: Entry) -> dict:
    """What a file's meta says of an entry."""
    return {
        "kind": entry.kind.value,
        "length": entry.length,
        "pads": entry.pads,
        "inputs": [asdict(i) for i in entry.model.inputs],
        "outputs": [asdict(o) for o in entry.model.outputs],
        "states": [stored_state(s) for s in entry.model.states],
    }


def sections(model: CompiledModel) -> dict[str, bytes]:
    """Those of a model with entries, but for ``meta``."""
    models = [model, *(e.model for e in model.entries)]
    programs = {symbol: program for m in models for symbol, program in m.programs.items()}
    data = next(iter(programs.values())).data
    bare = {symbol: replace(program, data=[]).to_bytes() for symbol, program in programs.items()}
    head = [struct.pack("<I", len(data))]
    pieces = [piece for addr, content in data for piece in (struct.pack("<QQ", addr, len(content)), content)]
    return {
        "chain": json.dumps(model.chain_data).encode(),
        **{CHAIN + e.name: json.dumps(e.model.chain_data).encode() for e in model.entries},
        CONSTANTS: b"".join(head + pieces),
        **container.program_sections(bare, None),
    }


def read(
    content: dict[str, bytes], found: Meta, path: str, declared: Declared
) -> tuple[dict[str, bytes], tuple[Entry, ...]]:
    """``(the model's own Programs, its entries)``. declared : takes what they ask for. Errors: ProgramError."""
    try:
        declared.add(
            len(content[CONSTANTS]) * (len(found.entries) + 1), "the constants, which the Program of each entry has"
        )
        data = _constants(content[CONSTANTS])
        carried = {
            symbol: replace(Program.from_bytes(program), data=data).to_bytes()
            for symbol, program in container.programs_in(content).items()
        }
        names = [f"{e.kind}_{e.length}" for e in found.entries]
        if len({*names, "whole"}) != len(names) + 1 or set(carried) != {*names, "whole"}:
            raise ValueError(f"Programs {', '.join(sorted(carried))[:80]} for the entries {', '.join(names)[:80]}")
        entries = tuple(
            Entry(
                Kind(e.kind),
                e.length,
                e.pads,
                CompiledModel(
                    None,
                    found.chip,
                    e.inputs,
                    e.outputs,
                    (),
                    found.source,
                    chain=chain_of(content[CHAIN + name], e, {name: carried[name]}, path, declared),
                    carried={name: carried[name]},
                    states=e.states,
                ),
            )
            for e, name in zip(found.entries, names, strict=True)
        )
    except (KeyError, ValueError, struct.error) as error:
        raise ProgramError(
            f"the model file's entries are damaged: {error}"[:300], where=path, remedy="compile the model again"
        ) from None
    return {"whole": carried["whole"]}, entries


def _constants(content: bytes) -> list[tuple[int, bytes]]:
    (count,), at, found = struct.unpack_from("<I", content), 4, []
    for _ in range(count):
        addr, size = struct.unpack_from("<QQ", content, at)
        at += 16
        if size > len(content) - at:
            raise ValueError("a constant is longer than the file")
        found.append((addr, content[at : at + size]))
        at += size
    if at != len(content):
        raise ValueError("bytes behind the last constant")
    return found
