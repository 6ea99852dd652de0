"""Options and readers the commands share."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from rich.console import Console

from tvm_ergo.cli.post_arguments import add_post_arguments
from tvm_ergo.cli.result_paths import check_result_paths as check_result_paths
from tvm_ergo.cli.result_paths import texts
from tvm_ergo.codegen.choices import Objective, Weights
from tvm_ergo.files import write_atomically, write_together
from tvm_ergo.printed import SafeConsole
from tvm_ergo.relay_passes.array_files import read_arrays
from tvm_ergo.target.chip import bytes_of
from tvm_ergo.target.errors import TargetError
from tvm_ergo.target.limits import DEFAULT_MODEL_BYTES, OPTION

DEFAULT_TARGET = "ergo"
NETWORKS = ".onnx, .onnx.xz, .tflite or .pt2 (torch.export)"
MODEL_FILES = f"a network: {NETWORKS}, or .ergoz ('compress')"
"""What `frontend.load` reads; every command's help says it so."""


def parse_size(text: str) -> int:
    """``"64KiB"`` -> 65536 bytes. kB = 1000, KiB = 1024."""
    try:
        return bytes_of(text)
    except TargetError as error:
        raise argparse.ArgumentTypeError(error.what) from None


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """``"input=1,3,224,224"`` -> ("input", (1, 3, 224, 224))."""
    name, _, dims = text.rpartition("=")
    try:
        return name, tuple(int(d) for d in re.split("[,x]", dims))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape; write NAME=1,3,224,224") from None


def parse_rate(text: str) -> float:
    """``"30"`` -> 30.0 frames per second."""
    return _positive(text, "a frame rate; write a positive number, for instance 30 or 0.5")


