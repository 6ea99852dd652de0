"""What is tuned: the chip functions of a model with the plans compilation would choose, and in which slots their
tensors may wait."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import tvm
from tvm import relax

from tvm_ergo.codegen.choices import Weights
from tvm_ergo.codegen.compile import COMPRESSION, PLAN
from tvm_ergo.codegen.compression import TensorStatistics, rows_of
from tvm_ergo.codegen.compression.choose import WAITING
from tvm_ergo.codegen.compression.statistics import Spec
from tvm_ergo.codegen.compression.waiting import Waiting
from tvm_ergo.codegen.fuse import fuse
from tvm_ergo.codegen.plan import make_plan
from tvm_ergo.codegen.planned import remade
from tvm_ergo.codegen.space import Objective, choose
from tvm_ergo.codegen.stream import graph_of
from tvm_ergo.codegen.tuning.figures import Figures
from tvm_ergo.codegen.tuning.network import Decided, Function
from tvm_ergo.codegen.weights.apply import codings_of
from tvm_ergo.codegen.weights.choose import SLOWER
from tvm_ergo.codegen.weights.forms import Forms
from tvm_ergo.pipeline import PipelineOptions, run_stages
from tvm_ergo.relay_passes.compile.insert_compression import Decision
from tvm_ergo.relay_passes.compile.partition import chip_functions
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.slots import SlotLayout
from tvm_ergo.target.errors import OutOfMemoryError, UnsupportedError
from tvm_ergo.waiting import Compression, compress_waiting, measure

NO_LIMIT = 1 << 40
BETWEEN = 1
"""Starts between weights coded for free and the fewest bytes."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """functions : to tune. others : the same with other plans that the search starts from too, their weights in other
    forms. statistics : of their tensors, by function; none where nothing is to wait compressed. base : per function
    JSON of the tensors that compilation lets wait compressed already, ``waiting`` and ``compression`` (the rows of
    reports)."""

    functions: tuple[Function, ...]
    others: tuple[tuple[Function, ...], ...] = ()
    statistics: Mapping[str, Mapping[str, TensorStatistics]] = field(default_factory=dict)
    base: Mapping[str, Mapping] = field(default_factory=dict)
    lossless: bool = False

    @property
    def layouts(self) -> dict[str, dict[str, list[SlotLayout]]]:
        """In which slots of single rows each tensor may wait."""
        return {
            name: {
                t: [s.layout(spec, self.lossless) for spec in s.coded if spec.tile_rows == 1]
                for t, s in statistics.items()
            }
            for name, statistics in self.statistics.items()
        }

    def record(self, name: str, decided: Decided) -> dict:
        """JSON of a decided plan: all that compilation needs to carry it out and to report it."""
        waiting = {}
        for t, (codec, slot_bytes, zero_point) in decided.plan.get("codes", {}).items():
            waiting[t] = Waiting(t, Spec(Codec[codec], 1), Decision(codec, 1, slot_bytes, zero_point, False, True), 1)
        base = self.base.get(name, {"waiting": {}, "compression": []})
        rows = rows_of(waiting, self.statistics[name]) if waiting else []
        return {**decided.to_json(), "waiting": base["waiting"], "compression": [*base["compression"], *rows]}


def prepared(mod: tvm.IRModule, options: PipelineOptions) -> Prepared:
    """Of a partitioned module. Errors: OutOfMemoryError where it does not fit."""
    mod = run_stages(mod, options, start="code_weights", until="code_weights")
    functions, statistics = dict(chip_functions(mod)), {}
    if (
        options.compression is not Compression.OFF
        and options.calibration is not None
        and (options.objective is Objective.MEMORY or not _fits(mod, options))
    ):
        collector = measure(mod, functions, options)
        statistics = {name: collector.statistics(name) for name in functions}
        mod = compress_waiting(mod, options, collector)
        functions = dict(chip_functions(mod))
    base = {
        name: {"waiting": json.loads(str(func.attrs[WAITING])), "compression": json.loads(str(func.attrs[COMPRESSION]))}
        for name, func in functions.items()
        if WAITING in (func.attrs or {})
    }
    default = _planned(functions, options)
    return Prepared(
        default, _others(functions, default, options), statistics, base, options.compression is Compression.LOSSLESS
    )


def _planned(functions: Mapping[str, relax.Function], options: PipelineOptions) -> tuple[Function, ...]:
    """With the plans they carry, or that compilation would choose. Errors: OutOfMemoryError."""
    graphs = {name: fuse(graph_of(func, name)) for name, func in functions.items()}
    constants = {name: make_plan(graph, NO_LIMIT).constant_bytes for name, graph in graphs.items()}
    found = []
    for name, graph in graphs.items():
        attrs, limit = (
            functions[name].attrs or {},
            max(1, options.chip.memory_bytes - sum(constants.values()) + constants[name]),
        )
        plan = remade(graph, json.loads(str(attrs[PLAN]))) if PLAN in attrs else None
        if plan is None or plan.memory_bytes > limit:
            plan = choose(graph, options.chip, limit, objective=options.objective)
        found.append(Function.of(name, graph, plan))
    return tuple(found)


def _others(
    functions: Mapping[str, relax.Function], default: tuple[Function, ...], options: PipelineOptions
) -> tuple[tuple[Function, ...], ...]:
    """Plans with all weights plain, coded for free, in part and to the fewest bytes, each where it fits and is not too
    slow to learn from, those that are not there yet."""
    if options.weights is Weights.DENSE:
        return ()
    free = {name: func.without_attr(PLAN) for name, func in functions.items()}
    forms = Forms(free, options.chip)
    choices = list(forms.levels(options.weights).values()) + (
        forms.steps(BETWEEN) if options.weights is Weights.AUTO else []
    )
    found, seen, fastest = (
        [],
        [{name: codings_of(func) for name, func in functions.items()}],
        _cycles(default, options.chip),
    )
    for form in map(forms.of, choices):
        codings = {name: codings_of(func) for name, func in form.items()}
        if codings in seen:
            continue
        seen.append(codings)
        with contextlib.suppress(OutOfMemoryError, UnsupportedError):  # the search does without this one
            start = _planned(form, options)
            if _cycles(start, options.chip) <= SLOWER * fastest:
                found.append(start)
    return tuple(found)


def _cycles(start: tuple[Function, ...], chip: Chip) -> int:
    return sum(Figures.of(function.program(chip), chip).cycles for function in start)


def _fits(mod: tvm.IRModule, options: PipelineOptions) -> bool:
    """Whether whole layers fit."""
    plans = [make_plan(graph_of(func), NO_LIMIT) for _, func in chip_functions(mod)]
    return (
        sum(p.constant_bytes for p in plans) + max((p.activation_bytes for p in plans), default=0)
        <= options.chip.memory_bytes
    )
