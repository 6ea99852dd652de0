"""``tvm_ergo.tune``: the plan of a network searched under budgets, kept in a folder that compilation takes."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

import tvm

from tvm_ergo import frontend
from tvm_ergo import options as given
from tvm_ergo.api import renamed
from tvm_ergo.codegen.choices import Weights
from tvm_ergo.codegen.exclusive import exclusively
from tvm_ergo.codegen.space import Objective
from tvm_ergo.codegen.tuning.budget import Gate
from tvm_ergo.codegen.tuning.combine import Network, best_network, default_figures
from tvm_ergo.codegen.tuning.feasible import check_feasible
from tvm_ergo.codegen.tuning.figures import Budget, Figures, Goal, best_point
from tvm_ergo.codegen.tuning.log import Log
from tvm_ergo.codegen.tuning.model import Model
from tvm_ergo.codegen.tuning.rules import Measure
from tvm_ergo.codegen.tuning.score import Score
from tvm_ergo.codegen.tuning.search import Search, Settings
from tvm_ergo.codegen.tuning.starts import tasks_of_starts
from tvm_ergo.codegen.tuning.task import Task
from tvm_ergo.files import write_atomically
from tvm_ergo.pipeline import PipelineOptions, run_stages
from tvm_ergo.relay_passes.compile.partition import chip_functions
from tvm_ergo.relay_passes.micro.quantize import QuantizeOptions
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.errors import InputError, UnsupportedError
from tvm_ergo.target.machine.peak import WINDOW_S
from tvm_ergo.target.tags import chip_of_target
from tvm_ergo.tuning import store
from tvm_ergo.tuning.prepare import Prepared, prepared
from tvm_ergo.tuning.result import Cost, SampleRow, TaskRow, TuningResult
from tvm_ergo.waiting import Compression

STRATEGIES = ("evolutionary", "random")


@dataclass(frozen=True)
class Progress:
    """How far a search is. best : what the objective would be if the best schedules of all tasks were put together, as
    a share of the default's."""

    trials: int
    of_trials: int
    seconds: float
    best: float
    rejected: dict[str, int]


