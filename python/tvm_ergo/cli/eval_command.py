"""Measures a network's accuracy on the emulated chip, over all images of an evaluation set.

tvm-ergo eval resnet20_cifar10           a task of the shared folder (ERGO_SHARED): model, data and metric by name
tvm-ergo eval mobilenet_v2_1.0_224_fp32 --limit 100 --test imagenet_nips17
tvm-ergo eval net.onnx --calibration train.npz --data test.npz
    your own data: arrays x (n, ...) and y (n labels), top-1 and top-5, beside the float network's
tvm-ergo eval --list                     the tasks
"""

from __future__ import annotations

import argparse
import json
import threading
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from tvm_ergo.cli.common import add_model_arguments, add_programs_only, check_result_paths, console, write_text
from tvm_ergo.cli.progress import progress_bar
from tvm_ergo.cli.run_command import compression_lines
from tvm_ergo.relay_passes.array_files import read_arrays
from tvm_ergo.target.errors import InputError
from tvm_ergo.target.machine.kernels.workers import thread_count

HELP = "accuracy on the emulated chip, over a whole data set"
BIG_MEMORY_BYTES = 256 << 20


def add_arguments(parser) -> None:
    add_model_arguments(parser)
    add_programs_only(parser)
    next(a for a in parser._actions if a.dest == "model").nargs = "?"
    parser.add_argument("--data", metavar="FILE", help=".npz with arrays x and y of your own; default: the task's data")
    parser.add_argument("--test", metavar="NAME", help="only this test of the task")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N samples")
    parser.add_argument("--list", action="store_true", help="list the tasks of the shared folder")
    parser.add_argument(
        "--float",
        action=argparse.BooleanOptionalAction,
        help="also run the float network on the same samples, which takes up to as long again as the chip "
        "(default: with --data, where the model is in float)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON ('-' for standard output)")


def run(arguments) -> None:
    from tvm_ergo import evaluation
    from tvm_ergo.evaluation import lookup

    check_result_paths(arguments)
    if arguments.list:
        return list_tasks(arguments)
    if not arguments.model:
        raise InputError("no model given", remedy="give a model file, or a task's name (see 'tvm-ergo eval --list')")
    if arguments.limit is not None and arguments.limit < 1:
        raise InputError(
            "--limit must be at least 1",
            available=str(arguments.limit),
            remedy="give a number of samples, or leave --limit out for all",
        )
    task = evaluation.find_task(arguments.model)
    own = read_arrays(arguments.data, InputError) if arguments.data else None
    if own and arguments.test:
        raise InputError(
            "--test names a test of a task, and --data is your own",
            available=arguments.test,
            remedy="give one of the two",
        )
    if not task and not Path(arguments.model).exists():
        lookup.task(arguments.model)  # says that it is neither a file nor a task
    if own:
        tests = []
    elif task:
        tests = [t for t in task.tests if arguments.test in (None, t.name)]
        if not tests:
            raise InputError(
                f"no test {arguments.test!r}",
                where=task.stem,
                available=", ".join(t.name for t in task.tests),
                remedy="use one of these with --test",
            )
    else:
        raise InputError(
            "no data to evaluate on",
            where=arguments.model,
            remedy="give --data FILE.npz with arrays x and y, or the name of a task (see 'tvm-ergo eval --list')",
        )
    compiled = open_for_eval(arguments, task)
    if arguments.float and compiled.reference is None:
        raise InputError(
            "a compiled file does not hold the float network that --float would run",
            where=arguments.model,
            remedy="give the model file (.onnx, .tflite)",
        )
    if own:
        tests = [evaluation.own_test(own, arguments.data, compiled.inputs[0].name)]
    with_float, why_not = float_wanted(arguments.float, bool(own), compiled.reference)
    rows = [row for test in tests for row in measure(arguments, compiled, test, with_float)]
    if own and not with_float:
        rows[0]["no float reference"] = why_not
    show(arguments, rows)


def list_tasks(arguments) -> None:
    from tvm_ergo.evaluation import TASKS

    table = Table()
    for name in ("task", "tests", "float figures", "calibration"):
        table.add_column(name, overflow="fold")
    rows = [
        {
            "task": stem,
            "tests": [t.name for t in task.tests],
            "float figures": {t.name: t.figures for t in task.tests},
            "calibration": task.calibration.note if task.calibration else "none needed: quantized already",
        }
        for stem, task in TASKS.items()
    ]
    for row in rows:
        table.add_row(
            row["task"],
            ", ".join(row["tests"]),
            "; ".join(_figures(f) for f in row["float figures"].values()),
            row["calibration"],
        )
    console(arguments).print(table)
    write_text(arguments.json, json.dumps(rows, indent=1))


