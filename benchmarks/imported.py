"""Networks that were compressed elsewhere, as they come: what their values hold, and the file without any loss of it.
Nothing is trained, pruned or shared here.

`tvm-ergo compress NET` without a target: the network is quantized along the structure that is found in its weights
(zeros, shared values, product codebooks behind folded batch norm), and coded. Bytes are of the whole file, biases,
scales and structure included. Top-1 is of the float network and of the one in the file (int8 weights and activations),
on the first images of the test."""

from __future__ import annotations

import time
from collections import Counter

from benchmarks.common import parse, parser, show
from tvm_ergo.compressed.compress import compress
from tvm_ergo.evaluation.lookup import input_shapes_of
from tvm_ergo.evaluation.nets import model_path
from tvm_ergo.evaluation.tasks import TASKS
from tvm_ergo.relay_passes.macro import normalize
from tvm_ergo.relay_passes.micro.weight_forms import weight_forms

NETS = (
    "resnet18_ktb_small",
    "resnet50_pqf_large",
    "squeezenet1.0_deepcompression_fp32",
    "bnn_cnv_w1a1_cifar10",
    "tfc_1w1a_mnist",
)
SAMPLES = 32


def measure(name: str, images: int) -> dict:
    from tvm_ergo import frontend

    task = TASKS[name]
    shapes = input_shapes_of(task)
    imported = frontend.load(model_path(name), input_shapes=shapes)
    forms = Counter(form.form.value for form in weight_forms(normalize(imported.mod)))
    start = time.process_time()
    calibration = list(task.calibration.inputs(SAMPLES)) if task.calibration else None
    found = compress(imported, calibration, evaluation=task.tests[0] if images else None, limit=images or None)
    report = found.report
    return {
        "net": name,
        "layers": ", ".join(f"{count} {form}" for form, count in forms.items()),
        "fp32 bytes": report.float_bytes,
        "int8 bytes": report.int8_bytes,
        "file bytes": report.file_bytes,
        "x fp32": report.ratio,
        "float": report.before,
        "file": report.after,
        "images": report.samples,
        "CPU s": time.process_time() - start,
        "rows": [row.model_dump() for row in report.layers],
    }


def main(argv: list[str] | None = None) -> None:
    command = parser(__doc__.split("\n\n")[0])
    command.add_argument("--images", type=int, default=200, help="test images for top-1 (0: none)")
    arguments = parse(command, argv)
    rows = [measure(name, arguments.images) for name in arguments.nets or NETS]
    show("networks compressed elsewhere", rows, arguments.json, hidden=("rows",))


if __name__ == "__main__":
    main()
