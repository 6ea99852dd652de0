"""Compiles a trained network for the chip and says what it costs.

tvm-ergo compile net.onnx --calibration images.npz -o net.ergo
tvm-ergo compile net.tflite --target ergo/2 --memory 512KiB --strict --html report.html
"""

from __future__ import annotations

from tvm_ergo.cli.common import add_model_arguments, add_result_arguments, check_result_paths, console

HELP = "compile a model for the chip"


def add_arguments(parser) -> None:
    add_model_arguments(parser, compiling=True)
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="the compiled model (.ergo), for 'run', 'eval', 'report' and 'disasm'"
    )
    parser.add_argument("--database", metavar="DIR", help="folder that 'tune --out' wrote: its plans are taken")
    parser.add_argument(
        "--lengths",
        metavar="N,N,...",
        help="also for sequences of so many tokens, with shared weights: 'run' takes the smallest that holds its input",
    )
    parser.add_argument(
        "--generate", action="store_true", help="also token by token, with keys and values kept: for 'generate'"
    )
    parser.add_argument("--tokenizer", metavar="FILE", help="vocabulary (.npz, .bin), kept in the compiled model")
    parser.add_argument(
        "--verbose", action="store_true", help="the whole report on the terminal; without, one screen of it"
    )
    add_result_arguments(parser)
    add_stage_arguments(parser)


def add_stage_arguments(parser) -> None:
    """For those who work on the compiler: looking at it stage by stage."""
    group = parser.add_argument_group("looking at the compiler", "stages: see docs/architecture.md; ERGO_DEBUG=1 to 4")
    group.add_argument("--time-stages", action="store_true", help="seconds of every stage, on standard error")
    group.add_argument(
        "--print-after",
        metavar="STAGE",
        action="append",
        default=[],
        help="print the Relax module after STAGE on standard error; may be given again",
    )
    group.add_argument(
        "--stop-after", metavar="STAGE", help="end after STAGE and print its module on standard output; writes nothing"
    )


def run(arguments) -> None:
    from tvm_ergo.cli.models import asked_options, is_compiled, open_model, report_of, write_results
    from tvm_ergo.report.brief import print_brief
    from tvm_ergo.report.terminal import print_report
    from tvm_ergo.stage_watch import watch_stages
    from tvm_ergo.target.environment import debug_level
    from tvm_ergo.target.errors import InputError, OutputError
    from tvm_ergo.tuning.store import Database

    check_result_paths(arguments, arguments.output)
    if is_compiled(arguments.model):
        raise InputError(
            "this model is compiled already", where=arguments.model, remedy="use 'tvm-ergo report' or 'tvm-ergo run'"
        )
    if arguments.output and not is_compiled(arguments.output):
        raise OutputError(
            "a compiled model's name ends in .ergo", where=arguments.output, remedy=f"write -o {arguments.output}.ergo"
        )
    if arguments.database:
        Database.read(arguments.database).check_options(**asked_options(arguments))
    level = max(1, debug_level()) if arguments.time_stages else None
    with watch_stages(stop_after=arguments.stop_after, print_after=arguments.print_after, level=level) as watch:
        compiled = open_model(arguments)
    if arguments.stop_after is not None:
        console(arguments).print(watch.module.script(), soft_wrap=True)
        return
    report = report_of(arguments, compiled)
    write_results(arguments, compiled, report, arguments.output)  # before printing: the reader of a pipe may go away
    if arguments.output:
        console(arguments).print(f"wrote {arguments.output}")
    if arguments.verbose:
        print_report(report, console(arguments), layers=False)
    else:
        print_brief(report, console(arguments), arguments.output)
