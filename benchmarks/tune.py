"""Default schedule against tuned, under three memory limits and three power budgets each, and against random search at
equal trials.

Memory limits lie between the least found and whole layers (at 25 %, 60 % and 100 % of the way). Power budgets are set
from the default schedule of each limit: 5 % less than it takes at 30 frames a second, above idle, at each clock point.
At the nominal clock the default exceeds its budget so and has to run slower, where a better schedule need not; at the
slowest point nothing but a better schedule meets it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import tvm_ergo
from benchmarks.common import parse, parser, show
from tvm_ergo.codegen.tuning.figures import Budget
from tvm_ergo.evaluation.lookup import input_shapes_of
from tvm_ergo.evaluation.nets import BIG_MEMORY_BYTES, model_path
from tvm_ergo.evaluation.tasks import TASKS
from tvm_ergo.target.chip import chip
from tvm_ergo.target.errors import BudgetError, OutOfMemoryError
from tvm_ergo.target.machine import Trace
from tvm_ergo.tuning.result import Cost, TuningResult

NETS = (
    "pretrainedResnet_quant",
    "vww_96_int8",
    "kws_ref_model",
    "tf2_mobilenet_v2_1.0_224_ptq",
    "squeezenet1.0_deepcompression_fp32",
)
FPS, TRIALS = 30.0, 300
MEMORY_AT, LESS = (0.25, 0.6, 1.0), 0.05
CALIBRATION, EVEN = 8, 1024


def options_of(name: str) -> dict:
    """What a net is compiled and tuned with, beside memory."""
    task = TASKS.get(name)
    if task is None:
        return {"compression": "off"}
    calibration = {"calibration": list(task.calibration.inputs(CALIBRATION))} if task.calibration else {}
    return {"input_shapes": input_shapes_of(task), "compression": "off", **calibration}


def memory_of(compiled) -> int:
    programs = compiled.programs.values()
    return sum(p.meta["constant_bytes"] for p in programs) + max(p.meta["activation_bytes"] for p in programs)


def limits(name: str) -> list[int]:
    """Memory limits, bytes, rounded up to whole KiB."""
    whole = memory_of(tvm_ergo.compile(model_path(name), memory=BIG_MEMORY_BYTES, **options_of(name)))
    least = memory_of(
        tvm_ergo.compile(model_path(name), memory=BIG_MEMORY_BYTES, objective="memory", **options_of(name))
    )
    return [-(-int(least + share * (whole - least)) // EVEN) * EVEN for share in MEMORY_AT]


def budgets(name: str, memory: int) -> list[tuple[str, float]]:
    """``(point, mW)``: what the default schedule takes at each point above idle, and 5 % less of it."""
    on = chip("ergo/1").with_memory(memory)
    compiled, found = tvm_ergo.compile(model_path(name), memory=memory, **options_of(name)), []
    for point in on.points:
        traces = [Trace(program, on, point) for program in compiled.programs.values()]
        power = Budget(memory, frames_per_s=FPS).power(
            sum(t.cycles for t in traces), sum(t.energy_pj for t in traces), on, point
        )
        if power < float("inf"):
            found.append((point.name, on.idle_mw + (1 - LESS) * (power - on.idle_mw)))
    return found


def tuned(name: str, memory: int, power_mw: float, trials: int, strategy: str) -> TuningResult:
    with tempfile.TemporaryDirectory() as folder:
        return tvm_ergo.tune(
            model_path(name),
            out=folder,
            memory=memory,
            power_budget_mw=power_mw,
            frames_per_s=FPS,
            trials=trials,
            strategy=strategy,
            **options_of(name),
        )


def rows_of(name: str, trials: int) -> Iterator[dict]:
    for memory in limits(name):
        for place, (point, power) in enumerate(budgets(name, memory)):
            row = {"net": name, "KiB": memory / 1024, "mW": power, "below default at": point}
            try:
                result = tuned(name, memory, power, trials, "evolutionary")
                drawn = tuned(name, memory, power, trials, "random") if place == 0 else None
            except (BudgetError, OutOfMemoryError) as error:
                yield row | {"default": f"refused: {error.what}"}
                continue
            yield row | {
                "default": told(result.default),
                "tuned": told(result.tuned),
                "latency %": share(result),
                "random %": drawn and share(drawn),
                "over": result.tuned.memory_bytes > memory
                or result.tuned.meets_budget
                and result.tuned.power_mw > power,
                "trials": result.trials,
                "s": result.seconds,
                "trials/s": result.trials_per_s,
                "rank": result.rank_correlation,
                "counts": result.counts_correlation,
                "rejected": ", ".join(f"{cause} {count}" for cause, count in result.rejected.items()),
                "random": drawn and told(drawn.tuned),
                "random/s": drawn and drawn.trials_per_s,
            }


def told(cost: Cost) -> str:
    return (
        f"{1e6 * cost.seconds:.1f} us {1e-6 * cost.energy_pj:.3f} uJ "
        f"{cost.point}{'' if cost.meets_budget else ', over budget'}"
    )


def share(result: TuningResult) -> float | None:
    """Latency of the tuned network, % of the default's, each at the point it runs at; None where the default is over
    the budget."""
    return 100 * result.tuned.seconds / result.default.seconds if result.default.meets_budget else None


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__.split("\n\n")[0])
    arguments.add_argument("--trials", type=int, default=TRIALS, metavar="N", help=f"of each search (default {TRIALS})")
    parsed, rows = parse(arguments, argv), []
    for name in parsed.nets or NETS:
        for row in rows_of(name, parsed.trials):
            rows.append(row)
            print(row, flush=True)
    show(
        f"default schedule against tuned, {FPS:g} fps",
        rows,
        parsed.json,
        hidden=("random", "random/s", "counts", "over"),
    )


if __name__ == "__main__":
    main()
