"""The page somebody who chooses a chip asks for: does it run whole, in what memory, how fast, for what energy, how
accurate?

tvm-ergo card net.tflite
tvm-ergo card net.onnx --calibration images.npz --data test.npz --html card.html
tvm-ergo card net.ergo --fail-if "memory > 512KiB or host_ops > 0"     exit code 1 where that holds, for scripts
"""

from __future__ import annotations

from tvm_ergo.cli.common import add_battery_argument, add_model_arguments, check_result_paths, console, parse_rate

HELP = "one screen for who chooses a chip: the five answers"

COLUMNS = 80
"""Of a screen, where it goes into a file or pipe."""
FAILED = 1
"""Exit code where the condition of --fail-if holds."""


def add_arguments(parser) -> None:
    add_model_arguments(parser)
    parser.add_argument(
        "--data", metavar="FILE", help=".npz with inputs x and labels y: accuracy on the chip and in float"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N samples of the data")
    parser.add_argument(
        "--fps", type=parse_rate, action="append", metavar="N", help="the frame rate to state the power at (default 30)"
    )
    add_battery_argument(parser)
    parser.add_argument(
        "--fail-if",
        metavar="CONDITION",
        help="exit code 1 where it holds: figures of the summary line with units, joined by and, or: "
        '"memory > 512KiB or host_ops > 0 or drop > 0.5"',
    )
    parser.add_argument("--json", metavar="FILE", help="write the card as JSON ('-' for standard output)")
    parser.add_argument("--html", metavar="FILE", help="write it as one HTML page ('-' for standard output)")


def run(arguments) -> int:
    from tvm_ergo.card.build import build_card, measured_rows
    from tvm_ergo.card.conditions import parse_condition
    from tvm_ergo.card.model import KINDS
    from tvm_ergo.card.page import card_page
    from tvm_ergo.card.screen import print_card
    from tvm_ergo.cli.common import write_results_together
    from tvm_ergo.cli.models import report_of

    check_result_paths(arguments)
    condition = None if arguments.fail_if is None else parse_condition(arguments.fail_if, KINDS)
    compiled, rows = _opened(arguments)
    card = build_card(report_of(arguments, compiled), measured_rows(rows))
    met = None if condition is None else condition.met(card.figures())
    write_results_together(
        (arguments.html, card_page(card) if arguments.html else ""), (arguments.json, card.model_dump_json(indent=1))
    )
    print_card(card, console(arguments, COLUMNS))
    if met is not None:
        console(arguments, COLUMNS).print(f"failed: {met}")
        return FAILED
    return 0


def _opened(arguments):
    """The compiled model, and what was measured on labelled data, if there are any."""
    from tvm_ergo import evaluation
    from tvm_ergo.cli import eval_command
    from tvm_ergo.cli.models import is_compiled, open_model
    from tvm_ergo.relay_passes.array_files import read_arrays
    from tvm_ergo.target.errors import InputError

    if arguments.limit is not None and arguments.limit < 1:
        raise InputError("--limit must be at least 1", available=str(arguments.limit), remedy="--limit 100")
    own = read_arrays(arguments.data, InputError) if arguments.data else None
    task = None if own else evaluation.find_task(arguments.model)
    if task and not is_compiled(arguments.model):
        arguments.model = str(evaluation.shared_root() / "models" / task.path)
        if not task.quantized:
            arguments.calibration = arguments.calibration or task.stem
        arguments.input_shape = arguments.input_shape or list(evaluation.input_shapes_of(task).items())
    if own:  # refused before the compile, which may take minutes
        evaluation.own_test(own, arguments.data, "")
    compiled = open_model(arguments)
    tests = [evaluation.own_test(own, arguments.data, compiled.inputs[0].name)] if own else task.tests if task else []
    with_float, _ = eval_command.float_wanted(None, bool(own), compiled.reference)
    return compiled, [row for test in tests for row in eval_command.measure(arguments, compiled, test, with_float)]