def tune(
    model,
    *,
    out: str | Path,
    target: str | Path | tvm.target.Target | Chip = "ergo",
    calibration=None,
    memory: int | str | None = None,
    power_budget_mw: float | None = None,
    peak_power_mw: float | None = None,
    window_s: float = WINDOW_S,
    frames_per_s: float | None = None,
    objective: str = "latency",
    trials: int = 256,
    seconds: float | None = None,
    early_stop: int = 0,
    seed: int = 0,
    resume: bool = False,
    strategy: str = "evolutionary",
    stream: bool = False,
    weights: str = "auto",
    compression: str = "auto",
    quantize: QuantizeOptions = QuantizeOptions(),
    input_shapes: dict | None = None,
    batch: int = 1,
    gating: bool = False,
    measure: Measure | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> TuningResult:
    """Searches the plan of a network and writes the best into the folder ``out``, for ``tvm_ergo.compile(model,
    database=out)``.

    Parameters
    ----------
    model, target, calibration, memory, stream, weights, compression, quantize, input_shapes, batch : as in
    `tvm_ergo.compile`. Where whole layers do not fit (or memory is the objective), and there are calibration data, in
    which codec each tensor waits is searched as well.
    power_budget_mw : most average power, idle and leakage included, at ``frames_per_s`` (without: while one inference
    follows the other).
    peak_power_mw : most power in the worst window of ``window_s`` seconds, judged on whole plans. frames_per_s : a rate
    that has to be reached. objective : what is made least: "latency", "energy", "edp" (energy times time) or "memory".
    trials : schedules measured, of all tasks together. seconds : after which it ends. early_stop : trials without any
    gain after which it ends; 0: never.
    seed : the same gives the same result (with ``trials``; time does not repeat). resume : go on with the run that the
    folder holds.
    gating : what the chip file lets be switched off is, while the network runs and between inferences; power, peak and
    energy are those with it (docs/power.md).
    strategy : "evolutionary", or "random" for comparison. measure : ``measure(task, decisions) -> Figures`` in place of
    this process's own.
    progress : called after every batch with a `Progress`.

    Ctrl-C ends the search after the batch it is at; what was found until then is written.

    Errors: those of `compile`; BudgetError (no schedule can meet the power or the rate; said before the search);
    DatabaseError, OutputError (the folder)."""
    budget, goal, settings = _asked(
        (power_budget_mw, peak_power_mw, window_s, frames_per_s), objective, trials, seconds, early_stop, seed, strategy
    )
    chip = chip_of_target(target) if memory is None else chip_of_target(target).with_memory(memory)
    folder, resume = Path(out), given.flag("resume", resume)
    with store.claimed(folder):
        budget = replace(budget, memory_bytes=chip.memory_bytes, gating=_gates(gating, chip))
        imported = frontend.load(
            model, input_shapes=given.shapes(input_shapes), batch=given.whole_number("batch", batch)
        )
        options = PipelineOptions(
            chip,
            renamed(calibration, imported),
            given.quantization("quantize", quantize),
            stream=given.flag("stream", stream),
            weights=given.choice("weights", weights, Weights),
            compression=given.choice("compression", compression, Compression),
            objective=Objective(goal.value) if goal is not Goal.EDP else Objective.LATENCY,
        )
        mod = run_stages(imported.mod, options, until="partition")
        keys = {name: store.fingerprint(func) for name, func in chip_functions(mod)}
        if not keys:
            raise UnsupportedError(
                "nothing of the model runs on the chip: there is nothing to tune",
                remedy="`tvm-ergo ops` lists what the chip supports",
            )
        name = Path(imported.source or "model").name
        manifest = _manifest(chip, goal, budget, settings, options, keys)
        store.check_folder(folder, manifest, resume)
        with exclusively():
            starts = prepared(mod, options)
        return _Run(
            name,
            chip,
            goal,
            budget,
            settings,
            starts,
            keys,
            folder,
            manifest,
            resume,
            measure,
            progress,
            options.weights is not Weights.DENSE,
        ).result()


def _asked(limits, objective, trials, seconds, early_stop, seed, strategy) -> tuple[Budget, Goal, Settings]:
    """The options checked. Errors: InputError."""
    goal = given.choice("objective", objective, Goal)
    names = ("power_budget_mw", "peak_power_mw", "window_s", "frames_per_s", "seconds")
    power, peak, window, rate, most = (
        _positive(name, value) for name, value in zip(names, (*limits, seconds), strict=True)
    )
    if strategy not in STRATEGIES:
        raise InputError(
            f"the option strategy cannot be {strategy!r:.60}",
            required="one of " + ", ".join(map(repr, STRATEGIES)),
            remedy="use one of these",
        )
    budget = Budget(0, power or inf, rate or 0.0, peak or inf, window or WINDOW_S)
    return (
        budget,
        goal,
        Settings(
            given.whole_number("trials", trials),
            most or inf,
            given.whole_number("seed", seed, least=0),
            strategy,
            given.whole_number("early_stop", early_stop, least=0),
        ),
    )


def _gates(gating, chip: Chip) -> bool:
    if given.flag("gating", gating) and chip.gating is None:
        raise InputError(
            "power gating cannot be counted on",
            where=f"chip {chip.name}",
            required='a chip file with "gating": leakage by part',
            remedy="leave --gating out",
        )
    return gating


def _positive(name: str, value) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < inf:
        raise InputError(
            f"the option {name} cannot be {value!r:.60}",
            required="a positive number, or None",
            remedy=f"for instance {name}=30",
        )
    return float(value)


def _manifest(
    chip: Chip, goal: Goal, budget: Budget, settings: Settings, options: PipelineOptions, keys: dict[str, str]
) -> dict:
    return {
        "format": store.FORMAT,
        "version": store.version(),
        "chip": chip.name,
        "chip_digest": store.chip_digest(chip),
        "memory_bytes": chip.memory_bytes,
        "power_mw": None if budget.power_mw == inf else budget.power_mw,
        "frames_per_s": budget.frames_per_s or None,
        "peak_mw": None if budget.peak_mw == inf else budget.peak_mw,
        "window_s": budget.window_s,
        "gating": budget.gating,
        "objective": goal.value,
        "seed": settings.seed,
        "strategy": settings.strategy,
        "stream": options.stream,
        "weights": options.weights.value,
        "compression": options.compression.value,
        "model": sorted(keys.values()),
    }


@dataclass(eq=False)
class _Run:
    name: str
    chip: Chip
    goal: Goal
    budget: Budget
    settings: Settings
    prepared: Prepared
    keys: dict[str, str]
    folder: Path
    manifest: dict
    resume: bool
    measure: Measure | None
    progress: Callable[[Progress], None] | None
    forms: bool

    def result(self) -> TuningResult:
        starts = (self.prepared.functions, *self.prepared.others)
        with exclusively():
            tasks = tasks_of_starts(
                starts, self.chip, forms=self.forms, layouts=self.prepared.layouts, gating=self.budget.gating
            )
        check_feasible([task for task in tasks if task.given], self.budget, self.chip)
        default = default_figures(self.prepared.functions, self.chip, self.budget)
        score = Score.of(self.goal, self.chip, self.budget, default)
        # not before: what is refused leaves nothing
        write_atomically(self.folder / store.MANIFEST, json.dumps(self.manifest, indent=1))
        return self._searched(starts, tasks, score, default)

    def _searched(self, starts, tasks: list[Task], score: Score, default: Figures) -> TuningResult:
        log = Log(self.folder / store.TRIALS, self.resume)
        start = time.monotonic()
        with _interruptible() as interrupted:
            search = Search(
                tasks,
                Gate(tasks, self.budget, self.chip),
                Model(score, self.settings.seed, self.settings.strategy != "random"),
                log,
                self.measure or _here,
                self.settings,
                self.folder,
                interrupted,
                self._reporting(start),
            )
            search.run()
            elapsed = time.monotonic() - start
            with exclusively():
                network = best_network(starts, tasks, self.goal, self.budget, self.chip)
        result = self._result(search, tasks, network, default, elapsed, interrupted())
        write_atomically(self.folder / store.BEST, json.dumps(self._best(network), indent=1))
        write_atomically(self.folder / store.SUMMARY, result.model_dump_json(indent=1))
        return result

    def _reporting(self, start: float) -> Callable[[Search], None] | None:
        if self.progress is None:
            return None

        def report(search: Search) -> None:
            courses = [course for course in search.courses if course.task.given]
            best = sum(c.task.weight * c.best[-1] for c in courses)
            first = sum(c.task.weight * search.model.score.measured(c.task.default, c.task.share) for c in courses)
            self.progress(
                Progress(
                    search.trials,
                    self.settings.trials,
                    time.monotonic() - start,
                    best / first if first else 1.0,
                    search.gate.rejected,
                )
            )

        return report

    def _best(self, network: Network) -> dict:
        functions = {self.keys[name]: self.prepared.record(name, decided) for name, decided in network.decided.items()}
        return {
            "digest": store.digest_of(json.loads(json.dumps(functions))),
            "how": network.how,
            "point": network.point.name if network.point else None,
            "figures": network.figures.to_json(),
            "functions": functions,
        }

    def _result(
        self, search: Search, tasks: list[Task], network: Network, default: Figures, seconds: float, interrupted: bool
    ) -> TuningResult:
        stopped = (
            "interrupted"
            if interrupted
            else "trials"
            if search.trials >= self.settings.trials
            else "time"
            if seconds >= self.settings.seconds
            else "no gain"
            if self.settings.early_stop and search.since_gain >= self.settings.early_stop
            else "nothing new to try"
        )
        return TuningResult(
            name=self.name,
            chip=self.chip.name,
            objective=self.goal.value,
            memory_bytes=self.chip.memory_bytes,
            power_mw=None if self.budget.power_mw == inf else self.budget.power_mw,
            frames_per_s=self.budget.frames_per_s or None,
            peak_mw=None if self.budget.peak_mw == inf else self.budget.peak_mw,
            window_s=self.budget.window_s,
            gating=self.budget.gating,
            seed=self.settings.seed,
            strategy=self.settings.strategy,
            trials=search.trials,
            seconds=seconds,
            trials_per_s=search.trials / seconds if seconds else 0.0,
            stopped=stopped,
            rejected=search.gate.rejected,
            rank_correlation=search.correlation(),
            counts_correlation=search.correlation(counts_alone=True),
            how=network.how,
            met=network.point is not None,
            default=self._cost(default),
            tuned=self._cost(network.figures),
            tasks=[self._task(search, task) for task in tasks],
            samples=[
                SampleRow(
                    task=s.task,
                    seconds=s.seconds,
                    share=s.score / s.base,
                    predicted_share=None if s.predicted is None else s.predicted / s.base,
                )
                for s in search.samples
            ],
            folder=str(self.folder),
        )

    def _cost(self, figures: Figures) -> Cost:
        allowed = best_point(self.goal, figures, self.budget, self.chip)
        point = allowed or min(
            self.chip.points, key=lambda p: max(self.budget.power_of(figures, self.chip, p), figures.peak_mw[p.name])
        )
        power = self.budget.power_of(figures, self.chip, point)
        return Cost(
            cycles=figures.cycles,
            seconds=figures.cycles / point.clock_hz,
            energy_pj=figures.energy_pj[point.name],
            constant_bytes=figures.constant_bytes,
            activation_bytes=figures.activation_bytes,
            memory_bytes=figures.memory_bytes,
            point=point.name,
            power_mw=None if power == inf else power,
            peak_mw=figures.peak_mw[point.name],
            gated_mw=figures.gated_mw.get(point.name),
            meets_budget=allowed is not None,
        )

    def _task(self, search: Search, task: Task) -> TaskRow:
        score = search.model.score
        return TaskRow(
            task=task.digest,
            layers=list(dict.fromkeys(n.op.name or n.name for n in task.space.graph.nodes)),
            weight=task.weight,
            choices=len(task.space.choices),
            space_size=float(task.space.size),
            trials=len(task.records),
            first=score.measured(task.default, task.share),
            best=min(search.score(task, f) for f in task.records.values() if f is not None),
        )


def _here(task: Task, decisions) -> Figures:
    """Measured in this process."""
    return task.bench.measure(task.space.way(decisions))


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Yields whether Ctrl-C was pressed: it ends the search between two batches instead of anywhere; pressed again it
    interrupts at once."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def press(number, frame) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)
