"""``tvm_ergo.explore``: the memory, time and energy that a network can be had for, before anyone decides on a limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import tvm
from tvm import relax

from tvm_ergo import frontend
from tvm_ergo import options as given
from tvm_ergo.api import renamed
from tvm_ergo.codegen.choices import Weights
from tvm_ergo.codegen.compression import Collector
from tvm_ergo.codegen.exclusive import exclusively
from tvm_ergo.codegen.explore import (
    LEAST,
    NO_LIMIT,
    POINTS,
    WHOLE,
    Point,
    combined,
    labelled,
    pareto,
    priced,
    undominated,
)
from tvm_ergo.codegen.explore_waiting import waiting_front
from tvm_ergo.codegen.plan import make_plan
from tvm_ergo.codegen.space import Objective
from tvm_ergo.codegen.space.bound import Bound, least_possible_bytes
from tvm_ergo.codegen.stream import graph_of
from tvm_ergo.codegen.weights.forms import AS_NEEDED, Forms
from tvm_ergo.compiled import CompiledModel
from tvm_ergo.frontend.imported import SourceFormat
from tvm_ergo.pipeline import PipelineOptions, Progress, run_stages
from tvm_ergo.relay_passes.compile.partition import chip_functions
from tvm_ergo.relay_passes.micro.quantize import QuantizeOptions
from tvm_ergo.report.front import Front, Series, front_of, series_of
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.errors import InputError, UnsupportedError
from tvm_ergo.target.tags import chip_of_target
from tvm_ergo.waiting import Compression, measure
from tvm_ergo.windows import given_rows, notes_of, stepped

RESIDENT, STREAMED, COMPRESSED = "resident", "streamed", "compressed"
MOST_POINTS = 1000
Functions = Mapping[str, relax.Function]


@exclusively()
def explore(
    model,
    *,
    target: str | Path | tvm.target.Target | Chip = "ergo",
    calibration=None,
    stream: bool = False,
    points: int = POINTS,
    point: str | None = None,
    weights: str = "auto",
    compression: str = "auto",
    quantize: QuantizeOptions = QuantizeOptions(),
    input_shapes: dict | None = None,
    batch: int = 1,
    new_rows: int | None = None,
    rows_axis: int | None = None,
    progress: Progress | None = None,
) -> Front:
    """The Pareto front of memory (constants and activations), cycles and energy, from the smallest plan to whole
    layers, whatever memory the chip has.

    Every point is a plan that was lowered to a Program and priced by its trace; its memory is what to give
    `tvm_ergo.compile` as ``memory``.

    Parameters
    ----------
    model : as in `tvm_ergo.compile`, or a CompiledModel that was compiled in this process. stream : also with the frame
    received row by row, as a second series. points : limits tried between the smallest plan and whole layers, for
    latency and for energy. point : operating point of the chip. weights : "auto": plans with the weights coded where
    that costs no time, where a layer gets at most four times slower, and in as few bytes as there can be, and whole
    layers with as many coded as some limits between need, whichever is best; "dense" and "coded" as in `compile`.
    compression : "auto" or "lossless" give a further series of each frame, below the smallest plan without, in which
    tensors wait compressed, as `compile` does it with each limit: where there are calibration data.
    new_rows, rows_axis : a further series of the network that is given the new rows of its window alone. Others : as in
    `tvm_ergo.compile`.

    Errors: those of `compile` but OutOfMemoryError; InputError for fewer than two points or a CompiledModel that was
    loaded. A model without a picture to stream is refused before anything is planned."""
    quantize, progress, stream = (
        given.quantization("quantize", quantize),
        given.callback("progress", progress),
        given.flag("stream", stream),
    )
    points, point = given.whole_number("points", points, least=2, most=MOST_POINTS), given.text("point", point)
    weights, compression = (
        given.choice("weights", weights, Weights),
        given.choice("compression", compression, Compression),
    )
    input_shapes, batch = given.shapes(input_shapes), given.whole_number("batch", batch)
    chip = chip_of_target(target)
    at = chip.point(point)
    if hasattr(calibration, "__next__"):
        calibration = list(calibration)  # quantizing and measuring both look at it
    new_rows, rows_axis = given_rows(new_rows, rows_axis)
    name, lowered, samples, imported = _lowered(model, chip, calibration, quantize, input_shapes, batch, progress)
    # all before the first is planned, which takes long: a model without a picture to stream is refused here
    options = PipelineOptions(chip, samples, stream=False, progress=progress)
    partitioned = {
        label: run_stages(
            lowered, replace(options, stream=label == STREAMED, progress=None), start="partition", until="partition"
        )
        for label in (RESIDENT, *((STREAMED,) if stream else ()))
    }
    notes: list[str] = []
    if new_rows is not None:
        made, _ = stepped(lowered, imported, new_rows, rows_axis)
        label = f"{new_rows} new row{'s' * (new_rows > 1)}"
        partitioned[label] = run_stages(made.mod, replace(options, progress=None), start="partition", until="partition")
        notes += [f"{label}: {note}" for note in notes_of(made)]
    statistics = None
    if compression is not Compression.OFF and samples is not None and chip_functions(partitioned[RESIDENT]):
        statistics = measure(partitioned[RESIDENT], dict(chip_functions(partitioned[RESIDENT])), options)
    series: list[Series] = []
    for label, mod in partitioned.items():
        work = _Work(dict(chip_functions(mod)), chip, points, point, label, weights, progress)
        found, bound = work.plain(), work.bound()
        series.append(series_of(label, found, bound, at.clock_hz))
        measured = statistics if label in (RESIDENT, STREAMED) else None  # those are of whole windows
        waiting = work.waiting(measured, found, compression is Compression.LOSSLESS) if measured else []
        if waiting:
            series.append(series_of(f"{label}, {COMPRESSED}", waiting, None, at.clock_hz))
        if measured and (not waiting or waiting[0].memory_bytes >= found[0].memory_bytes):
            notes.append(
                f"frame {label}: compressing what waits was tried and gets no plan below {found[0].memory_bytes:,} "
                f"bytes" + ("; what is compressed here is what --objective memory gives" if waiting else "")
            )
    return front_of(name, chip, point, weights.value, series, notes)


def _lowered(
    model, chip: Chip, calibration, quantize: QuantizeOptions, input_shapes, batch: int, progress
) -> tuple[str, tvm.IRModule, object, frontend.Imported]:
    """The model's name, its module in the integer dialect, the calibration data by the names of its parameters, and its
    ports."""
    if isinstance(model, CompiledModel):
        if model.lowered is None:
            raise InputError(
                "a loaded model does not hold the network to plan again",
                where=model.source,
                remedy="give the model file",
            )
        compiled = frontend.Imported(
            model.lowered, model.inputs, model.outputs, model.source, SourceFormat.RELAX, model.states
        )
        return Path(model.source or "model").name, model.lowered, renamed(calibration, compiled), compiled
    imported = frontend.load(model, input_shapes=input_shapes, batch=batch, calibration=calibration)
    samples = renamed(calibration, imported)
    options = PipelineOptions(chip, samples, quantize, progress=progress)
    lowered = run_stages(imported.mod, options, until="lower_quantized")
    return Path(imported.source or "model").name, lowered, samples, imported


@dataclass(frozen=True, eq=False)
class _Work:
    """The fronts of one way the frame comes in."""

    functions: Functions
    chip: Chip
    points: int
    point: str | None
    label: str
    weights: Weights
    progress: Progress | None

    def __post_init__(self):
        if not self.functions:
            raise UnsupportedError(
                "nothing of the model runs on the chip", remedy="`tvm-ergo ops` lists what the chip supports"
            )

    @cached_property
    def forms(self) -> Forms:
        return Forms(self.functions, self.chip)

    @cached_property
    def levels(self) -> dict[str, Functions]:
        """The functions in each form of the weights."""
        return {form: self.forms.of(chosen) for form, chosen in self.forms.levels(self.weights).items()}

    def bound(self) -> Bound:
        return max(
            (least_possible_bytes(graph_of(func, name)) for name, func in self.functions.items()),
            key=lambda bound: bound.size_bytes,
        )

    def plain(self) -> list[Point]:
        """Nothing compressed; all forms of the weights together."""
        found: list[Point] = []
        for number, (form, functions) in enumerate(self.levels.items()):
            fronts = [
                pareto(
                    graph_of(func, name),
                    self.chip,
                    points=self.points,
                    at=self.point,
                    progress=self._advance("plans", number * len(functions) + i),
                )
                for i, (name, func) in enumerate(functions.items())
            ]
            found += [replace(p, weights=form) for p in combined(fronts)]
        if self.weights is Weights.AUTO:  # between these forms whole layers, which are planned at once
            found += [self._whole(self.forms.of(chosen)) for chosen in self.forms.steps(self.points)]
        return labelled(undominated(found))

    def _whole(self, functions: Functions) -> Point:
        graphs = [graph_of(func, name) for name, func in functions.items()]
        (point,) = combined(
            [[priced(WHOLE, make_plan(graph, NO_LIMIT), graph.macs(), self.chip, self.point)] for graph in graphs]
        )
        return replace(point, weights=AS_NEEDED)

    def waiting(self, statistics: Collector, plain: list[Point], lossless: bool) -> list[Point]:
        """Tensors wait compressed; weights in the smallest form, as compiling takes them where nothing else fits, and
        in the one before it, which is faster.

        Below the least memory without, where limits ask for it; from there on only what the objective memory gives,
        where no point of ``plain`` is as good."""
        points, below_bytes = [], plain[0].memory_bytes
        forms = list(self.levels.items())[-2:]
        for k, (form, functions) in enumerate(forms):
            fronts = []
            for i, (name, func) in enumerate(functions.items()):
                found = waiting_front(
                    func,
                    self.chip,
                    statistics.statistics(name),
                    below_bytes,
                    points=max(2, self.points // 3),
                    lossless=lossless,
                    at=self.point,
                    progress=self._advance("compressed plans", k * len(functions) + i, len(functions) * len(forms)),
                )
                fronts.append(found or pareto(graph_of(func, name), self.chip, points=2, at=self.point))
            given = form == self.forms.of_least_memory(self.weights)  # by the objective memory
            points += [
                replace(p, weights=form)
                for p in combined(fronts)
                if p.compressed and (p.memory_bytes < below_bytes or given and p.how == LEAST)
            ]
        found = labelled([p for p in undominated([*plain, *points]) if p.compressed])
        return [
            replace(p, how=p.how.replace(LEAST, Objective.MEMORY.value)) if p.memory_bytes >= below_bytes else p
            for p in found
        ]

    def _advance(self, step: str, number: int, count: int | None = None):
        """progress : of one of so many searches."""
        count = count or len(self.levels) * len(self.functions)
        return (
            (lambda done, total: self.progress(f"{step}, frame {self.label}", number * total + done, total * count))
            if self.progress
            else None
        )
