"""Runs a model on the emulated chip.

  tvm-ergo run net.ergo --input image.npy --output logits.npz
  tvm-ergo run net.ergo --random 0            a seeded random input, for a first look
  tvm-ergo run net.ergo --random 0 --programs-only        a file from somebody else

A compiled model with operators on the host CPU (.ergo) holds a library, which is executable code: run it only if you
trust whoever made it. With --programs-only no library is ever loaded. Models of which the chip computes everything hold
no library."""

from __future__ import annotations

import io

import numpy as np

from tvm_ergo.cli.common import (
    add_model_arguments,
    add_programs_only,
    add_result_arguments,
    check_result_paths,
    console,
    write_text,
)
from tvm_ergo.files import write_atomically
from tvm_ergo.relay_passes.array_files import read_arrays
from tvm_ergo.target.errors import InputError, one_line

HELP = "run a model on the emulated chip"


def add_arguments(parser) -> None:
    add_model_arguments(parser)
    add_programs_only(parser)
    parser.add_argument(
        "--input", action="append", default=[], metavar="[NAME=]FILE", help=".npy, or .npz with arrays by input name"
    )
    parser.add_argument("--random", type=int, metavar="SEED", help="run on seeded random input")
    parser.add_argument("--output", "-o", metavar="FILE", help="write the outputs (.npz)")
    add_result_arguments(parser, pictures=False)


def run(arguments) -> None:
    import json

    from tvm_ergo.cli.models import open_model

    check_result_paths(arguments, arguments.output)
    if not arguments.input and arguments.random is None:
        raise InputError("no input given", remedy="give --input FILE, or --random SEED for a seeded random input")
    if arguments.input and arguments.random is not None:
        raise InputError("--input and --random are two inputs", remedy="give one of the two")
    if arguments.random is not None and arguments.random < 0:
        raise InputError(
            "--random must be at least 0",
            available=str(arguments.random),
            remedy="give a seed, for instance --random 0",
        )
    compiled = open_model(arguments)
    result = compiled.run(gather_inputs(arguments, compiled))
    named = {name: np.asarray(array) for name, array in result.outputs.items()}
    out = console(arguments)
    for name, array in named.items():
        out.print(f"{one_line(name)}: {array.dtype} {list(array.shape)}, {values_line(array)}")
    for line in compression_lines(result.compressed):
        out.print(line)
    if arguments.output:
        buffer = io.BytesIO()
        np.savez(buffer, **named)
        write_atomically(arguments.output, buffer.getvalue())
    values = {
        name: {"dtype": str(a.dtype), "shape": list(a.shape), "data": a.ravel().tolist()} for name, a in named.items()
    }
    if result.compressed:  # a list, where outputs are objects
        values.setdefault("compressed", result.compressed)
    write_text(arguments.json, json.dumps(values))


def values_line(array: np.ndarray) -> str:
    """What a run says of an output's values; a network may well give an output of no elements."""
    if not array.size:
        return "no elements"
    return f"min {array.min():.6g}, max {array.max():.6g}" + (
        f", argmax {int(array.argmax())}" if array.size > 1 else ""
    )


def compression_lines(compressed: list[dict]) -> list[str]:
    """What a run says of the tensors it kept compressed: nothing of their values was lost, or where."""
    if not compressed:
        return []
    tiles, reduced = (sum(c[key] for c in compressed) for key in ("tiles", "reduced"))
    if not reduced:
        return [f"compressed: {len(compressed)} tensors in {tiles} tiles, all exact"]
    lines = [
        f"compressed: {len(compressed)} tensors in {tiles} tiles, {reduced} of them in fewer bits because their data "
        f"did not fit"
    ]
    for c in compressed:
        if c["reduced"]:
            lost = ", ".join(
                f"{count} without {bits} bit{'s' * (bits > 1)}"
                for bits, count in enumerate(c["by_dropped"])
                if bits and count
            )
            lines.append(f"  {c['name']}: of {c['tiles']} tiles {lost}")
    return lines


def gather_inputs(arguments, compiled) -> dict[str, np.ndarray]:
    """Arrays by input name, from files or a seeded generator."""
    if arguments.random is not None:
        rng = np.random.default_rng(arguments.random)
        return {port.name: _random(rng, port) for port in compiled.inputs}
    found: dict[str, np.ndarray] = {}
    for text in arguments.input:
        name, _, path = text.rpartition("=")
        arrays = read_arrays(path, InputError)
        if set(arrays) == {""} or (name and len(arrays) == 1):
            if not name and len(compiled.inputs) != 1:
                raise InputError(
                    "which input is this?",
                    where=path,
                    available=", ".join(p.name for p in compiled.inputs),
                    remedy="write --input NAME=FILE",
                )
            arrays = {name or compiled.inputs[0].name: next(iter(arrays.values()))}
        twice = sorted(set(found) & set(arrays))
        if twice:
            raise InputError(f"an input is given twice: {', '.join(twice)}", where=path, remedy="give each input once")
        found.update(arrays)
    return found


def _random(rng: np.random.Generator, port) -> np.ndarray:
    dtype = np.dtype(port.dtype)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return (
            rng.integers(info.min, info.max, port.shape, dtype, endpoint=True)
            if dtype.itemsize == 1
            else np.zeros(port.shape, dtype)
        )
    return rng.standard_normal(port.shape).astype(dtype)
