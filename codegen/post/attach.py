"""A Program with calls of the CPU's library behind it: where their constants, scratch and results lie, the waits.

Constants come behind the network's own. What the calls write lies where the network's activations were: when the first
of them starts, of those only the network's outputs are still needed. An input that a call compares with the result is
copied when the run begins, above everything else, because the network gives its place to others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tvm_ergo.codegen.relocate import relocate
from tvm_ergo.codegen.schedule import schedule
from tvm_ergo.target.errors import OutOfMemoryError
from tvm_ergo.target.isa import Copy, CpuCall, CpuFunction, DType, Operand, contiguous
from tvm_ergo.target.program import Buffer, BufferKind, Node, Port, Program

ALIGNMENT_BYTES = 16


@dataclass(frozen=True)
class Piece:
    """A tensor of post-processing itself. data : of a constant. scratch : nothing but the next calls wants it."""

    name: str
    shape: tuple[int, ...]
    dtype: DType = DType.I32
    data: np.ndarray | None = field(default=None, compare=False)
    scratch: bool = False

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Kept:
    """The dense copy of an input that is made when the run begins. port : the input's name."""

    port: str


@dataclass(frozen=True)
class Rows:
    """Some rows of a piece of two axes."""

    piece: str
    first: int
    count: int


@dataclass(frozen=True)
class Call:
    """inputs : operands of the Program as it was, names of pieces, or a `Kept`. outputs : names of pieces, or rows of
    one. name : for reports."""

    function: CpuFunction
    inputs: Sequence[Operand | str | Kept]
    outputs: Sequence[str | Rows]
    params: Sequence[int] = ()
    name: str = ""


@dataclass(frozen=True)
class Post:
    """pieces : constants, scratch and results. outputs : names of the pieces that the Program gives. about : JSON for
    reports (``Program.meta["post"]``)."""

    pieces: Sequence[Piece]
    calls: Sequence[Call]
    outputs: Sequence[str]
    about: Mapping = field(default_factory=dict)


def attached(program: Program, post: Post, memory_bytes: int) -> Program:
    """The Program that does ``post`` behind what it did. Errors: OutOfMemoryError where that does not fit."""
    boundary = program.meta["constant_bytes"]
    constants, end = _stacked([p for p in post.pieces if p.data is not None], _aligned(boundary))
    shift = _aligned(end - boundary)  # activations keep what their addresses were aligned to
    moved = relocate(program, 0, boundary + shift)

    def place(operand: Operand) -> Operand:
        return replace(operand, addr=operand.addr + shift) if operand.addr >= boundary else operand

    network_end = boundary + shift + program.meta["activation_bytes"]
    inputs = {port.name: port.operand for port in moved.inputs}
    kept_names = list(dict.fromkeys(i.port for call in post.calls for i in call.inputs if isinstance(i, Kept)))
    kept, _ = _stacked(
        [Piece(name, inputs[name].shape, inputs[name].dtype) for name in kept_names], _aligned(network_end)
    )
    read = [place(i) for call in post.calls for i in call.inputs if isinstance(i, Operand)]
    made = [p for p in post.pieces if p.data is None]
    busy = [*(o.extent for o in read), *(o.extent for o in kept.values())]
    places = _fitted(made, boundary + shift, busy)
    peak = max(network_end, *(o.extent[1] for o in (*places.values(), *kept.values())))
    if peak > memory_bytes:
        raise OutOfMemoryError(
            f"post-processing does not fit: the network and it need {peak:,} bytes",
            where=", ".join(call.name for call in post.calls),
            required=f"{peak:,} bytes, {sum(p.size_bytes for p in made):,} of them candidates and results, "
            f"{sum(o.size_bytes for o in kept.values()):,} a copy of the input",
            available=f"{memory_bytes:,} bytes",
            remedy="more memory, or less room: fewer boxes (most), fewer candidates (room)",
        )
    return _joined(moved, post, place, {**constants, **places}, kept, peak, boundary + shift)


