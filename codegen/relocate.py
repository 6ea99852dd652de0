"""Several Programs of one network in one unified memory: their constants side by side, one activation area above them
all.

A network with host operators in its middle has a Program per chip part. They run one after another, so they can share
the activation area, but the constants of each have to stay. Each Program is planned as if alone (constants from address
0, activations above); here both parts are moved. Tensors that pass from part to part through the host wait in the
host's memory, which is not counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tvm_ergo.target.errors import OutOfMemoryError
from tvm_ergo.target.isa import Instruction, Operand
from tvm_ergo.target.isa.fields import Tensor, Tensors
from tvm_ergo.target.program import Program

ALIGNMENT_BYTES = 16


def share_memory(programs: dict[str, Program], memory_bytes: int) -> dict[str, Program]:
    """The same Programs at addresses where all their constants exist at once. One Program alone stays as it is.

    Errors: OutOfMemoryError where all constants and the largest activation area exceed ``memory_bytes``.
    """
    if len(programs) < 2:
        return programs
    bases, top = {}, 0
    for name, program in programs.items():
        bases[name] = top
        top = _aligned(top + program.meta["constant_bytes"])
    worst = max(programs, key=lambda name: programs[name].meta["activation_bytes"])
    needed = top + programs[worst].meta["activation_bytes"]
    if needed > memory_bytes:
        raise OutOfMemoryError(
            f"the {len(programs)} chip parts of the network need {needed} bytes ({needed / 1024:.1f} KiB) together, "
            f"{needed - memory_bytes} more "
            "than the memory has",
            where=f"the activations of {worst} above the constants of all parts",
            required=f"{top} constant bytes + {programs[worst].meta['activation_bytes']} activation bytes",
            available=f"{memory_bytes} bytes ({memory_bytes / 1024:.1f} KiB)",
            remedy=f"a chip with more memory, or the memory option with at least {needed} bytes; fewer or smaller "
            f"weights",
        )
    return {name: relocate(program, bases[name], top) for name, program in programs.items()}


def relocate(program: Program, constants_at: int, activations_at: int) -> Program:
    """The Program with its constants moved up to ``constants_at`` and everything else to ``activations_at``."""
    boundary = program.meta["constant_bytes"]

    def moved(addr: int) -> int:
        return addr + constants_at if addr < boundary else addr - boundary + activations_at

    def place(operand: Operand) -> Operand:
        return replace(operand, addr=moved(operand.addr))

    meta = {
        **program.meta,
        "peak_bytes": activations_at + program.meta["activation_bytes"],
        "tensors": [{**t, "addr": moved(t["addr"])} for t in program.meta.get("tensors", ())],
    }
    return replace(
        program,
        instructions=[moved_instruction(i, place) for i in program.instructions],
        data=[(moved(addr), content) for addr, content in program.data],
        inputs=[p if p.streamed else replace(p, operand=place(p.operand)) for p in program.inputs],
        outputs=[replace(p, operand=place(p.operand)) for p in program.outputs],
        buffers=[replace(b, addr=moved(b.addr)) for b in program.buffers],
        meta=meta,
    )


def moved_instruction(instruction: Instruction, place: Callable[[Operand], Operand]) -> Instruction:
    changes = {}
    for name, spec in instruction.FIELDS.items():
        if isinstance(spec, Tensor):
            changes[name] = place(getattr(instruction, name))
        elif isinstance(spec, Tensors):
            changes[name] = tuple(place(operand) for operand in getattr(instruction, name))
    return replace(instruction, **changes) if changes else instruction


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
