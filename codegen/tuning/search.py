"""The search: TVM's evolutionary search on every task, trials where they pay most, every finished trial on disk.

The loop is ours and not TVM's task scheduler (C++): it must stop between two batches, say how far it is, and take the
same course again when it is resumed; space generators, traces, search strategies, database, cost model, postprocessor,
mutator, builder and runner are TVM's."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

import tvm
from tvm.s_tir import meta_schedule as ms

from tvm_ergo.codegen.tuning.budget import Gate
from tvm_ergo.codegen.tuning.course import EMPTY, Course, batch_of, context_of
from tvm_ergo.codegen.tuning.figures import Figures
from tvm_ergo.codegen.tuning.log import Log, Trial
from tvm_ergo.codegen.tuning.model import Model, rank_correlation, tvm_model
from tvm_ergo.codegen.tuning.near import Near
from tvm_ergo.codegen.tuning.rules import FAILED_S, Measure, builder, runner
from tvm_ergo.codegen.tuning.task import Task
from tvm_ergo.target.errors import RemoteError
from tvm_ergo.target.sums import added
from tvm_ergo.target.tags import DEFAULT_CHIP

NEAR = 4
"""Trials of a batch that `Near` proposes: its best are much alike."""
OVER = 1.3
"""What a schedule whose addresses have no room is taken to cost, of what it does."""


@dataclass(frozen=True)
class Settings:
    """trials : of all tasks together. seconds : when to stop. strategy : "evolutionary", or "random" (TVM's replay of
    traces with decisions drawn anew).
    early_stop : trials without any gain after which it ends, 0 for never."""

    trials: int = 256
    seconds: float = inf
    seed: int = 0
    strategy: str = "evolutionary"
    early_stop: int = 0


@dataclass(frozen=True)
class Sample:
    """A trial as plots show it: seconds since the start, score of the schedule, of its task's first one, what its
    counts alone gave, and what was predicted (None before trees)."""

    task: str
    seconds: float
    score: float
    base: float
    estimated: float
    predicted: float | None


class Search:
    """Searches the schedules of ``tasks``. folder : where TVM's database is kept. stopped : asked between batches."""

    def __init__(
        self,
        tasks: Sequence[Task],
        gate: Gate,
        model: Model,
        log: Log,
        measure: Measure,
        settings: Settings,
        folder: Path,
        stopped: Callable[[], bool] = lambda: False,
        progress: Callable[[Search], None] | None = None,
    ):
        self.tasks = {task.digest: task for task in tasks}
        self.gate, self.model, self.log, self.settings, self.stopped, self.progress = (
            gate,
            model,
            log,
            settings,
            stopped,
            progress,
        )
        self.measure = measure
        self.samples: list[Sample] = []
        self.found: dict[tuple[str, str], Figures | None] = {}
        self.start, self.since_gain = time.monotonic(), 0
        self.target = tvm.target.Target(
            DEFAULT_CHIP
        )  # the chip itself is told in the manifest: in every record it would be most of it
        self.database = _database(folder)
        self.builder = builder(self.tasks)
        self.runner = runner(self.tasks, self._measured, self.score, self.found)
        self.courses: list[Course] = []

    @property
    def trials(self) -> int:
        return len(self.samples)

    def run(self) -> None:
        """Seeds first, then rounds of a batch, each for the task that promises most."""
        self.run_seeds()
        self.courses = [self._course(task, number) for number, task in enumerate(self.tasks.values())]
        while not self._over():
            open_courses = [course for course in self.courses if not course.done]
            if not open_courses:
                return
            self._round(max(open_courses, key=lambda course: course.gain))

    def score(self, task: Task, figures: Figures) -> float:
        """What is made small: as measured, and more for what has no room with the addresses that were found. Whole
        plans are placed again, which may help, so such a schedule is not left out."""
        measured = self.model.score.measured(figures, task.share)
        return measured * OVER if figures.memory_bytes > self.gate.room(task) else measured

    def run_seeds(self) -> None:
        """Measures the schedules the search starts from."""
        for task in self.tasks.values():
            task.bench.limit_bytes = self.gate.room(task)
            self.found[task.digest, task.met(task.seeds[0]).key] = self._measured(task, task.seeds[0])
        self._shares()
        for task in self.tasks.values():
            self._seed(task)

    def _shares(self) -> None:
        """Of every task, of the network that the given ones are together as they start."""
        point = self.model.score.point.name
        first = {task.digest: self.found[task.digest, task.met(task.seeds[0]).key] for task in self.tasks.values()}
        given = [(task.weight, first[task.digest]) for task in self.tasks.values() if task.given]
        cycles, energy = (
            sum(weight * f.cycles for weight, f in given),
            added(weight * f.energy_pj[point] for weight, f in given),
        )
        for name, f in first.items():
            self.tasks[name].share = f.cycles / max(1, cycles), f.energy_pj[point] / max(1.0, energy)

    def _over(self) -> bool:
        early = self.settings.early_stop and self.since_gain >= self.settings.early_stop
        return (
            self.trials >= self.settings.trials
            or time.monotonic() - self.start >= self.settings.seconds
            or early
            or self.stopped()
        )

    def _seed(self, task: Task) -> None:
        """The schedules the search starts from. Errors: those of carrying out the plan that was given."""
        for number, values in enumerate(task.seeds):
            way = task.met(values)
            if way.key in task.records:
                continue
            if number:
                self.runner.run([ms.runner.RunnerInput(_text(task, way.key), "cpu", [])])[0].result()
            self._take(task, [way.key], [None])

    def _course(self, task: Task, number: int) -> Course:
        seed = self.settings.seed * 1009 + number + 1
        context = context_of(task, self.gate, self.target, self.settings.strategy, seed)
        workload = self.database.commit_workload(task.module)
        for key, figures in task.records.items():
            if figures is not None:
                self._commit(task, workload, task.trace(task.ways[key]), self.score(task, figures))
        if task.space.choices:
            context.pre_tuning(
                1 << 30,
                batch_of(task),
                context.generate_design_space(),
                self.database,
                tvm_model(self.model, self.tasks),
            )
        course = Course(task, context, workload, Near(task, self.gate, self.model, seed))
        course.best = [min(self.score(task, f) for f in task.records.values() if f is not None)]
        return course

    def _round(self, course: Course) -> None:
        """A batch of TVM's search, every other one, the first among them, of `Near`; neighbours alone where TVM finds
        no more within the budgets."""
        course.rounds += 1
        evolved = self.settings.strategy != "random"
        if evolved and (course.rounds % 2 == 1 or not course.drawn):
            self._nearby(course)
            return
        candidates = course.context.generate_measure_candidates()
        if candidates is None:
            course.drawn = False
            course.empty = 0 if evolved else EMPTY
            return
        built = self.builder.build(
            [ms.builder.BuilderInput(candidate.sch.mod, self.target) for candidate in candidates]
        )
        keys = self._within_trials(course.task, [_key(str(result.artifact_path)) for result in built])
        outcomes, predicted = self._tried(course, keys, [candidate.sch.trace for candidate in candidates])
        rest = [ms.runner.RunnerResult([FAILED_S], None)] * (len(candidates) - len(outcomes))
        course.context.notify_runner_results(candidates, [*outcomes, *rest])
        self._taken(course, keys, predicted)

    def _within_trials(self, task: Task, keys: list[str]) -> list[str]:
        """Those up to the last new one that there are trials for: a run with more trials goes on from the very same
        ones."""
        left, new = self.settings.trials - self.trials, dict.fromkeys(key for key in keys if key not in task.records)
        over = list(new)[left : left + 1]
        return keys[: keys.index(over[0])] if over else keys

    def _nearby(self, course: Course) -> None:
        task = course.task
        keys = course.near.proposed(
            min(NEAR if course.drawn else batch_of(task), self.settings.trials - self.trials), self.score
        )
        _, predicted = self._tried(course, keys, [task.trace(task.ways[key]) for key in keys])
        self._taken(course, keys, predicted)

    def _tried(self, course: Course, keys: list[str], traces: Sequence) -> tuple[list, list[float | None]]:
        """Measures ways: ``(what TVM is told of each, what was predicted of each)``; those that are new go into the
        database."""
        task, predicted = course.task, self._predicted(course.task, keys)
        self._ahead(task, keys)
        outcomes = [
            future.result()
            for future in self.runner.run([ms.runner.RunnerInput(_text(task, key), "cpu", []) for key in keys])
        ]
        for i, (key, trace, outcome) in enumerate(zip(keys, traces, outcomes)):
            if float(outcome.run_secs[0]) < FAILED_S and key not in task.records and keys.index(key) == i:
                self._commit(task, course.workload, trace, float(outcome.run_secs[0]))
        return outcomes, predicted

    def _taken(self, course: Course, keys: list[str], predicted: list[float | None]) -> None:
        before, task = course.best[-1], course.task
        new = self._take(task, keys, predicted)
        best = min(self.score(task, f) for f in task.records.values() if f is not None)
        course.best += [best] * max(new, 1)
        course.empty = 0 if new else course.empty + 1
        self.since_gain = 0 if best < before else self.since_gain + new
        self.model.grow()
        if self.progress:
            self.progress(self)

    def _take(self, task: Task, keys: list[str], predicted: list[float | None]) -> int:
        """Takes in what was measured, on disk first; how many of it are new."""
        trials = []
        for key, guess in dict(zip(keys, predicted)).items():  # TVM's replay of traces draws the same way twice
            if key in task.records:
                continue
            figures = self.found.pop((task.digest, key))
            trials.append(Trial(task.digest, key, task.ways[key], figures, guess))
        self.log.append(trials)
        for trial in trials:
            task.records[trial.way] = trial.figures
            if trial.figures is None:
                continue
            score = self.model.score.measured(trial.figures, task.share)
            way = task.space.way(trial.values)
            self.model.learn(task, way, task.bench.look(way), score)
            self.samples.append(
                Sample(
                    task.digest,
                    time.monotonic() - self.start,
                    score,
                    self.model.score.measured(task.default, task.share),
                    self.model.score.estimated(task.bench.look(way), task.share),
                    trial.predicted,
                )
            )
        return len(trials)

    def _predicted(self, task: Task, keys: list[str]) -> list[float | None]:
        """What the trees expect of schedules they have not seen."""
        if not self.model.grown:
            return [None] * len(keys)
        ways = [task.space.way(task.ways[key]) for key in keys]
        return [float(p) for p in self.model.predict([(task, way, task.bench.look(way)) for way in ways])]

    def _ahead(self, task: Task, keys: list[str]) -> None:
        """Tells a measure that works on several at a time (`ahead`) what a batch will ask for."""
        ways = [
            way for way in dict.fromkeys(keys) if way not in task.records and (task.digest, way) not in self.log.known
        ]
        if hasattr(self.measure, "ahead") and ways:
            self.measure.ahead([(task, task.ways[way]) for way in ways])

    def _measured(self, task: Task, values: Sequence[int]) -> Figures:
        """From the log where it is there: a search that is resumed takes the same course. TVM's search may come upon
        what `Near` has proposed."""
        key = task.space.way(values).key
        if task.records.get(key) is not None:
            return task.records[key]
        known = self.log.known.get((task.digest, key))
        if known is not None and known.figures is not None:
            return known.figures
        figures = self.measure(task, values)
        if figures.wrong:  # the record of trials would be refused later
            raise RemoteError(
                "a measurement cannot be believed",
                where=f"task {task.digest}",
                available=figures.wrong,
                remedy="measure with another `measure`",
            )
        return figures

    def _commit(self, task: Task, workload, trace, seconds: float) -> None:
        self.database.commit_tuning_record(
            ms.database.TuningRecord(trace.simplified(True), workload, [seconds], self.target, None)
        )

    def correlation(self, counts_alone: bool = False) -> float | None:
        """Spearman's rank correlation of predictions with what was measured afterwards, averaged over the tasks'
        schedules. counts_alone : of the estimates that counts give without trees, over the same schedules."""
        total, weight = 0.0, 0
        for name in self.tasks:
            pairs = [
                (s.estimated if counts_alone else s.predicted, s.score)
                for s in self.samples
                if s.task == name and s.predicted is not None
            ]
            found = rank_correlation([p for p, _ in pairs], [m for _, m in pairs])
            if found is not None:
                total, weight = total + found * len(pairs), weight + len(pairs)
        return total / weight if weight else None


def _key(text: str) -> str:
    return json.loads(text)["way"]


def _text(task: Task, key: str) -> str:
    return json.dumps({"task": task.digest, "way": key, "values": task.ways[key]})


def _database(folder: Path) -> ms.database.JSONDatabase:
    """TVM's database of this run, empty: what a run that ended early left is in the log, and written again as it is met
    again."""
    paths = folder / "database_workload.json", folder / "database_tuning_record.json"
    for path in paths:
        path.unlink(missing_ok=True)
    return ms.database.JSONDatabase(*map(str, paths), allow_missing=True)
