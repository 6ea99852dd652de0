"""Lists the operators the chip runs, their constraints, and the remedy where one is not met.

tvm-ergo ops               every rule
tvm-ergo ops conv2d        those for one operator
"""

from __future__ import annotations

import json

from rich.table import Table

from tvm_ergo.cli.common import check_result_paths, console, write_text
from tvm_ergo.target.errors import InputError

HELP = "list the supported operators and their constraints"


def add_arguments(parser) -> None:
    parser.add_argument("operator", nargs="?", help="only rules for this operator (Relax name, e.g. conv2d)")
    parser.add_argument("--json", metavar="FILE", help="write the table as JSON ('-' for standard output)")


def rows(operator: str | None = None) -> list[dict]:
    """The support table: rule, operators, what they run as, constraints, remedy."""
    from tvm_ergo.relay_passes.support import RULES
    from tvm_ergo.relay_passes.support.reference import sentence

    found = [
        {
            "rule": rule.__name__,
            "meaning": sentence(rule.__doc__),
            "operators": list(rule.ops),
            "runs as": [f"ergo.{op}" for op in rule.runs_as],
            "constraints": [sentence(c.__doc__) for c in rule.constraints()],
            "otherwise": rule.remedy,
        }
        for rule in RULES
    ]
    if operator is None:
        return found
    wanted = operator.replace("1d", "2d")  # macro.widen_1d: they run as those over two axes, of height 1
    chosen = [row for row in found if any(wanted in (op, op.rpartition(".")[2]) for op in row["operators"])]
    if not chosen:
        raise InputError(
            f"no rule for the operator {operator!r}: it runs on the host CPU",
            available=", ".join(sorted({op for row in found for op in row["operators"]})),
        )
    return chosen


def run(arguments) -> None:
    check_result_paths(arguments)
    found = rows(arguments.operator)
    table = Table(show_lines=True)
    for name in ("rule", "operators", "constraints", "otherwise"):
        table.add_column(name, overflow="fold")
    for row in found:
        table.add_row(
            row["rule"], ", ".join(row["operators"]), "\n".join(f"- {c}" for c in row["constraints"]), row["otherwise"]
        )
    console(arguments).print(table)
    write_text(arguments.json, json.dumps(found, indent=1))
