"""What an exported network keeps from one run to the next, as C: the table of states, their first values, and the
example's calls."""

from __future__ import annotations

from dataclasses import dataclass

from tvm_ergo.target.isa import overlap
from tvm_ergo.target.program import Program

RUNS = 3
"""Runs that the example makes of a network with states."""


@dataclass(frozen=True)
class PortState:
    """Input port ``input`` takes in every run what output port ``output`` held after the run before. initial : the
    stored bytes of the first run. hidden : the output port is no output of the model besides."""

    name: str
    input: int
    output: int
    initial: bytes
    hidden: bool = True


def in_arena(program: Program, states: tuple[PortState, ...]) -> bool:
    """Whether the network leaves all of them where it takes them, and no other input or section of data is written
    there or has to be loaded anew."""
    written = [operand for instruction in program.instructions for operand in instruction.writes()]
    lowest = min((operand.extent[0] for operand in written), default=0)
    if any(addr + len(content) > lowest for addr, content in program.data):
        return False
    taken = {state.input for state in states}
    others = [p.operand for i, p in enumerate(program.inputs) if i not in taken and not p.streamed]
    return all(
        program.inputs[s.input].operand == program.outputs[s.output].operand
        and not any(overlap(program.inputs[s.input].operand, other) for other in others)
        for s in states
    )


def placed(program: Program, states: tuple[PortState, ...]) -> tuple[list[int | None], int]:
    """Where each state's bytes begin among those that are kept beside the arena (None: in the arena), and how many
    these are."""
    if in_arena(program, states):
        return [None] * len(states), 0
    places, top = [], 0
    for state in states:
        places.append(top)
        top += -(-len(state.initial) // 8) * 8
    return places, top


def definitions(program: Program, states: tuple[PortState, ...], name: str) -> str:
    """The definitions that go behind the network's array."""
    places, _ = placed(program, states)
    lines = []
    for number, state in enumerate(states):
        values = ",".join(map(str, state.initial))
        lines.append(f"static const uint8_t initial_{number}[{len(state.initial)}] = {{{values}}};")
    lines.append(f"const ergo_state {name}_states[{len(states)}] = {{")
    for number, (state, place) in enumerate(zip(states, places)):
        at = "ERGO_IN_ARENA" if place is None else f"{place}u"
        lines.append(f"  {{{state.input}u, {state.output}u, {len(state.initial)}u, {at}, initial_{number}}},")
    return "\n".join([*lines, "};", ""])


def calls(program: Program, states: tuple[PortState, ...], name: str) -> dict[str, str]:
    """What the example has for them, by the template's words; nothing where there are no states."""
    if not states:
        return {"KEPT": "", "RESET": "", "BEFORE": "", "AFTER": "", "END": ""}
    caps, kept = name.upper(), "net, arena, @NAME@_states, @CAPS@_STATES, kept"
    again = (
        ""
        if in_arena(program, states)
        else ('    if ((status = ergo_start(&net, arena, sizeof arena))) return failed("start", status);\n')
    )
    return {
        word: text.replace("@NAME@", name).replace("@CAPS@", caps)
        for word, text in {
            "KEPT": "static uint8_t kept[@CAPS@_STATE_BYTES + 1] __attribute__((aligned(8)));\n",
            "RESET": f'  if ((status = ergo_state_reset(&{kept}))) return failed("reset", status);\n'
            f"  for (int run = 0; run < {RUNS}; run++) {{\n{again}",
            "BEFORE": f'  if ((status = ergo_state_before(&{kept}))) return failed("state", status);\n',
            "AFTER": f'  if ((status = ergo_state_after(&{kept}))) return failed("state", status);\n',
            "END": "  }\n",
        }.items()
    }
