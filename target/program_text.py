"""The text form of a Program: directives (JSON values), data as base64 lines, one line per instruction.

::

    .program 2
    .chip "ergo/1"
    .memory 8388608
    .meta "source" "net.onnx"
    .node "conv1" "conv2d" "Conv_0"
    .buffer "x" 0 1024 0 3 "input"
    .input "x" i8@0x0[1,8,8,16]
    .stream "frame" i8@0x0[1,8,8,3]
    .output "y" i8@0x400[1,10]
    .data 4096 3
      AQID
    CONV x=... waits=DMA:1 node=0
    HALT

``#`` starts a comment line; blank lines mean nothing.
"""

from __future__ import annotations

import base64
import json

from tvm_ergo.target.errors import ProgramError
from tvm_ergo.target.isa import parse
from tvm_ergo.target.isa.fields import format_operand, parse_operand

BASE64_BYTES_PER_LINE = 90  # 120 characters


def program_to_text(program) -> str:
    """Inverse of ``program_from_text``."""
    from tvm_ergo.target.program import VERSION

    lines = [f".program {VERSION}", _line(".chip", program.chip_name), _line(".memory", program.memory_bytes)]
    lines += [_line(".meta", key, value) for key, value in program.meta.items()]
    lines += [_line(".node", n.name, n.op, n.layer) for n in program.nodes]
    lines += [
        _line(".buffer", b.name, b.addr, b.size_bytes, b.first, b.last, b.kind.name.lower()) for b in program.buffers
    ]
    for directive, ports in ((".input", program.inputs), (".output", program.outputs)):
        lines += [f"{_line('.stream' if p.streamed else directive, p.name)} {format_operand(p.operand)}" for p in ports]
    for addr, content in program.data:
        lines.append(_line(".data", addr, len(content)))
        for start in range(0, len(content), BASE64_BYTES_PER_LINE):
            lines.append("  " + base64.b64encode(content[start : start + BASE64_BYTES_PER_LINE]).decode("ascii"))
    lines += [instruction.to_text() for instruction in program.instructions]
    return "\n".join(lines) + "\n"


def strip_data(text: str) -> str:
    """The text without the base64 lines, for reading; what is left cannot be assembled again unless there was no
    data."""
    return "\n".join(line for line in text.split("\n") if not line.startswith("  "))


def program_from_text(text: str):
    """Errors: ProgramError naming the line."""
    reader = _TextReader()
    # not splitlines(): names may hold characters Python takes for line ends, JSON escapes only the real ones
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        try:
            reader.line(line)
        except ProgramError as error:
            error.where = f"line {number}" + (f", {error.where}" if error.where else "")
            raise
    return reader.finish()


def _line(directive: str, *values) -> str:
    return " ".join([directive, *map(json.dumps, values)])


class _TextReader:
    """Collects the parts of a Program line by line."""

    def __init__(self):
        self.version = self.chip = self.memory = None
        self.meta, self.nodes, self.buffers, self.inputs, self.outputs = {}, [], [], [], []
        self.data, self.instructions = [], []

    def line(self, line: str) -> None:
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            return
        if stripped.startswith("."):
            self.directive(stripped)
        elif line.startswith("  ") and not self.instructions:
            self.base64(stripped)
        else:
            self.instructions.append(parse(stripped))

    def base64(self, text: str) -> None:
        if not self.data:
            raise ProgramError("indented data without a .data line before it")
        try:
            self.data[-1][2].extend(base64.b64decode(text, validate=True))
        except ValueError as error:  # binascii.Error, or a character beyond ASCII
            raise ProgramError(f"data is not base64: {error}") from None

    def directive(self, line: str) -> None:
        from tvm_ergo.target.program import VERSION, Buffer, Node, Port

        name, _, rest = line.partition(" ")
        if name == ".program":
            (self.version,) = _values(rest, int)
            if self.version != VERSION:
                raise ProgramError(f"the program has version {self.version}", required=f"version {VERSION}")
        elif name == ".chip":
            (self.chip,) = _values(rest, str)
        elif name == ".memory":
            (self.memory,) = _values(rest, int)
        elif name == ".meta":
            key, value = _values(rest, str, object)
            self.meta[key] = value
        elif name == ".node":
            self.nodes.append(Node(*_values(rest, str, str, str)))
        elif name == ".buffer":
            self.buffers.append(Buffer(*_values(rest, str, int, int, int, int, str)))
        elif name in (".input", ".stream", ".output"):
            port, _, operand = rest.rpartition(" ")
            ports = self.outputs if name == ".output" else self.inputs
            ports.append(Port(*_values(port, str), parse_operand(operand), name == ".stream"))
        elif name == ".data":
            addr, size = _values(rest, int, int)
            self.data.append((addr, size, bytearray()))
        else:
            raise ProgramError(f"unknown directive {name!r}")

    def finish(self):
        from tvm_ergo.target.program import Program

        for directive, value in ((".program", self.version), (".chip", self.chip), (".memory", self.memory)):
            if value is None:
                raise ProgramError(f"the program text has no {directive} line")
        for addr, size, content in self.data:
            if len(content) != size:
                raise ProgramError(
                    "a data section has the wrong length",
                    where=f".data {addr}",
                    required=f"{size} bytes",
                    available=f"{len(content)}",
                )
        return Program(
            chip_name=self.chip,
            instructions=self.instructions,
            data=[(a, bytes(c)) for a, _, c in self.data],
            inputs=self.inputs,
            outputs=self.outputs,
            memory_bytes=self.memory,
            nodes=self.nodes,
            buffers=self.buffers,
            meta=self.meta,
        )


def _values(text: str, *kinds: type) -> list:
    """JSON values separated by spaces, one of each kind. Errors: ProgramError."""
    decoder, values, position = json.JSONDecoder(), [], 0
    try:
        while position < len(text):
            value, position = decoder.raw_decode(text, position)
            values.append(value)
            position += len(text[position:]) - len(text[position:].lstrip(" "))
    except (ValueError, RecursionError) as error:
        raise ProgramError(f"cannot read {text!r}: {error}") from None
    if len(values) != len(kinds) or not all(
        isinstance(v, k) and not isinstance(v, bool) or k is object for v, k in zip(values, kinds)
    ):
        raise ProgramError(f"cannot read {text!r}", required=" ".join(k.__name__ for k in kinds))
    return values
