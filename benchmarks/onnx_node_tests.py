"""ONNX's own node tests through tvm_ergo: the chip where it can, the host CPU otherwise.

Every case is compiled with its own inputs as calibration data and run on the emulated chip. Outcomes:
  exact     all outputs within the case's own float tolerance (host operators, and integer-exact chip operators)
  int8      within half a quantization step of the output's range for every chip instruction, two steps at least
  coarse    beyond that, but no more than 8-bit inputs explain: within the same bound of what ONNX's reference evaluator
            gives for inputs moved by up to half a quantization step of their range (steep, stepping or outlier-ridden
            functions)
  refused   a clear error of our own type (operator the importer lacks, dynamic shape, string tensors, ...)
  wrong     an answer outside these bounds
  error     any other exception: a defect
  crash     the process died or hung: a defect
Operands that a compiler must know (shapes, axes, counts, recurrent weights) are given as initializers, as in any
network; the tests feed them at run time. Each case runs in a worker process that is replaced when it dies, so a crash
is counted and never ends the run."""

from __future__ import annotations

import collections
import functools
import multiprocessing as mp
import sys
import time
import warnings

import numpy as np

from benchmarks.common import parse, parser, show

SECONDS_PER_CASE = 120
OUTCOMES = ("exact", "int8", "coarse", "refused", "wrong", "error", "crash")


def cases(prefix: str = "") -> list:
    """ONNX's node tests whose names start with ``prefix``."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [case for case in collect_testcases(None) if case.name.startswith(prefix)]


@functools.cache
def known_cases() -> dict:
    return {case.name: case for case in cases()}


_VALUES = {
    "Clip": (1, 2),
    "Pad": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Resize": (1, 2, 3),
    "Upsample": (1,),
    "Reshape": (1,),
    "Expand": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "OneHot": (1, 2),
    "Squeeze": (1,),
    "Unsqueeze": (1,),
    "Split": (1,),
    "SplitToSequence": (1,),
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "CumProd": (1,),
    "Range": (0, 1, 2),
    "Dropout": (1, 2),
    "Trilu": (1,),
    "CenterCropPad": (1,),
    "AffineGrid": (1,),
    "MaxUnpool": (2,),
    "NonMaxSuppression": (2, 3, 4),
    "LSTM": (1, 2, 3),
    "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
    "BlackmanWindow": (0,),
    "HannWindow": (0,),
    "HammingWindow": (0,),
    "If": (0,),
    "Col2Im": (1, 2),
    "DFT": (1, 2),
    "STFT": (1, 3),
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "QLinearConv": (1, 2, 3, 4, 5, 6, 7, 8),
    "QLinearMatMul": (1, 2, 3, 4, 5, 6, 7),
    "MelWeightMatrix": (0, 1, 2, 3, 4),
}


def as_array(value) -> np.ndarray:
    from onnx import TensorProto, numpy_helper

    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)


def with_known_values(case):
    """``(model, feeds)`` of a case with the operands a compiler must know (shapes, axes, counts, recurrent weights) as
    initializers.

    ONNX's tests feed these at run time, which no network does. Expanded cases name their inputs as the operator's own
    case does."""
    from onnx import ModelProto, numpy_helper

    model, graph = ModelProto(), case.model.graph
    model.CopyFrom(case.model)
    values = {i.name: as_array(v) for i, v in zip(graph.input, case.data_sets[0][0]) if not isinstance(v, list)}
    own = known_cases().get(case.name.split("_expanded")[0], case).model.graph.node[0]
    slots = _VALUES.get(own.op_type, (1,) if own.op_type.startswith("Reduce") else ())
    names = [i.name for i in graph.input]
    for name in sorted({own.input[s] for s in slots if s < len(own.input)} & set(values)):
        model.graph.initializer.append(numpy_helper.from_array(values.pop(name), name))
        del model.graph.input[names.index(name)]
        names.remove(name)
    return model, values


def run_case(case) -> tuple[str, str]:
    """``(outcome, detail)`` of one node test."""
    import tvm_ergo
    from tvm_ergo.target.errors import ErgoError

    model, feeds = with_known_values(case)
    try:
        compiled = tvm_ergo.compile(model, calibration=[feeds], input_shapes={n: v.shape for n, v in feeds.items()})
        outputs = list(compiled.run(feeds).outputs.values())
    except ErgoError as error:
        where = f" [{error.available}]" if error.available else ""
        return "refused", f"{type(error).__name__}: {error.what}{where}"[:300]
    except Exception as error:  # noqa: BLE001  the whole point is to count what is not ours
        return "error", f"{type(error).__name__}: {error}"[:300]
    expected = [as_array(v) for v in case.data_sets[0][1]]
    instructions = sum(len(p.instructions) - 1 for p in compiled.programs.values())  # without HALT
    rounded = compiled.quantized is not compiled.reference
    outcome, detail = compare(outputs, expected, case.rtol, case.atol, instructions, rounded)
    if outcome == "wrong" and rounded and within_input_rounding(model, feeds, outputs, expected, instructions):
        return "coarse", detail
    return outcome, detail


def bound(want: np.ndarray, instructions: int) -> float:
    """Half a quantization step of the output's range for every chip instruction, two steps at least."""
    return max(2.0, instructions / 2) * (max(want.max(), 0) - min(want.min(), 0)) / 255 + 1e-6