def _joined(program: Program, post: Post, place, pieces: dict, kept: dict, peak: int, boundary: int) -> Program:
    first, calls = len(program.nodes), []
    for number, call in enumerate(post.calls):
        inputs = [
            pieces[i] if isinstance(i, str) else kept[i.port] if isinstance(i, Kept) else place(i) for i in call.inputs
        ]
        outputs = [_rows(pieces, out) if isinstance(out, Rows) else pieces[out] for out in call.outputs]
        calls.append(
            CpuCall(function=call.function, inputs=inputs, outputs=outputs, params=call.params, node=first + number)
        )
    sources = {port.name: port.operand for port in program.inputs}
    copies = [Copy(src=sources[name], out=operand, node=first) for name, operand in kept.items()]
    network = program.instructions[:-1]
    instructions = schedule([*copies, *network, *calls, program.instructions[-1]], boundary)
    before, start = len(copies), len(copies) + len(network)
    data = {p.name: p.data for p in post.pieces if p.data is not None}
    added = [(pieces[name].addr, np.ascontiguousarray(array).tobytes()) for name, array in data.items()]
    meta = {
        **program.meta,
        "constant_bytes": boundary,
        "activation_bytes": peak - boundary,
        "peak_bytes": peak,
        "live_bytes": peak - boundary,
        "tensors": [{**t, "instructions": t["instructions"] + before} for t in program.meta.get("tensors", ())],
        "post": dict(post.about),
    }
    return replace(
        program,
        instructions=instructions,
        data=sorted([*program.data, *added]),
        outputs=[Port(name, pieces[name]) for name in post.outputs],
        nodes=[*program.nodes, *(Node(call.name, f"post.{call.function.name.lower()}", "post") for call in post.calls)],
        buffers=_buffers(program, post, pieces, kept, before, start, len(instructions)),
        meta=meta,
    )


def _buffers(program: Program, post: Post, pieces: dict, kept: dict, before: int, start: int, end: int) -> list[Buffer]:
    """The memory map: what were outputs lives until the last call has read it."""
    last = end - 1
    found = []
    for b in program.buffers:
        until = last if b.last >= len(program.instructions) - 1 and b.kind != BufferKind.CONSTANT else b.last + before
        kind = BufferKind.ACTIVATION if b.kind == BufferKind.OUTPUT else b.kind
        begin = 0 if b.kind == BufferKind.CONSTANT else b.first + before if b.first else 0
        found.append(replace(b, first=begin, last=end if b.kind == BufferKind.CONSTANT else until, kind=kind))
    for name, operand in kept.items():
        found.append(Buffer(f"{name}_kept", operand.addr, operand.size_bytes, 0, last, BufferKind.SCRATCH))
    for piece in post.pieces:
        operand = pieces[piece.name]
        if piece.data is not None:
            found.append(Buffer(piece.name, operand.addr, piece.size_bytes, 0, end, BufferKind.CONSTANT))
            continue
        writer = next(i for i, call in enumerate(post.calls) if piece.name in map(_name, call.outputs))
        kind = BufferKind.OUTPUT if piece.name in post.outputs else BufferKind.SCRATCH
        until = end if piece.name in post.outputs else last
        found.append(Buffer(piece.name, operand.addr, piece.size_bytes, start + writer, until, kind))
    return found


def _name(output: str | Rows) -> str:
    return output.piece if isinstance(output, Rows) else output


def _rows(pieces: Mapping[str, Operand], rows: Rows) -> Operand:
    whole = pieces[rows.piece]
    return contiguous(whole.addr + rows.first * whole.strides[0], whole.dtype, (rows.count, *whole.shape[1:]))


def _stacked(pieces: Sequence[Piece], at: int) -> tuple[dict[str, Operand], int]:
    """One above the other."""
    found = {}
    for piece in pieces:
        found[piece.name] = contiguous(at, piece.dtype, piece.shape)
        at = _aligned(at + piece.size_bytes)
    return found, at


def _fitted(pieces: Sequence[Piece], low: int, busy: list[tuple[int, int]]) -> dict[str, Operand]:
    """The largest first, each at the lowest place that meets nothing."""
    found, busy = {}, sorted(busy)
    for piece in sorted(pieces, key=lambda p: -p.size_bytes):
        at = _aligned(low)
        for begin, end in busy:
            if at + piece.size_bytes <= begin:
                break
            at = max(at, _aligned(end))
        found[piece.name] = contiguous(at, piece.dtype, piece.shape)
        busy = sorted([*busy, (at, at + piece.size_bytes)])
    return found


def _aligned(at: int) -> int:
    return -(-at // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
