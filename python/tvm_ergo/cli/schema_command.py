"""The JSON Schema of what a command writes with --json.

tvm-ergo schema card
"""

from __future__ import annotations

HELP = "the JSON Schema of a command's --json"


def add_arguments(parser) -> None:
    from tvm_ergo.schemas import RESULTS

    parser.add_argument("result", choices=list(RESULTS), help="the command; compile writes what report does")


def run(arguments) -> int:
    from tvm_ergo.schemas import schema_text

    print(schema_text(arguments.result))
    return 0
