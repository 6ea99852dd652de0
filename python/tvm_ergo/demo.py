"""``make demo``: a trained network in, an emulated inference and a report of what it costs out.

The network is ``zoo/digits_cnn.onnx`` (a small residual CNN trained on scikit-learn's digits); nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

import tvm_ergo
from tvm_ergo import zoo
from tvm_ergo.cli.common import report_console
from tvm_ergo.cli.progress import progress_bar
from tvm_ergo.files import write_atomically
from tvm_ergo.report.build import build_report, merged_chrome_trace
from tvm_ergo.report.compare import compare_layers
from tvm_ergo.report.html import html_page
from tvm_ergo.report.terminal import print_report


def accuracy(run, images: np.ndarray, labels: np.ndarray, description: str) -> float:
    """Top-1 in percent of ``run(feeds) -> [logits]``, one image at a time, as the chip sees them."""
    hits = 0
    with progress_bar(description, len(labels)) as advance:
        for done, (image, label) in enumerate(zip(images, labels), 1):
            hits += int(np.argmax(run({"image": image[None]})[0]) == label)
            advance(done)
    return 100.0 * hits / len(labels)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--out", type=Path, default=Path("demo-out"), help="folder for the report, the trace and the compiled model"
    )
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    console = report_console()

    train_images, _, test_images, test_labels = zoo.digits()
    start = time.perf_counter()
    compiled = tvm_ergo.compile(str(zoo.DIGITS_MODEL), target="ergo", calibration={"image": train_images[:128]})
    console.print(f"compiled {zoo.DIGITS_MODEL.name} for {compiled.chip.name} in {time.perf_counter() - start:.1f} s")

    on_chip = accuracy(
        lambda feeds: list(compiled.run(feeds).outputs.values()), test_images, test_labels, "emulated chip"
    )
    in_float = accuracy(compiled.run_float, test_images, test_labels, "float network")
    console.print(
        f"accuracy on {len(test_labels)} test images: emulated chip (int8) {on_chip:.1f} %, float network "
        f"{in_float:.1f} %\n"
    )

    report = build_report(
        zoo.DIGITS_MODEL.name,
        compiled.programs,
        compiled.chip,
        host=compiled.fallbacks,
        inputs=compiled.inputs,
        outputs=compiled.outputs,
    )
    print_report(
        report, console, layers=False
    )  # what the report files hold besides would fill some pages of a terminal
    report = report.model_copy(update={"errors": compare_layers(compiled, {"image": test_images[:1]})})

    compiled.save(arguments.out / "digits.ergo")
    write_atomically(arguments.out / "report.html", html_page(report))
    write_atomically(arguments.out / "report.json", report.model_dump_json(indent=1))
    write_atomically(arguments.out / "trace.json", json.dumps(merged_chrome_trace(compiled.programs, compiled.chip)))
    console.print(
        f"\n{arguments.out}/report.html   the same, layer by layer, with the memory map over time and where "
        f"quantization errors enter\n{arguments.out}/report.json   the figures\n"
        f"{arguments.out}/trace.json    for ui.perfetto.dev\n{arguments.out}/digits.ergo   for: tvm-ergo run "
        f"{arguments.out}/digits.ergo --random 0"
    )


if __name__ == "__main__":
    main()
