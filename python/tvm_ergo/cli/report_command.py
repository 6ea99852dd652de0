"""What a network costs on the chip: per layer cycles, utilisation, energy and bytes; the memory over time; power at
frame rates.

tvm-ergo report net.ergo --fps 30 --html report.html --trace trace.json
tvm-ergo report net.ergo --fps 30 --zeros image.npy              and what products with a zero operand save on an image
tvm-ergo report net.onnx --calibration images.npz --compare       where quantization error enters, layer by layer
"""

from __future__ import annotations

from pathlib import Path

from tvm_ergo.cli.common import add_model_arguments, add_result_arguments, check_result_paths, console, parse_window
from tvm_ergo.relay_passes.array_files import read_arrays
from tvm_ergo.target.errors import InputError

HELP = "what a network costs: layers, memory, energy, power"


def add_arguments(parser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--point", help="operating point of the chip (see 'targets'); default: the chip's first")
    parser.add_argument(
        "--compare",
        nargs="?",
        const="",
        metavar="INPUT",
        help="also compare each layer with the float network, on an "
        "input (.npz/.npy) or on the first calibration sample; needs the model file, not an .ergo",
    )
    parser.add_argument(
        "--zeros",
        nargs="?",
        const="",
        metavar="INPUT",
        help="also count products with a zero operand and what isolating them saves, on an input (.npz/.npy) "
        "or on the first calibration sample",
    )
    parser.add_argument(
        "--window",
        type=parse_window,
        metavar="US",
        help="microseconds over which the peak power is taken: the worst window of this length (default 100)",
    )
    add_result_arguments(parser)


def run(arguments) -> None:
    from tvm_ergo.cli.models import is_compiled, open_model, report_of, write_results
    from tvm_ergo.report.compare import compare_layers
    from tvm_ergo.report.terminal import print_report
    from tvm_ergo.report.zeros import with_zeros

    check_result_paths(arguments)
    arguments.programs_only = is_compiled(
        arguments.model
    )  # a report reads Programs; a library in the file is never loaded
    compiled = open_model(arguments)
    report = report_of(arguments, compiled)
    if arguments.compare is not None:
        sample = _sample(arguments.compare) if arguments.compare else None
        report = report.model_copy(update={"errors": compare_layers(compiled, sample)})
    if arguments.zeros is not None:
        sample = (_sample(arguments.zeros), Path(arguments.zeros).name) if arguments.zeros else ()
        report = with_zeros(report, compiled, *sample)
    write_results(arguments, compiled, report)  # before printing: the reader of a pipe may go away
    print_report(report, console(arguments))


def _sample(path: str):
    """Arrays by input name, or the one unnamed array of an .npy."""
    arrays = read_arrays(path, InputError)
    return arrays[""] if set(arrays) == {""} else arrays
