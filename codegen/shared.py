"""Programs that are entries of one network: each constant once for all of them, states at the same addresses.

Each Program is planned as if alone: constants from address 0, then its states, then its activations. Here equal
constants of all of them get one place (one that is the beginning of another lies in it), the states follow, and above
them the activations of whichever runs."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace

from tvm_ergo.codegen.relocate import ALIGNMENT_BYTES, moved_instruction
from tvm_ergo.target.errors import OutOfMemoryError, UnsupportedError
from tvm_ergo.target.isa import Operand
from tvm_ergo.target.program import BufferKind, Program

ELEMENT_BYTES = 4  # the widest element type: constants are aligned to it


def shared(programs: dict[str, Program], memory_bytes: int) -> dict[str, Program]:
    """The same Programs in one memory, each with the constants of all. Errors: OutOfMemoryError; UnsupportedError where
    states do not lie as they do elsewhere."""
    data, places = _pool(programs)
    constants = _aligned(max((addr + len(content) for addr, content in data), default=0), ALIGNMENT_BYTES)
    sizes = {name: _state_bytes(program) for name, program in programs.items()}
    states = max(sizes.values())
    if any(size not in (0, states) for size in sizes.values()):
        raise UnsupportedError(
            "the entries of the network do not have the same states at the same places",
            available=", ".join(f"{name}: {size} bytes" for name, size in sizes.items() if size),
            remedy="more memory, so that every layer runs whole",
        )
    worst = max(programs, key=lambda n: programs[n].meta["activation_bytes"] - sizes[n])
    needed = constants + states + programs[worst].meta["activation_bytes"] - sizes[worst]
    if needed > memory_bytes:
        raise OutOfMemoryError(
            f"the {len(programs)} entries of the network need {needed} bytes ({needed / 1024:.1f} KiB) together",
            where=f"the activations of {worst} above the constants of all entries and what is kept between runs",
            required=f"{constants} constant bytes + {states} kept + {needed - constants - states} activation bytes",
            available=f"{memory_bytes} bytes ({memory_bytes / 1024:.1f} KiB)",
            remedy=f"a chip with more memory, or the memory option with at least {needed} bytes; shorter entries",
        )
    kept = next((_states(program, constants) for name, program in programs.items() if sizes[name]), [])
    return {
        name: _moved(program, places[name], data, constants, states - sizes[name], kept)
        for name, program in programs.items()
    }


def _pool(programs: dict[str, Program]) -> tuple[list[tuple[int, bytes]], dict[str, dict[int, int]]]:
    """``(data sections of all, where each Program's sections went: new address by old)``."""
    contents = sorted({content for p in programs.values() for _, content in p.data}, key=lambda c: (-len(c), c))
    found: dict[bytes, int] = {}
    sections: list[tuple[int, bytes]] = []
    by_start: dict[bytes, list[tuple[int, bytes]]] = {}
    top = 0
    for content in contents:
        start = content[:ELEMENT_BYTES]
        inside = next((addr for addr, longer in by_start.get(start, ()) if longer.startswith(content)), None)
        if inside is None:
            inside = top
            sections.append((top, content))
            by_start.setdefault(start, []).append((top, content))
            top = _aligned(top + len(content), ELEMENT_BYTES)
        found[content] = inside
    return sections, {name: {addr: found[c] for addr, c in p.data} for name, p in programs.items()}


def _state_bytes(program: Program) -> int:
    """From the first activation byte to the end of the last state; 0 without states."""
    held = [b for b in program.buffers if b.kind == BufferKind.STATE]
    first = program.meta["constant_bytes"]
    if held and min(b.addr for b in held) != first:
        return -1
    return max((b.addr + b.size_bytes - first for b in held), default=0)


def _states(program: Program, base: int) -> list:
    """The memory map's entries of the states, where they lie above ``base``."""
    first = program.meta["constant_bytes"]
    return [replace(b, addr=b.addr - first + base) for b in program.buffers if b.kind == BufferKind.STATE]


def _moved(program: Program, places: dict[int, int], data, base: int, above: int, kept: list) -> Program:
    """above : bytes of the states that the Program itself does not know of."""
    boundary, starts = program.meta["constant_bytes"], sorted(places)

    def moved(addr: int) -> int:
        if addr >= boundary:
            return addr - boundary + base + above
        start = starts[bisect_right(starts, addr) - 1]
        return places[start] + addr - start

    def place(operand: Operand) -> Operand:
        return replace(operand, addr=moved(operand.addr))

    count = len(program.instructions)
    own = [replace(b, addr=moved(b.addr)) for b in program.buffers]
    idle = [replace(b, first=0, last=count) for b in kept] if above else []
    meta = {
        **program.meta,
        "constant_bytes": base,
        "activation_bytes": program.meta["activation_bytes"] + above,
        "live_bytes": program.meta["live_bytes"] + above,
        "peak_bytes": base + program.meta["activation_bytes"] + above,
        "tensors": [{**t, "addr": moved(t["addr"])} for t in program.meta.get("tensors", ())],
    }
    if "states" in program.meta:
        meta["states"] = [{**s, "addr": moved(s["addr"])} for s in program.meta["states"]]
    return replace(
        program,
        instructions=[moved_instruction(i, place) for i in program.instructions],
        data=data,
        inputs=[replace(p, operand=place(p.operand)) for p in program.inputs],
        outputs=[replace(p, operand=place(p.operand)) for p in program.outputs],
        buffers=own + idle,
        meta=meta,
    )


def _aligned(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
