"""Makes a trained network smaller, without training, and says what that costs.

  tvm-ergo compress net.onnx --calibration train.npz --data test.npz --max-drop 0.5 -o net.ergoz
  tvm-ergo compress net.onnx --calibration train.npz --size 500KB -o net.ergoz --html report.html
  tvm-ergo compress resnet20_cifar10 --max-drop 0.5     a task of the shared folder: model, data and metric by name
  tvm-ergo compress net_int8.tflite -o net.ergoz        quantized already: only coded, nothing is lost; the float
                                                        network gives a smaller file by far

The result (.ergoz) is quantized: every command takes it in place of the network, without calibration data.
"""

from __future__ import annotations

import argparse

from tvm_ergo.cli.common import (
    NETWORKS,
    add_quantize_arguments,
    check_result_paths,
    console,
    parse_size,
    read_calibration,
    write_results_together,
)
from tvm_ergo.cli.progress import progress_bar
from tvm_ergo.relay_passes.array_files import read_arrays
from tvm_ergo.target.errors import InputError, OutputError

HELP = "smaller networks, to a size or a largest drop of accuracy"


def add_arguments(parser) -> None:
    add_quantize_arguments(parser, f"a network: {NETWORKS}; or a task's name (see 'eval --list')")
    parser.add_argument(
        "--data",
        metavar="FILE",
        help=".npz with arrays x and y of your own, to measure the accuracy on; default: the task's",
    )
    parser.add_argument("--test", metavar="NAME", help="the test of the task (default: its first)")
    parser.add_argument("--limit", type=int, metavar="N", help="measure on the first N samples only")
    parser.add_argument(
        "--holdout",
        type=_share,
        default=0.0,
        metavar="SHARE",
        help="keep this share of the samples apart: nothing is chosen by them, and the result is "
        "measured on them as well (default 0)",
    )
    parser.add_argument(
        "--max-drop",
        type=_drop,
        metavar="POINTS",
        help="largest loss of the test's figure (points of top-1): the smallest file of those tried that stays within "
        "it. "
        "Of a float network: a quantized one is only coded, its values stay",
    )
    parser.add_argument(
        "--size",
        type=parse_size,
        metavar="SIZE",
        help="largest file, e.g. 500KB, as accurate as that allows; a quantized network is only coded, and fits or not",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="the compressed network (.ergoz)")
    parser.add_argument("--json", metavar="FILE", help="write the report as JSON ('-' for standard output)")
    parser.add_argument(
        "--html", metavar="FILE", help="write the report as one self-contained HTML page ('-' for standard output)"
    )


def _drop(text: str) -> float:
    try:
        drop = float(text)
    except ValueError:
        drop = -1.0
    if not 0 <= drop < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no drop; write a number of points, for instance 0.5")
    return drop


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 0.9:
        raise argparse.ArgumentTypeError(f"{text!r} is no share; write a number from 0 to 0.9")
    return share


def run(arguments) -> None:
    from tvm_ergo import evaluation
    from tvm_ergo.cli.models import is_compiled, quantize_options
    from tvm_ergo.compressed import SUFFIX
    from tvm_ergo.compressed.compress import compress
    from tvm_ergo.compressed.report import layer_table, page, summary

    check_result_paths(arguments, arguments.output)
    if is_compiled(arguments.model):
        raise InputError(
            "a compiled model does not change any more",
            where=arguments.model,
            remedy="give the model file (.onnx, .tflite)",
        )
    if arguments.output and not arguments.output.endswith(SUFFIX):
        raise OutputError(
            f"a compressed network's name ends in {SUFFIX}",
            where=arguments.output,
            remedy=f"write -o {arguments.output}{SUFFIX}",
        )
    task = evaluation.find_task(arguments.model)
    shapes = dict(arguments.input_shape)
    if task:
        arguments.model = str(evaluation.shared_root() / "models" / task.path)
        shapes = shapes or evaluation.input_shapes_of(task)
        if not task.quantized:
            arguments.calibration = arguments.calibration or task.stem
    test = _test(arguments, task, evaluation)
    with progress_bar(f"compressing {arguments.model}") as advance:
        found = compress(
            arguments.model,
            read_calibration(arguments.calibration),
            evaluation=test,
            max_drop=arguments.max_drop,
            size=arguments.size,
            limit=arguments.limit,
            holdout=arguments.holdout,
            quantize=quantize_options(arguments),
            input_shapes=shapes or None,
            progress=lambda step, done, total: advance(done, total, description=step),
        )
    write_results_together(
        (arguments.output, found.contents.data),
        (arguments.html, page(found.report) if arguments.html else ""),
        (arguments.json, found.report.model_dump_json(indent=1)),
    )
    if arguments.output:
        console(arguments).print(f"wrote {arguments.output}")
    for line in summary(found.report):
        console(arguments).print(line)
    console(arguments).print(layer_table(found.report))


def _test(arguments, task, evaluation):
    """What the accuracy is measured on; None where there is nothing."""
    if arguments.data and arguments.test:
        raise InputError(
            "--test names a test of a task, and --data is your own",
            available=arguments.test,
            remedy="give one of the two",
        )
    if not arguments.data and task is None and (arguments.limit is not None or arguments.holdout or arguments.test):
        raise InputError(
            "there is nothing to measure the accuracy on",
            where="--limit, --holdout, --test",
            remedy="--data FILE.npz with arrays x and y",
        )
    if arguments.data:
        arrays = read_arrays(arguments.data, InputError)
        if not {"x", "y"} <= set(arrays):
            raise InputError(
                "evaluation data needs the arrays x (inputs) and y (labels)",
                where=arguments.data,
                available=", ".join(arrays) or "one unnamed array",
                remedy="numpy.savez(file, x=inputs, y=labels)",
            )
        return arrays["x"], arrays["y"]
    if task is None:
        return None
    tests = [t for t in task.tests if arguments.test in (None, t.name)]
    if not tests:
        raise InputError(
            f"no test {arguments.test!r}",
            where=task.stem,
            available=", ".join(t.name for t in task.tests),
            remedy="use one of these with --test",
        )
    return tests[0]
