"""What became better or worse from A to B, as a whole and layer by layer: two networks, two builds, two chips.

tvm-ergo compare float16.ergo int8.ergo
tvm-ergo compare net.tflite net.tflite --target ergo/1 --target-b ergo/2
tvm-ergo compare yesterday.json net.ergo --fail-if "cycles > 2% or memory > 0%"     .json: what 'report --json' wrote
"""

from __future__ import annotations

import argparse
import copy

from tvm_ergo.cli.common import add_model_arguments, check_result_paths, console, parse_rate, parse_size, write_text

HELP = "what became better or worse between two networks or chips"


def add_arguments(parser) -> None:
    add_model_arguments(parser)
    parser.add_argument("other", metavar="B", help="as the first; or a report's JSON ('report --json')")
    parser.add_argument("--target-b", metavar="CHIP", help="B's chip (default: as --target)")
    parser.add_argument("--memory-b", type=parse_size, metavar="SIZE", help="B's memory (default: as --memory)")
    parser.add_argument(
        "--fps", type=parse_rate, action="append", metavar="N", help="the frame rate to state the power at (default 30)"
    )
    parser.add_argument(
        "--fail-if",
        metavar="CONDITION",
        help='exit code 1 where it holds of B\'s changes against A, in percent: "cycles > 2%% or memory > 0%%"',
    )
    parser.add_argument("--json", metavar="FILE", help="write the comparison as JSON ('-' for standard output)")


def run(arguments) -> int:
    from tvm_ergo.card.conditions import parse_condition
    from tvm_ergo.card.difference import UNITS, difference_of
    from tvm_ergo.card.screen import print_difference
    from tvm_ergo.cli.card_command import COLUMNS, FAILED
    from tvm_ergo.cli.models import is_compiled, refuse_compile_options
    from tvm_ergo.report.saved import is_report

    check_result_paths(arguments)
    kinds = dict.fromkeys(UNITS, "percent")
    condition = None if arguments.fail_if is None else parse_condition(arguments.fail_if, kinds)
    second = copy.copy(arguments)
    second.model = arguments.other
    second.target = arguments.target_b or arguments.target
    second.memory = arguments.memory if arguments.memory_b is None else arguments.memory_b
    if all(is_compiled(one.model) or is_report(one.model) for one in (arguments, second)):
        refuse_compile_options(arguments)
        refuse_compile_options(second)
    difference = difference_of(_report(arguments), _report(second))
    met = None if condition is None else condition.met(difference.changes())
    write_text(arguments.json, difference.model_dump_json(indent=1))
    print_difference(difference, console(arguments, COLUMNS))
    if met is not None:
        console(arguments, COLUMNS).print(f"failed: {met}")
        return FAILED
    return 0


def _report(arguments: argparse.Namespace):
    """The report of a network, a compiled model, or of a file that 'report --json' wrote."""
    from tvm_ergo.cli.models import is_compiled, open_model, report_of, without_compile_options
    from tvm_ergo.report.saved import is_report, read_report

    if is_report(arguments.model):
        return read_report(arguments.model)
    if is_compiled(arguments.model):
        arguments = without_compile_options(arguments)  # they are of the other network
        arguments.programs_only = True
    return report_of(arguments, open_model(arguments))