def compare(
    outputs: list, expected: list, rtol: float, atol: float, instructions: int, rounded: bool
) -> tuple[str, str]:
    """``(outcome, detail)``; shapes and element types must agree. 8-bit bounds hold only where tensors were
    quantized."""
    if len(outputs) != len(expected):
        return "wrong", f"{len(outputs)} outputs, not {len(expected)}"
    worst = "exact", ""
    for got, want in zip(outputs, expected):
        if got.shape != want.shape or got.dtype != want.dtype:
            return "wrong", f"{got.dtype}{list(got.shape)}, not {want.dtype}{list(want.shape)}"
        exact_type = got.dtype.kind not in "f"
        if np.allclose(got.astype(np.float64), want.astype(np.float64), rtol=rtol, atol=atol, equal_nan=True):
            continue
        error = np.abs(got.astype(np.float64) - want).max()
        if exact_type or not rounded or not error <= bound(want, instructions):
            return (
                "wrong",
                f"{'integers differ' if exact_type else 'error'} {error:.4g} in [{want.min():.4g}, {want.max():.4g}]",
            )
        worst = "int8", ""
    return worst


def within_input_rounding(model, feeds: dict, outputs: list, expected: list, instructions: int) -> bool:
    """Whether every output lies, up to the int8 bound, in the span of the results for inputs rounded to 8 bits or moved
    half a step."""
    from onnx.reference import ReferenceEvaluator

    def moved(value: np.ndarray, how: str) -> np.ndarray:
        if value.dtype.kind != "f" or not value.size:
            return value
        step = max((max(value.max(), 0) - min(value.min(), 0)) / 255, 1e-30)
        changed = {"up": value + step / 2, "down": value - step / 2, "rounded": np.rint(value / step) * step}[how]
        return changed.astype(value.dtype)

    try:
        evaluator = ReferenceEvaluator(model)
        spans = [evaluator.run(None, {n: moved(v, how) for n, v in feeds.items()}) for how in ("up", "down", "rounded")]
    except (RuntimeError, ValueError, TypeError, NotImplementedError, AttributeError, IndexError, KeyError):
        return False
    for i, (got, want) in enumerate(zip(outputs, expected)):
        others = [np.asarray(s[i]) for s in spans]
        if got.shape != want.shape or any(o.shape != want.shape for o in others):
            return False
        stacked, limit = np.stack([want, *others]).astype(np.float64), bound(want, instructions)
        if not ((got >= stacked.min(axis=0) - limit) & (got <= stacked.max(axis=0) + limit)).all():
            return False
    return True


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
                outcomes[name] = (
                    "crash",
                    "process died" if not slot.process.is_alive() else f"no answer in {SECONDS_PER_CASE} s",
                )
                del slots[slot]
        time.sleep(0.01)
    return outcomes


def main(argv=None) -> None:
    options = parser(__doc__.split("\n\n")[0])
    options.add_argument("--prefix", default="", help="only cases whose name starts so, e.g. test_conv")
    options.add_argument(
        "--list", nargs="*", default=["wrong", "error", "crash"], help="outcomes whose cases are listed"
    )
    options.add_argument("--workers", type=int, default=2, help="processes side by side")
    options.add_argument("--reasons", action="store_true", help="also the reasons of refusals, with counts")
    arguments = parse(options, argv)
    from tvm_ergo.cli.progress import progress_bar

    started = time.monotonic()
    with progress_bar("node tests") as advance:
        outcomes = run_all(arguments.prefix, arguments.workers, progress=advance)
    for name, (outcome, detail) in sorted(outcomes.items(), key=lambda item: (item[1][0], item[0])):
        if outcome in arguments.list:
            print(f"{outcome:8} {name}: {detail}")
    counts = collections.Counter(outcome for outcome, _ in outcomes.values())
    passed = counts["exact"] + counts["int8"] + counts["coarse"]
    rows = [
        {"outcome": key, "cases": counts[key], "share %": 100 * counts[key] / max(len(outcomes), 1)} for key in OUTCOMES
    ]
    if arguments.reasons:
        reasons = collections.Counter(detail for outcome, detail in outcomes.values() if outcome == "refused")
        show("Refused, by reason", [{"cases": n, "reason": reason} for reason, n in reasons.most_common()])
    show(f"ONNX node tests: {passed} of {len(outcomes)} pass, {time.monotonic() - started:.0f} s", rows, arguments.json)


if __name__ == "__main__":
    main()
