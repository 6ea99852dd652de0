"""ONNX's own node tests through tvm_ergo: the chip where it can, the host CPU otherwise.

Every case is compiled with its own inputs as calibration data and run on the emulated chip. Outcomes:
  exact     all outputs within the case's own float tolerance (host operators, and integer-exact chip operators)
  int8      within two quantization steps of the output's range (8-bit arithmetic cannot do better than half a step an operator)
  refused   a clear error of our own type (operator the importer lacks, dynamic shape, string tensors, ...)
  wrong     an answer outside both bounds
  error     any other exception: a defect
  crash     the process died or hung: a defect
Each case runs in a worker process that is replaced when it dies, so a crash is counted and never ends the run.
"""

from __future__ import annotations

import collections
import multiprocessing as mp
import sys
import warnings

import numpy as np

from benchmarks.common import parse, parser, show

SECONDS_PER_CASE = 120


def cases(prefix: str = "") -> list:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [case for case in collect_testcases(None) if case.name.startswith(prefix)]


def run_case(case) -> tuple[str, str]:
    """``(outcome, detail)`` of one node test."""
    import tvm_ergo
    from tvm_ergo.target.errors import ErgoError

    inputs, expected = case.data_sets[0]
    names = [i.name for i in case.model.graph.input]
    feeds = {name: np.asarray(value) for name, value in zip(names, inputs) if not isinstance(value, list)}
    try:
        compiled = tvm_ergo.compile(case.model, calibration=[feeds], input_shapes={n: v.shape for n, v in feeds.items()})
        outputs = compiled.run(feeds).outputs
    except ErgoError as error:
        return "refused", f"{type(error).__name__}: {error.what}"[:150]
    except Exception as error:  # noqa: BLE001  the whole point is to count what is not ours
        return "error", f"{type(error).__name__}: {error}"[:300]
    return compare(list(outputs.values()), expected, case.rtol, case.atol), ""


def compare(outputs: list, expected: list, rtol: float, atol: float) -> str:
    if len(outputs) != len(expected):
        return "wrong"
    worst = "exact"
    for got, want in zip(outputs, expected):
        got, want = np.asarray(got), np.asarray(want)
        if got.shape != want.shape:
            return "wrong"
        if np.allclose(got.astype(np.float64), want.astype(np.float64), rtol=rtol, atol=atol, equal_nan=True):
            continue
        step = (max(want.max(), 0) - min(want.min(), 0)) / 255
        if np.abs(got.astype(np.float64) - want).max() > 2 * step + 1e-6:
            return "wrong"
        worst = "int8"
    return worst


def worker(prefix: str, tasks, results) -> None:
    sys.stderr = open("/dev/null", "w")  # noqa: SIM115  TVM's warnings, for the life of the worker
    known = {case.name: case for case in cases(prefix)}
    while (name := tasks.get()) is not None:
        results.put(("start", name, ""))
        results.put((*run_case(known[name]), name))


class Worker:
    def __init__(self, prefix: str):
        context = mp.get_context("spawn")
        self.tasks, self.results = context.Queue(), context.Queue()
        self.process = context.Process(target=worker, args=(prefix, self.tasks, self.results), daemon=True)
        self.process.start()


def run_all(prefix: str = "", workers: int = 2, progress=None) -> dict[str, tuple[str, str]]:
    """Outcome and detail of every case whose name starts with ``prefix``."""
    waiting = collections.deque(case.name for case in cases(prefix))
    total, outcomes, slots = len(waiting), {}, {}
    import time

    while waiting or slots:
        while waiting and len(slots) < workers:
            slot = Worker(prefix)
            slots[slot] = None
        for slot in list(slots):
            if slots[slot] is None:
                if not waiting:
                    slot.tasks.put(None)
                    del slots[slot]
                    continue
                slots[slot] = (waiting.popleft(), time.monotonic())
                slot.tasks.put(slots[slot][0])
            name, since = slots[slot]
            while not slot.results.empty():
                outcome, detail, *rest = slot.results.get()
                if rest[0]:
                    outcomes[name], slots[slot] = (outcome, detail), None
                else:
                    slots[slot] = (name, time.monotonic())
                if progress:
                    progress(len(outcomes), total)
            if slots[slot] and (not slot.process.is_alive() or time.monotonic() - slots[slot][1] > SECONDS_PER_CASE):
                slot.process.kill()
                outcomes[name] = ("crash", "process died" if not slot.process.is_alive() else f"no answer in {SECONDS_PER_CASE} s")
                del slots[slot]
        time.sleep(0.01)
    return outcomes


def main(argv=None) -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--prefix", default="", help="only cases whose name starts so, e.g. test_conv")
    options.add_argument("--list", nargs="*", default=["wrong", "error", "crash"], help="outcomes whose cases are listed")
    arguments = parse(options, argv)
    from tvm_ergo.cli.common import progress_bar

    with progress_bar("node tests") as advance:
        outcomes = run_all(arguments.prefix, progress=advance)
    for name, (outcome, detail) in sorted(outcomes.items(), key=lambda item: (item[1][0], item[0])):
        if outcome in arguments.list:
            print(f"{outcome:8} {name}: {detail}")
    counts = collections.Counter(outcome for outcome, _ in outcomes.values())
    passed = counts["exact"] + counts["int8"]
    rows = [{"outcome": key, "cases": counts[key], "share %": 100 * counts[key] / max(len(outcomes), 1)}
            for key in ("exact", "int8", "refused", "wrong", "error", "crash")]
    show(f"ONNX node tests: {passed} of {len(outcomes)} pass", rows, arguments.json)


if __name__ == "__main__":
    main()