def open_for_eval(arguments: argparse.Namespace, task):
    """The compiled model; a task's model brings its own calibration data, and, unless told otherwise, a memory it fits
    in."""
    from tvm_ergo import evaluation
    from tvm_ergo.cli.models import is_compiled, open_model

    if task and not is_compiled(arguments.model):
        arguments.model = str(evaluation.shared_root() / "models" / task.path)
        if not task.quantized:
            arguments.calibration = arguments.calibration or task.stem
        arguments.input_shape = arguments.input_shape or list(evaluation.input_shapes_of(task).items())
        if arguments.memory is None:
            arguments.memory = BIG_MEMORY_BYTES
            console(arguments).print(
                f"planned for {BIG_MEMORY_BYTES >> 20} MiB, so that every net can be evaluated: accuracy does not "
                f"depend on "
                "it, and this says nothing about whether the net fits a chip ('tvm-ergo report' does)"
            )
    return open_model(arguments)


def float_wanted(asked: bool | None, own_data: bool, reference) -> tuple[bool, str]:
    """``(whether the float network runs too, why not)``. A task's float figures are known; of a user's own data nobody
    has any.

    asked : --float, --no-float, or None. reference : the network before quantization, None in a compiled file.
    """
    from tvm_ergo.pipeline import is_integer
    from tvm_ergo.relay_passes.micro.quantize import is_quantized

    if asked is not None:
        return asked, "" if asked else "--no-float was given"
    if reference is None:
        return False, "a compiled file does not hold the float network; give the model file"
    if is_integer(reference) or is_quantized(reference):
        return False, "the network given is quantized already; eval of the float model file gives its figure"
    return own_data, ""


def measure(arguments, compiled, test, with_float: bool = False) -> list[dict]:
    """One row for the chip and, if wanted, one for the float network, which is what the chip's is compared with where
    nothing else is known."""
    from tvm_ergo import evaluation
    from tvm_ergo.post.measured import measurable

    counted, lock = Counted(), threading.Lock()

    def on_chip(feeds):
        if compiled.states:
            compiled.reset()  # samples have nothing to do with each other
        result = compiled.run(feeds)
        with lock:
            counted.add(result.compressed)
        return measurable(compiled, result.outputs)

    runs = {"chip int8": on_chip}
    if with_float:
        runs["float"] = compiled.run_float
    # a state has one sample at a time; else images over threads give more a second than layers over threads
    threads = 1 if compiled.states else thread_count()
    rows, chip = [], None
    for kind, call in runs.items():
        with progress_bar(f"{test.name} ({kind})") as advance:
            outcome = evaluation.evaluate(
                test, call, limit=arguments.limit, threads=threads if call is on_chip else 1, progress=advance
            )
        chip = outcome if kind == "chip int8" else chip
        whole = outcome.samples == len(
            test.source.indices()
        )  # a part is not comparable with the figures over all samples
        rows.append(
            {
                "test": outcome.test,
                "network": kind,
                "samples": outcome.samples,
                "figures": outcome.figures,
                "float reference": outcome.reference,
                "loss": outcome.loss if whole else None,
                "primary": outcome.primary,
                "higher_is_better": outcome.higher_is_better,
                "compressed": counted.rows() if kind == "chip int8" else [],
            }
        )
    if with_float and not test.figures:
        rows[0] |= {"float reference": outcome.figures, "loss": replace(chip, reference=outcome.figures).loss}
    return rows


class Counted:
    """The tensors that waited compressed, summed over runs: how many of their tiles lost low bits, as in
    `RunResult.compressed`, and in how many runs."""

    def __init__(self):
        self._runs, self._rows = 0, {}

    def add(self, compressed: list[dict]) -> None:
        self._runs += 1
        for row in compressed:
            total = self._rows.setdefault(
                (row["symbol"], row["node"], row["name"]),
                {**row, "tiles": 0, "reduced": 0, "by_dropped": [0] * len(row["by_dropped"]), "runs_reduced": 0},
            )
            total["tiles"] += row["tiles"]
            total["reduced"] += row["reduced"]
            total["runs_reduced"] += row["reduced"] > 0
            total["by_dropped"] = [sum(pair) for pair in zip(total["by_dropped"], row["by_dropped"], strict=True)]

    def rows(self) -> list[dict]:
        return [{**row, "runs": self._runs} for row in self._rows.values()]


def show(arguments, rows: list[dict]) -> None:
    table = Table()
    known = any(row["float reference"] for row in rows)
    reference = (
        "float reference" if arguments.data else "float reference (all samples)"
    )  # of own data measured now, of a task once
    for name in ("test", "network", "samples", "figures", *((reference, "change") if known else ())):
        table.add_column(name, overflow="fold")
    for row in rows:
        change = "" if row["loss"] is None else f"{0 - row['loss']:+.2f} {row['primary']}"
        table.add_row(
            row["test"],
            row["network"],
            str(row["samples"]),
            _figures(row["figures"]),
            *((_figures(row["float reference"]), change) if known else ()),
        )
    out = console(arguments)
    out.print(table)
    if "no float reference" in rows[0]:
        out.print(f"no float figure to compare with: {rows[0]['no float reference']}", markup=False)
    for row in rows:
        for line in compression_lines(row["compressed"]):
            out.print(f"{row['test']}: {line}" if not line.startswith(" ") else line, markup=False)
    write_text(arguments.json, json.dumps(rows, indent=1))


def _figures(figures: dict) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in figures.items())
