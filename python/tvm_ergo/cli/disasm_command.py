"""A compiled model's Programs as assembler text.

tvm-ergo disasm net.ergo               instructions and directives, data sections left out
tvm-ergo disasm net.ergo --full -o net.asm       everything: assembling the text gives the same bytes back
"""

from __future__ import annotations

from tvm_ergo.cli.common import add_limit_argument, check_result_paths, write_text
from tvm_ergo.target.errors import InputError

HELP = "show a compiled model as assembler text"

LONGEST_META = 160
"""Characters of a line about the program that people may want to read."""


def add_arguments(parser) -> None:
    parser.add_argument("model", help="a compiled model (.ergo)")
    add_limit_argument(parser)
    parser.add_argument("--symbol", help="only this program (a network with host operators in its middle has several)")
    parser.add_argument("--full", action="store_true", help="with the data sections (base64)")
    parser.add_argument(
        "-o", "--output", dest="text", metavar="FILE", help="write to a file (default, and '-': standard output)"
    )


def run(arguments) -> None:
    import tvm_ergo

    check_result_paths(arguments)
    programs = tvm_ergo.load(arguments.model, programs_only=True).programs
    if arguments.symbol and arguments.symbol not in programs:
        raise InputError(
            f"no program {arguments.symbol!r} in this model",
            where=arguments.model,
            available=", ".join(programs),
            remedy="give one of these names, or none for all programs",
        )
    texts = []
    for symbol, program in programs.items():
        if arguments.symbol in (None, symbol):
            text = program.to_text()
            texts.append(text if arguments.full else without_data(text))
    write_text(arguments.text or "-", "\n".join(texts))


def without_data(text: str) -> str:
    """The text without the base64 lines of its data sections and without the tables of tensors, weights and so on, each
    of which is one very long line."""
    from tvm_ergo.target.program_text import strip_data

    return "\n".join(
        line for line in strip_data(text).split("\n") if not line.startswith(".meta ") or len(line) <= LONGEST_META
    )
