"""A compiled network as C for microcontrollers: runtime, network, example, build files.

  tvm-ergo compile net.tflite --objective memory --stream -o net.ergo
  tvm-ergo export-c net.ergo -o firmware
  make -C firmware                       on this machine; make run-cortex-m, make run-riscv: in QEMU

The folder holds the sources of the instructions that the network has, and nothing else is needed but the C library's
memory functions. The header says names, shapes,
scales and zero points of inputs and outputs, and the RAM that a run takes.
"""

from __future__ import annotations

import json

from tvm_ergo.cli.common import add_programs_only, add_result_arguments, check_result_paths, console, write_text

HELP = "write a compiled model as C source for microcontrollers"


def add_arguments(parser) -> None:
    parser.add_argument("model", help="a compiled model (.ergo)")
    parser.add_argument("-o", "--output", dest="folder", metavar="FOLDER", required=True, help="a new or empty folder")
    parser.add_argument("--name", help="of the network in C (default: the source file's name)")
    parser.add_argument(
        "--entry",
        help="of a model with entries (--generate, --lengths) this one, decode_256 for instance; they are in 'report'",
    )
    add_programs_only(parser)
    add_result_arguments(parser, pictures=False)


def run(arguments) -> None:
    import tvm_ergo

    check_result_paths(arguments)
    model = tvm_ergo.load(
        arguments.model, programs_only=True
    )  # what needs a library cannot be exported: none is loaded
    if arguments.entry is not None:
        model = entry_of(model, arguments.entry)
    found = tvm_ergo.export_c(model, arguments.folder, name=arguments.name)
    needs = found.needs
    console(arguments).print(
        f"{arguments.folder}: {len(found.files)} files. RAM: arena {needs.arena:,} bytes, workspace "
        f"{needs.workspace:,}; constants {needs.constants:,} bytes, read where they stand"
    )
    write_text(
        arguments.json,
        json.dumps(
            {
                "folder": arguments.folder,
                "name": found.name,
                "files": sorted(found.files),
                "arena_bytes": needs.arena,
                "workspace_bytes": needs.workspace,
                "constant_bytes": needs.constants,
            },
            indent=1,
        ),
    )


def entry_of(model, name: str):
    """The compiled model of one entry. Errors: InputError."""
    from tvm_ergo.target.errors import InputError

    found = {entry.name: entry.model for entry in model.entries}
    if name not in found:
        raise InputError(
            f"the model has no entry {name!r}",
            where=model.source,
            available=", ".join(found) or "none",
            remedy="leave --entry out for the whole sequence; entries come from compile --generate or --lengths",
        )
    return found[name]
