"""Searches how a network is carried out on the chip, under budgets of memory and power, and keeps the best for 'compile
--database'.

  tvm-ergo tune net.onnx --power-budget 75mW --fps 30 --out tuned
  tvm-ergo tune net.onnx --power-budget 0.5mW --fps 30 --gating --out gated
      with engines and banks of memory switched off where they idle
  tvm-ergo tune net.tflite --memory 256KiB --objective energy --trials 1000 --time 600 --out tuned --plot search.html
  tvm-ergo tune net.tflite --memory 256KiB --objective energy --trials 2000 --out tuned --resume
  tvm-ergo tune net.tflite --memory 256KiB --workers HOST:9190,HOST2:9190 --out tuned
      measured by workers of other machines (see 'worker')
  tvm-ergo compile net.tflite --memory 256KiB --database tuned

Every schedule is measured by the emulator's model, what is over a budget costs no trial. Ctrl-C ends it with the best
so far; a run that was interrupted or killed goes on with --resume and loses nothing."""

from __future__ import annotations

import argparse
import os
import re

from tvm_ergo.cli.common import (
    MODEL_FILES,
    add_quantize_arguments,
    check_result_paths,
    console,
    parse_rate,
    parse_size,
    parse_window,
    read_calibration,
    write_text,
)
from tvm_ergo.cli.result_paths import texts

HELP = "search for the best plan under budgets of memory and power"
UNITS = {"mw": 1.0, "w": 1000.0, "uw": 0.001, "": 1.0}


