"""Accuracy of every net on the emulated chip, over all samples of its tests, beside the float network's.

One default configuration: ``tvm_ergo.compile(model, calibration=...)``, quantized nets as they come. "float" is the
manifest's figure over all samples (for a net that came quantized: that of its QDQ file), measured with ONNX Runtime;
with --limit, ONNX Runtime runs the same samples. The goal: at most 0.5 point worse than float (MobileNets 1 point), 0.1
dB for PSNR, 0.01 nats for next tokens."""

from __future__ import annotations

import time

import numpy as np

from benchmarks.common import parse, parser, show
from tvm_ergo.evaluation import TASKS, Test, evaluate, model_bytes
from tvm_ergo.evaluation.nets import compile_net
from tvm_ergo.target.errors import ErgoError

GOALS = {"psnr": 0.1, "nll": 0.01}
"""The largest loss, in the figure's own unit, where it is no percentage."""


def goal(net: str, primary: str) -> float:
    return GOALS.get(primary, 1.0 if net.startswith("mobilenet") else 0.5)


def reference(net: str, test: Test, limit: int | None) -> dict[str, float]:
    """The float figures: the manifest's, or with a limit those ONNX Runtime gives on the same samples."""
    if limit is None or limit >= len(test.source.indices()):
        return test.figures
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = (
        ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    )  # optimised int8 kernels saturate on CPUs without VNNI
    session = ort.InferenceSession(model_bytes(TASKS[net].path), options, providers=["CPUExecutionProvider"])
    return evaluate(test, lambda feeds: session.run(None, feeds), limit=limit).figures


def rows_of(net: str, limit: int | None) -> list[dict]:
    start = time.perf_counter()
    try:
        compiled = compile_net(net, calibration_samples=None)
    except ErgoError as error:
        return [row(net, test.name, note=error.what) for test in TASKS[net].tests]
    seconds, rows = time.perf_counter() - start, []
    for test in TASKS[net].tests:
        if not test.figures:
            continue  # no labelled data
        outcome = evaluate(
            test, lambda feeds: [np.asarray(o) for o in compiled.run(feeds).outputs.values()], limit=limit
        )
        rows.append(judged(net, outcome, reference(net, test, limit), seconds, len(compiled.fallbacks)))
    return rows


def judged(net: str, outcome, wanted: dict[str, float], compile_seconds: float, on_host: int) -> dict:
    """The row of one measurement. change: positive is better than float."""
    got, float_figure = outcome.figures[outcome.primary], wanted[outcome.primary]
    change = (got - float_figure) * (1 if outcome.higher_is_better else -1)
    within = change >= -goal(net, outcome.primary) - 1e-9
    return row(
        net,
        outcome.test,
        outcome.samples,
        outcome.primary,
        float_figure,
        got,
        round(change, 4),
        "yes" if within else "NO",
        on_host,
        round(compile_seconds, 1),
    )


def row(
    net,
    test,
    samples=0,
    figure="",
    wanted=None,
    got=None,
    change=None,
    within="NO",
    on_host=None,
    seconds=None,
    note="",
) -> dict:
    return {
        "net": net,
        "test": test,
        "samples": samples,
        "figure": figure,
        "float": wanted,
        "int8": got,
        "change": change,
        "within goal": within,
        "operators on host": on_host,
        "compile s": seconds,
        "note": note,
    }


def main(argv=None) -> None:
    options = parser(__doc__.split("\n\n")[0])
    options.add_argument("--limit", type=int, metavar="N", help="only the first N samples of each test")
    arguments = parse(options, argv)
    rows = []
    for net in arguments.nets or [n for n, task in TASKS.items() if any(t.figures for t in task.tests)]:
        rows += rows_of(net, arguments.limit)
        show("accuracy on the emulated chip", rows, arguments.json)  # after every net: a long run can be stopped


if __name__ == "__main__":
    main()
