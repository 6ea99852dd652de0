"""What a network can be had for: the Pareto front of memory, cycles and energy, every point a plan that was lowered and
priced.

  tvm-ergo explore net.tflite --html front.html
  tvm-ergo explore net.onnx --calibration images.npz --stream --points 20 --json -
  tvm-ergo explore wakeword.tflite --new-rows 1        also with the new rows of a moving window alone
  tvm-ergo explore net.onnx --calibration images.npz --weights dense --compression off

The memory of a point, constants and activations together, is what to give 'compile' as --memory. With calibration data
a further series of each frame has the plans below that in which tensors wait compressed (--compression off: not looked
for). 'compile --objective memory' computes at most 1.35 times the network's multiply-accumulates; a limit may need
more, and the front shows what a limit reaches, with its multiply-accumulates."""

from __future__ import annotations

import argparse

from tvm_ergo.cli.common import (
    MODEL_FILES,
    add_quantize_arguments,
    add_rows_arguments,
    check_result_paths,
    console,
    read_calibration,
    write_text,
)
from tvm_ergo.cli.progress import progress_bar

HELP = "what each size of memory buys in time and energy"


def add_arguments(parser) -> None:
    from tvm_ergo.codegen.choices import POINTS, Weights

    add_quantize_arguments(parser, MODEL_FILES, "float models, and to measure what can wait compressed")
    parser.add_argument(
        "--weights",
        choices=[form.value for form in Weights],
        default=Weights.AUTO.value,
        help="auto (default): plans with constant weights coded for free, at some loss of time, and in as few bytes "
        "as possible, whichever suits a limit; "
        "coded: as few bytes as possible; dense: plain",
    )
    parser.add_argument(
        "--compression",
        choices=["auto", "off", "lossless"],
        default="auto",
        help="auto (default): also plans in which tensors wait compressed, measured on the calibration data; "
        "lossless: with room for the worst case",
    )
    parser.add_argument(
        "--stream", action="store_true", help="also with the frame received row by row, as a second series"
    )
    add_rows_arguments(parser)
    parser.add_argument(
        "--points",
        type=_count,
        default=POINTS,
        metavar="N",
        help=f"limits tried between least memory and whole layers (default {POINTS})",
    )
    parser.add_argument("--point", help="operating point of the chip (see 'targets'); default: the chip's first")
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON ('-' for standard output)")
    parser.add_argument(
        "--html", metavar="FILE", help="write the picture as one self-contained HTML page ('-' for standard output)"
    )


def _count(text: str) -> int:
    if not text.isdecimal() or not 2 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of points; write 2 to 1000")
    return int(text)


def run(arguments) -> None:
    from pathlib import Path

    import tvm_ergo
    from tvm_ergo.cli.models import imported_model, is_compiled, quantize_options
    from tvm_ergo.report.front_html import front_page
    from tvm_ergo.report.terminal import front_table
    from tvm_ergo.target.errors import InputError

    check_result_paths(arguments)
    if is_compiled(arguments.model):
        raise InputError(
            "a compiled model's plan does not change any more",
            where=arguments.model,
            remedy="give the model file (.onnx, .tflite)",
        )
    calibration = read_calibration(arguments.calibration)
    with progress_bar(f"exploring {Path(arguments.model).name}") as advance:
        front = tvm_ergo.explore(
            imported_model(arguments, calibration),
            target=arguments.target,
            calibration=calibration,
            stream=arguments.stream,
            new_rows=arguments.new_rows,
            rows_axis=arguments.rows_axis,
            points=arguments.points,
            point=arguments.point,
            weights=arguments.weights,
            compression=arguments.compression,
            quantize=quantize_options(arguments),
            progress=lambda step, done, total: advance(done, total, description=step),
        )
    if arguments.html:
        write_text(arguments.html, front_page(front))
    write_text(arguments.json, front.model_dump_json(indent=1))
    for series in front.series:
        console(arguments).print(front_table(front, series))
    for note in front.notes:
        console(arguments).print(note)