def add_arguments(parser) -> None:
    from tvm_ergo.target.machine.peak import WINDOW_S

    add_quantize_arguments(parser, MODEL_FILES)
    parser.add_argument(
        "--memory",
        type=parse_size,
        metavar="SIZE",
        help="unified memory of the chip, e.g. 512KiB (default: the chip's own)",
    )
    parser.add_argument(
        "--power-budget",
        type=parse_power,
        metavar="POWER",
        help="most average power, e.g. 75mW, idle and leakage included",
    )
    parser.add_argument("--peak-power", type=parse_power, metavar="POWER", help="most power in the worst window")
    parser.add_argument(
        "--window",
        type=parse_window,
        default=WINDOW_S,
        metavar="US",
        help="length of that window in microseconds (default 100)",
    )
    parser.add_argument(
        "--gating",
        action="store_true",
        help="count on power gating: engines and banks of memory are switched off as the chip file allows",
    )
    parser.add_argument(
        "--fps",
        type=parse_rate,
        metavar="N",
        help="frames per second that are reached, and that the power is stated at",
    )
    parser.add_argument(
        "--objective",
        choices=["latency", "energy", "edp", "memory"],
        default="latency",
        help="what is made least (default latency); edp: energy times time",
    )
    parser.add_argument("--stream", action="store_true", help="the input picture arrives row by row (see 'compile')")
    parser.add_argument(
        "--weights",
        choices=["auto", "coded", "dense"],
        default="auto",
        help="as in 'compile'; dense: no coded weights are tried",
    )
    parser.add_argument(
        "--compression",
        choices=["auto", "off", "lossless"],
        default="auto",
        help="as in 'compile' (needs --calibration)",
    )
    parser.add_argument(
        "--trials",
        type=parse_count,
        default=256,
        metavar="N",
        help="schedules measured, of all parts of the network together (default 256); those that compilation would "
        "choose "
        "are measured in any case",
    )
    parser.add_argument("--time", type=parse_rate, metavar="S", help="seconds after which the search ends")
    parser.add_argument(
        "--early-stop", type=parse_count, default=0, metavar="N", help="end after so many trials without any gain"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="the same seed gives the same result (default 0)"
    )
    parser.add_argument(
        "--strategy", choices=["evolutionary", "random"], default="evolutionary", help="random: for comparison"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for trials and results")
    parser.add_argument(
        "--workers", metavar="HOST:PORT,...", help="measure on these workers (see 'worker'); they may come and go"
    )
    parser.add_argument(
        "--key", metavar="FILE", help="the key shared with the workers (default ~/.config/tvm-ergo/worker.key)"
    )
    parser.add_argument(
        "--job-time",
        type=parse_rate,
        default=300.0,
        metavar="S",
        help="seconds after which a worker that does not answer is given up (default 300)",
    )
    parser.add_argument(
        "--processes",
        type=parse_count,
        default=1,
        metavar="N",
        help="measure in so many processes of this machine, of which no more are started than there are trials "
        "(default 1: in this one)",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--json", metavar="FILE", help="write the summary as JSON ('-' for standard output)")
    parser.add_argument(
        "--plot",
        metavar="FILE.html",
        help="write a picture of the search as one self-contained HTML page ('-' for standard output)",
    )


def parse_power(text: str) -> float:
    """``"75mW"`` -> 75.0 mW."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([a-zA-Z]*)\s*", text)
    if match is None or match[2].lower() not in UNITS or not 0 < float(match[1]) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no power; write for instance 75mW, 0.5W or 800uW")
    return float(match[1]) * UNITS[match[2].lower()]


def parse_count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10**7:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of trials; write 1 to 10000000")
    return int(text)


def _check_beside_the_run(arguments) -> None:
    """Errors: OutputError for a result under the name of one of the run's own files."""
    from tvm_ergo.target.errors import OutputError
    from tvm_ergo.tuning.store import FILES

    own = {os.path.realpath(os.path.join(arguments.out, name)) for name in FILES} if arguments.out else set()
    for path in texts(arguments):
        if path and path != "-" and os.path.realpath(path) in own:
            raise OutputError(
                "a result would replace a file of the tuning run",
                where=path,
                remedy="give a file of another name, or in another folder",
            )


def run(arguments) -> None:
    import tvm_ergo
    from tvm_ergo.cli.models import imported_model, is_compiled, quantize_options
    from tvm_ergo.target.errors import BudgetError, InputError
    from tvm_ergo.tuning.distant import measuring
    from tvm_ergo.tuning.shown import live, plot_page, summary

    check_result_paths(arguments)
    _check_beside_the_run(arguments)
    if is_compiled(arguments.model):
        raise InputError(
            "a compiled model's plan does not change any more",
            where=arguments.model,
            remedy="give the model file (.onnx, .tflite)",
        )
    calibration = read_calibration(arguments.calibration)
    with (
        live(arguments.trials) as progress,
        measuring(
            arguments.workers, arguments.processes, arguments.trials, key=arguments.key, job_s=arguments.job_time
        ) as measure,
    ):
        result = tvm_ergo.tune(
            imported_model(arguments, calibration),
            out=arguments.out,
            target=arguments.target,
            calibration=calibration,
            memory=arguments.memory,
            power_budget_mw=arguments.power_budget,
            peak_power_mw=arguments.peak_power,
            window_s=arguments.window,
            frames_per_s=arguments.fps,
            gating=arguments.gating,
            objective=arguments.objective,
            trials=arguments.trials,
            seconds=arguments.time,
            early_stop=arguments.early_stop,
            seed=arguments.seed,
            resume=arguments.resume,
            strategy=arguments.strategy,
            stream=arguments.stream,
            weights=arguments.weights,
            compression=arguments.compression,
            quantize=quantize_options(arguments),
            measure=measure,
            progress=progress,
        )
    if arguments.plot:
        write_text(arguments.plot, plot_page(result))
    write_text(arguments.json, result.model_dump_json(indent=1))
    summary(result, console(arguments))
    if not result.met:
        raise BudgetError(
            "no schedule found meets the budgets; the closest one is written",
            where=result.folder,
            remedy=_by_gating(result)
            + "--resume with more --trials goes on from it; else a larger budget or memory, a lower frame rate, or a "
            "smaller network (tvm-ergo compress)",
        )


def _by_gating(result) -> str:
    """Named first where power gating alone would do."""
    cost = result.tuned
    if (
        result.gating
        or cost.gated_mw is None
        or not result.power_mw
        or cost.gated_mw > result.power_mw
        or cost.memory_bytes > result.memory_bytes
    ):
        return ""
    return (
        f"--gating, with which the closest one takes {cost.gated_mw:.4g} mW of the {result.power_mw:g} mW (another "
        f"folder for --out); "
    )
