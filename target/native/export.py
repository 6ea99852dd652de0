"""A Program as C: the runtime's sources for the instructions it has, its bytes as an array, a header, an example,
build files, two boards.

`exported` gives the files' contents; it writes nothing.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.errors import ModelError, TargetError
from tvm_ergo.target.isa import CpuCall, Decode, DType, Encode
from tvm_ergo.target.native.exported_states import PortState, calls, definitions, placed
from tvm_ergo.target.native.library import Needs, library, needs_of
from tvm_ergo.target.native.sources import CORE, CPU, OPS, SLOTS, STATES, WEIGHTS
from tvm_ergo.target.program import Node, Port, Program

HERE = Path(__file__).parent
C_TYPES = {DType.I8: "int8_t", DType.U8: "uint8_t", DType.I16: "int16_t", DType.I32: "int32_t"}
REMEDY = "run it on the emulator (tvm-ergo run), or leave out what brings it in"


@dataclass(frozen=True)
class Exported:
    """files : contents by path inside the folder. needs : RAM that a run takes. name : of the network in C."""

    files: dict[str, str]
    needs: Needs
    name: str


def exported(
    program: Program, name: str, scales: dict[str, tuple[float, int]], states: tuple[PortState, ...] = ()
) -> Exported:
    """name : of the network; becomes an identifier. scales : of ports, by name, where one scale and zero point hold
    for the whole port. states : what it keeps from one run to the next.

    Errors: ModelError for an instruction, a form of one, or a code that the runtime in C does not have; TargetError
    where the runtime was not built.
    """
    if library() is None:
        raise TargetError(
            "the native runtime is not there, which exporting to C checks the program with",
            remedy="pip install . on a machine with a C compiler; unset ERGO_NATIVE",
        )
    identifier = _identifier(name)
    ops, slots, weights = _used(program)
    slim = slimmed(program)
    data = slim.to_bytes()
    needs, status, failed = needs_of(data)
    if needs is None:
        raise ModelError(
            f"the runtime in C does not have this form of an instruction ({status})",
            where=_where(program, failed),
            remedy=REMEDY,
        )
    files = {
        path: (HERE / path).read_text()
        for path in sorted({*CORE, *_sources(ops, OPS), *_sources(slots, SLOTS), *_sources(weights, WEIGHTS)})
    }
    functions = sorted({i.function.name for i in program.instructions if isinstance(i, CpuCall)})
    files |= {path: (HERE / "post" / path).read_text() for path in sorted(_sources(functions, CPU))}
    files["registry.c"] = _registry(
        [OPS[op][0] for op in ops],
        [SLOTS[c][0] for c in slots],
        [WEIGHTS[c][0] for c in weights],
        [CPU[f][0] for f in functions],
    )
    units = dict((program.meta.get("post") or {}).get("outputs", {}))
    files[f"{identifier}.h"] = _header(slim, identifier, name, needs, scales, states, units)
    files[f"{identifier}.c"] = _array(data, identifier)
    if states:
        files |= {path: (HERE / path).read_text() for path in STATES}
        files[f"{identifier}.c"] += definitions(slim, states, identifier)
    sources = " ".join(sorted(path for path in files if path.endswith(".c")))
    values = {
        "NAME": identifier,
        "CAPS": identifier.upper(),
        "SOURCES": sources,
        "INPUTS": _inputs(slim, identifier, {state.input for state in states}),
        "OUTPUTS": _outputs(slim, identifier, {state.output for state in states if state.hidden}),
        **calls(slim, states, identifier),
    }
    for path in sorted((HERE / "template").rglob("*")):
        if path.is_file():
            files[str(path.relative_to(HERE / "template"))] = re.sub(
                "@([A-Z]+)@", lambda match: values[match[1]], path.read_text()
            )
    return Exported(files, needs, identifier)


def slimmed(program: Program) -> Program:
    """The same computation in the memory that it uses: constants in one section, nothing that only reports and tools
    read."""
    instructions = [replace(instruction, waits={}, node=0) for instruction in program.instructions]
    operands = [o for i in instructions for o in i.reads() + i.writes()] + [
        p.operand for p in program.inputs + program.outputs if not p.streamed
    ]
    ends = [operand.extent[1] for operand in operands] + [addr + len(content) for addr, content in program.data]
    return replace(
        program,
        chip_name="",
        instructions=instructions,
        data=_joined(program.data, _lowest_written(program)),
        memory_bytes=max(ends, default=1),
        nodes=[Node("", "", "")],
        buffers=[],
        meta={},
    )


def _lowest_written(program: Program) -> int:
    written = [operand.extent[0] for instruction in program.instructions for operand in instruction.writes()]
    return min(written + [port.operand.extent[0] for port in program.inputs if not port.streamed], default=0)


def _joined(data: list[tuple[int, bytes]], limit: int) -> list[tuple[int, bytes]]:
    """Sections below ``limit``, which nothing writes, as one with zeros between them; the others as they are."""
    low = sorted((addr, content) for addr, content in data if addr + len(content) <= limit)
    if not low:
        return data
    first, end = low[0][0], max(addr + len(content) for addr, content in low)
    whole = bytearray(end - first)
    for addr, content in low:
        whole[addr - first : addr - first + len(content)] = content
    return [(first, bytes(whole)), *((addr, content) for addr, content in data if addr + len(content) > limit)]


def _used(program: Program) -> tuple[list[str], list[Codec], list[Codec]]:
    """Instructions, codecs of slots and of weights. Errors: ModelError."""
    ops, codecs = {}, {}
    for index, instruction in enumerate(program.instructions):
        if instruction.MNEMONIC not in OPS:
            raise ModelError(
                f"the runtime in C does not have the instruction {instruction.MNEMONIC}",
                where=_where(program, index),
                available=", ".join(sorted(OPS)),
                remedy=REMEDY,
            )
        ops[instruction.MNEMONIC] = True
        here = {operand.codec for operand in instruction.reads() + instruction.writes()} | (
            {instruction.codec} if isinstance(instruction, (Encode, Decode)) else set()
        )
        for codec in here - {Codec.RAW}:
            if codec not in SLOTS and codec not in WEIGHTS:
                raise ModelError(
                    f"the runtime in C does not have the code {codec.name}",
                    where=_where(program, index),
                    available=", ".join(c.name for c in (*SLOTS, *WEIGHTS)),
                    remedy=REMEDY,
                )
            codecs[codec] = True
    return sorted(ops), sorted(c for c in codecs if c in SLOTS), sorted(c for c in codecs if c in WEIGHTS)


def _where(program: Program, index: int) -> str:
    instruction = program.instructions[index]
    node = program.nodes[instruction.node].name if instruction.node < len(program.nodes) else f"#{instruction.node}"
    return f"instruction {index} (node {node}): {instruction.to_text()}"


def _sources(keys, table) -> set[str]:
    return {path for key in keys for path in table[key][1]}


def _identifier(name: str) -> str:
    found = re.sub(r"\W", "_", name.lower(), flags=re.ASCII).strip("_") or "network"
    return found if found[0].isalpha() else f"net_{found}"


def _registry(ops: list[str], slots: list[str], weights: list[str], functions: list[str]) -> str:
    parts = ["/* What this network needs of the runtime. */", '#include "ergo_internal.h"', ""]
    for kind, prefix, table, names in (
        ("ergo_op", "ergo_op_", "ergo_ops", ops),
        ("ergo_slot_codec", "ergo_codec_", "ergo_slot_codecs", slots),
        ("ergo_weight_codec", "ergo_codec_", "ergo_weight_codecs", weights),
        ("ergo_cpu_function", "ergo_cpu_", "ergo_cpu_functions", functions),
    ):
        if names:
            parts.append(f"extern const {kind} {', '.join(prefix + name for name in names)};")
        parts.append(f"const {kind} *const {table}[] = {{{''.join(f'&{prefix}{name}, ' for name in names)}NULL}};")
    return "\n".join(parts) + "\n"


def _array(data: bytes, name: str) -> str:
    lines = [",".join(map(str, data[at : at + 40])) for at in range(0, len(data), 40)]
    return (
        f'#include "{name}.h"\n\nconst uint8_t {name}_program[{len(data)}] __attribute__((aligned(8))) = {{\n'
        + ",\n".join(lines)
        + f"}};\nconst size_t {name}_program_bytes = {len(data)};\n"
    )


def _header(
    program: Program,
    identifier: str,
    name: str,
    needs: Needs,
    scales: dict[str, tuple[float, int]],
    states: tuple[PortState, ...],
    units: dict[str, str],
) -> str:
    caps = identifier.upper()
    lines = [
        f"/* The network {_commented(name)}: see main.c for how it is run. */",
        f"#ifndef {caps}_H",
        f"#define {caps}_H",
        "",
        '#include "state.h"' if states else '#include "ergo.h"',
        "",
        f"#define {caps}_ARENA_BYTES {needs.arena}u /* RAM of the activations */",
        f"#define {caps}_WORKSPACE_BYTES {needs.workspace}u /* RAM of coders */",
        f"#define {caps}_CONSTANT_BYTES {needs.constants}u /* weights and tables, read where the program stands */",
        "",
        f"extern const uint8_t {identifier}_program[];",
        f"extern const size_t {identifier}_program_bytes;",
        "",
        "/* Ports, by number. Real values are scale * (stored - zero point); a scale of 0: it is not one number for "
        "the whole port. */",
    ]
    for kind, ports in (("INPUT", program.inputs), ("OUTPUT", program.outputs)):
        lines.append(f"#define {caps}_{kind}S {len(ports)}")
        for number, port in enumerate(ports):
            if port.name in units and kind == "OUTPUT":
                lines.append(f"/* {_commented(str(units[port.name]))} */")
            lines += _port(f"{caps}_{kind}_{number}", port, *scales.get(port.name, (0.0, 0)))
    if states:
        lines += [
            "",
            "/* Kept from one run to the next: ergo_state_reset, _before, _after, _get, _set in state.h. */",
            f"#define {caps}_STATES {len(states)}u",
            f"#define {caps}_STATE_BYTES {placed(program, states)[1]}u /* RAM beside the arena */",
            f"extern const ergo_state {identifier}_states[];",
        ]
        for number, state in enumerate(states):
            port = replace(program.inputs[state.input], name=state.name)
            lines += _port(f"{caps}_STATE_{number}", port, *scales.get(program.inputs[state.input].name, (0.0, 0)))
    return "\n".join([*lines, "", "#endif", ""])


def _port(prefix: str, port: Port, scale: float, zero_point: int) -> list[str]:
    operand = port.operand
    return [
        f"#define {prefix}_NAME {json.dumps(port.name)}",
        f"#define {prefix}_TYPE {C_TYPES[operand.dtype]}",
        f"#define {prefix}_RANK {operand.rank}",
        f"#define {prefix}_SHAPE {{{', '.join(map(str, operand.shape))}}}",
        f"#define {prefix}_ELEMENTS {math.prod(operand.shape)}u",
        f"#define {prefix}_BYTES {operand.size_bytes}u",
        f"#define {prefix}_SCALE {float(scale)!r}f" if scale else f"#define {prefix}_SCALE 0.0f",
        f"#define {prefix}_ZERO_POINT ({zero_point})",
        f"#define {prefix}_STREAMED {int(port.streamed)}",
    ]


def _commented(text: str) -> str:
    return text.replace("*/", "* /").replace("\n", " ")


def _inputs(program: Program, name: str, kept: set[int]) -> str:
    caps, lines = name.upper(), []
    for number, port in enumerate(program.inputs):
        if number in kept:
            continue
        if port.streamed:
            lines.append(f"  /* input {number} is streamed: `receive` gives its rows */")
            continue
        lines += [
            "  {",
            f"    static uint8_t values[{caps}_INPUT_{number}_BYTES];",
            f"    for (uint32_t i = 0; i < sizeof values; i++) values[i] = sample({number}, i);",
            f'    if ((status = ergo_set_input(&net, arena, {number}, values, sizeof values))) return failed("input", '
            f"status);",
            "  }",
        ]
    return "\n".join(lines)


def _outputs(program: Program, name: str, hidden: set[int]) -> str:
    caps, lines = name.upper(), []
    for number, _ in enumerate(program.outputs):
        if number in hidden:
            continue
        prefix = f"{caps}_OUTPUT_{number}"
        lines += [
            "  {",
            f"    static {prefix}_TYPE values[{prefix}_ELEMENTS];",
            f"    if ((status = ergo_get_output(&net, arena, {number}, values, sizeof values))) return "
            f'failed("output", status);',
            f'    printf("%s:", {prefix}_NAME);',
            f'    for (uint32_t i = 0; i < {prefix}_ELEMENTS; i++) printf(" %d", (int)values[i]);',
            '    printf("\\n");',
            "  }",
        ]
    return "\n".join(lines)
