"""Images a second of `tvm-ergo eval`'s loop over 1,000 images, compilation apart: decoding, quantization, chip, metric.

*threads*: images at a time, each on a processor of its own; 1: one image after the other, its layers shared out over
all processors. *CPU ms*: processor time an image, which a busy machine changes least. The figures of all rows of a net
must be the same."""

from __future__ import annotations

import time

from benchmarks.common import parse, parser, show
from tvm_ergo import evaluation
from tvm_ergo.evaluation.nets import compile_net
from tvm_ergo.target.machine.kernels.workers import thread_count

NETS = ("resnet20_cifar10", "mobilenet_v2_1.0_224_torchvision_qdq_int8")


def measure(name: str, images: int) -> list[dict]:
    compiled, rows = compile_net(name, calibration_samples=8), []
    test = evaluation.find_task(name).tests[0]

    def run(feeds):
        return list(compiled.run(feeds).outputs.values())

    evaluation.evaluate(test, run, limit=16)
    for threads in sorted({1, thread_count()}):
        start, before = time.perf_counter(), time.process_time()
        outcome = evaluation.evaluate(test, run, limit=images, threads=threads)
        seconds, spent = time.perf_counter() - start, time.process_time() - before
        rows.append(
            {
                "net": name,
                "threads": threads,
                "images": outcome.samples,
                "images/s": outcome.samples / seconds,
                "CPU ms": 1000 * spent / outcome.samples,
                outcome.primary: outcome.figures[outcome.primary],
            }
        )
    return rows


def main(argv=None) -> None:
    options = parser(__doc__.split("\n\n")[0])
    options.add_argument("--images", type=int, default=1000, help="images of each test (default 1000)")
    arguments = parse(options, argv)
    rows = [row for name in arguments.nets or NETS for row in measure(name, arguments.images)]
    show("images a second of eval", rows, arguments.json)


if __name__ == "__main__":
    main()