def parse_cell(text: str):
    """``"CR2032"`` or ``"230mAh@3V"`` -> Cell."""
    from tvm_ergo.target.machine.sleep import cell_of

    try:
        return cell_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parse_count(text: str) -> int:
    """``"2"`` -> 2, from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a count; write a whole number from 1 on")
    return int(text)


def parse_window(text: str) -> float:
    """``"100"`` microseconds -> 100e-6 seconds."""
    return _positive(text, "the length of a window; write microseconds, for instance 100") * 1e-6


def parse_error(text: str) -> float:
    """``"0.05"`` -> 0.05, a relative error."""
    return _positive(text, "an error; write a positive number, for instance 0.05")


def parse_float_parts(text: str) -> float | str:
    """``"0.1"``, ``"auto"`` or ``"off"``."""
    return (
        text
        if text in ("auto", "off")
        else _positive(text, "a loss; write a positive number, for instance 0.1, or auto or off")
    )


def _positive(text: str, what: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return number


def add_model_arguments(parser: argparse.ArgumentParser, *, compiling: bool = False) -> None:
    add_quantize_arguments(
        parser,
        MODEL_FILES + ("" if compiling else ", or a compiled model (.ergo)"),
        "float models, and to measure what can wait compressed",
    )
    plan = parser.add_argument_group("memory and plan")
    plan.add_argument(
        "--memory",
        type=parse_size,
        metavar="SIZE",
        help="unified memory of the chip, e.g. 512KiB (default: the chip's own)",
    )
    plan.add_argument(
        "--objective",
        choices=[objective.value for objective in Objective],
        help="what is made least within the memory: latency (default), energy, or memory: activation bytes, with at "
        "most 1.35 times the "
        "multiply-accumulates unless the limit needs more",
    )
    plan.add_argument(
        "--stream",
        action="store_true",
        help="the input picture arrives row by row as the network needs it, and never lies in the memory as a whole",
    )
    add_rows_arguments(plan)
    plan.add_argument(
        "--compression",
        choices=["auto", "off", "lossless"],
        help="auto: tensors that wait are compressed where the network does not fit otherwise (needs --calibration)",
    )
    plan.add_argument(
        "--weights",
        choices=[form.value for form in Weights],
        help="auto (default): constant weights are coded where that costs no time or the memory needs it; coded: as "
        "few bytes as possible; "
        "dense: plain. Results are the same",
    )
    plan.add_argument(
        "--no-binary",
        action="store_true",
        help="layers of signs in int8, too, not packed on the binary engine. Results are the same",
    )
    plan.add_argument(
        "--binary-inputs",
        action="store_true",
        help="take float inputs that hold two values -v and v in all calibration samples for signs: the first layer "
        "may then run in 1 bit, and any other value counts as the nearer of the two",
    )
    plan.add_argument(
        "--lossless",
        action="store_true",
        help="as --compression lossless: room for the worst case, no data is ever reduced",
    )
    add_post_arguments(parser.add_argument_group("post-processing"))
    refuse = parser.add_argument_group("what is refused")
    refuse.add_argument("--strict", action="store_true", help="refuse operators that would run on the host CPU")
    refuse.add_argument(
        "--strict-accuracy",
        type=parse_error,
        metavar="LOSS",
        help="refuse a float network of whose outputs compiling loses more than LOSS (rms, relative to their "
        "deviation, on calibration inputs)",
    )


def add_rows_arguments(parser) -> None:
    """Of networks over a moving window."""
    parser.add_argument(
        "--new-rows",
        type=parse_count,
        metavar="N",
        help="the input is a window that moves over a signal by N rows a run: these alone are given, what is needed "
        "again stays in the memory, and only what they change is computed; the outputs are those of the whole window",
    )
    parser.add_argument(
        "--rows-axis",
        type=parse_count,
        metavar="A",
        help="the input's axis that counts rows (default: found; the batch is 0)",
    )


def add_quantize_arguments(parser: argparse.ArgumentParser, model: str, calibrated: str = "float models") -> None:
    """The model, the chip, and how a float model is quantized. calibrated : what calibration data are for."""
    parser.add_argument("model", help=model)
    parser.add_argument(
        "--target", default=DEFAULT_TARGET, help="ergo, ergo/1, ergo/2 or a chip file (.json); default ergo"
    )
    numbers = parser.add_argument_group("how a float network is quantized")
    numbers.add_argument(
        "--calibration",
        metavar="DATA",
        help=f"{calibrated}: .npz/.npy of example inputs, or the name of an evaluation task (see 'eval --list')",
    )
    numbers.add_argument(
        "--method",
        default=None,
        choices=["minmax", "percentile", "mse"],
        help="how ranges are taken from the calibration data",
    )
    numbers.add_argument(
        "--percentile",
        type=float,
        metavar="P",
        help="for --method percentile: the share of values inside the range, in percent",
    )
    numbers.add_argument(
        "--equalize",
        choices=["auto", "on", "off"],
        help="equalize channels between layers (auto: whichever of the two forms is closer to the float network)",
    )
    numbers.add_argument(
        "--project-channels",
        type=parse_error,
        metavar="ERROR",
        help="keep tensors in fewer channels where that changes the outputs by at most ERROR of their deviation (rms, "
        "on calibration data)",
    )
    numbers.add_argument(
        "--float-parts",
        type=parse_float_parts,
        metavar="LOSS",
        help="tensors by which int8 loses more of the outputs than LOSS (rms, relative to their deviation) stay in "
        "float, on the host CPU; auto "
        "(default): only where int8 ruins the network; off: never",
    )
    numbers.add_argument(
        "--sixteen-bits",
        type=parse_error,
        metavar="LOSS",
        help="tensors of which the outputs lose most become int16 on the chip, as few as bring the loss (rms, relative "
        "to their deviation) to LOSS; takes time and memory",
    )
    parser.add_argument(
        "--input-shape",
        type=parse_shape,
        action="append",
        default=[],
        metavar="NAME=DIMS",
        help="static shape of a dynamic input",
    )
    add_limit_argument(parser)


def add_programs_only(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--programs-only",
        action="store_true",
        help="never load a library out of a compiled model (.ergo), which is executable code: refuse a model that "
        "needs one. For files from others",
    )


def add_limit_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        OPTION,
        type=parse_size,
        metavar="SIZE",
        help="what a file may ask for: bytes of constants and computed tensors together, added up before any of it is "
        "allocated "
        f"(default {DEFAULT_MODEL_BYTES >> 30}GiB)",
    )


def add_result_arguments(parser: argparse.ArgumentParser, *, pictures: bool = True) -> None:
    results = parser.add_argument_group("results")
    results.add_argument("--json", metavar="FILE", help="write the result as JSON ('-' for standard output)")
    if pictures:
        results.add_argument(
            "--html", metavar="FILE", help="write the report as one self-contained HTML page ('-' for standard output)"
        )
        results.add_argument(
            "--trace", metavar="FILE", help="write a Chrome/Perfetto trace of the engines ('-' for standard output)"
        )
        results.add_argument(
            "--fps",
            type=parse_rate,
            action="append",
            metavar="N",
            help="a frame rate to state the power at; may be repeated (default 1 and 30)",
        )
        add_battery_argument(results)


def add_battery_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--battery",
        type=parse_cell,
        metavar="CELL",
        help="how long a cell lasts: CR2032, AAA, AA, LiPo500, 18650, or as in 230mAh@3V",
    )


def write_text(path: str | None, text: str) -> None:
    """To a file, to standard output ("-"), or nowhere (None)."""
    if path == "-":
        print(text)
    elif path:
        write_atomically(path, text + "\n")


def write_results_together(binary: tuple[str | None, bytes], *texts: tuple[str | None, str]) -> None:
    """All files or none, then what goes to standard output ("-"). Each is ``(path or None, what is written there)``.
    Errors: OutputError."""
    files = [binary, *((path, text + "\n") for path, text in texts)]
    write_together([(path, data) for path, data in files if path and path != "-"])
    for path, text in texts:
        if path == "-":
            print(text)


def console(arguments: argparse.Namespace, width: int = 130) -> Console:
    """Standard output, or standard error where standard output carries a result. width : columns into a file or
    pipe."""
    return report_console("-" in texts(arguments), width)


def report_console(stderr: bool = False, width: int = 130) -> Console:
    """As wide as the terminal; ``width`` columns into a file or pipe."""
    found = SafeConsole(stderr=stderr)
    return found if found.is_terminal else SafeConsole(stderr=stderr, width=width)


def read_calibration(text: str | None):
    """``--calibration``: arrays from a file, or the calibration samples of a named evaluation task; None stays None."""
    if text is None:
        return None
    if Path(text).suffix in (".npz", ".npy") or Path(text).exists():
        arrays = read_arrays(text)
        return arrays[""] if set(arrays) == {""} else arrays
    from tvm_ergo import evaluation

    return evaluation.calibration_inputs(text)
