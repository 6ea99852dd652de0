"""The tuner against the true optimum: subproblems of real networks, with so few values left for each decision that
every schedule can be measured.

Each is searched with at most 5 % as many trials as it has different schedules, under a memory limit between the least
that any schedule needs and what whole layers need, and a power budget at a frame rate: halfway between what the fastest
schedule within the memory takes and the least that any takes at the nominal clock. The optimum is over all schedules
and operating points that the budgets allow; the search's answer is the best of its trials that they allow."""

from __future__ import annotations

import lzma
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from pathlib import Path

import onnx
import onnxruntime
from onnx import helper, numpy_helper

from benchmarks.common import parse, parser, show
from tvm_ergo import frontend
from tvm_ergo.api import renamed
from tvm_ergo.codegen.fuse import fuse
from tvm_ergo.codegen.graph import Graph
from tvm_ergo.codegen.space import SpacePlan, choose
from tvm_ergo.codegen.space.segments import units_of
from tvm_ergo.codegen.stream import graph_of
from tvm_ergo.codegen.tuning.budget import Gate
from tvm_ergo.codegen.tuning.figures import Budget, Figures, Goal, best_point, cost
from tvm_ergo.codegen.tuning.log import Log
from tvm_ergo.codegen.tuning.measure import Bench
from tvm_ergo.codegen.tuning.model import Model
from tvm_ergo.codegen.tuning.parts import Part, alone
from tvm_ergo.codegen.tuning.score import Score
from tvm_ergo.codegen.tuning.search import Search, Settings
from tvm_ergo.codegen.tuning.space import Choice, Space
from tvm_ergo.codegen.tuning.task import Task
from tvm_ergo.codegen.tuning.workload import digest
from tvm_ergo.evaluation.lookup import input_shapes_of
from tvm_ergo.evaluation.nets import model_path
from tvm_ergo.evaluation.tasks import TASKS
from tvm_ergo.pipeline import PipelineOptions, run_stages
from tvm_ergo.relay_passes.compile.partition import chip_functions
from tvm_ergo.target.chip import chip
from tvm_ergo.target.errors import ErgoError

ON = chip("ergo/1").with_memory(64 << 20)
CALIBRATION, SEEDS = 2, 5
SHARE = 0.05
BUSY = 0.3
"""Share of the time the fastest schedule computes at the frame rate, at the nominal clock."""
MEMORY_AT = 0.4
"""Where between the least memory of any schedule and that of whole layers the limit lies."""
RESNET8, MOBILENET, SQUEEZENET, MINILM = (
    "pretrainedResnet_quant",
    "tf2_mobilenet_v2_1.0_224_ptq",
    "squeezenet1.0_deepcompression_fp32",
    "all_minilm_l6_v2_trim",
)
BLOCK, LAYER = "encoder.layer.0.attention.output.LayerNorm", "encoder.layer.0"
"""What MiniLM's first feed-forward block reads."""
FEW_ROWS = (0, 1, 4, 16)


@dataclass(frozen=True)
class Problem:
    """Units ``[first, last]`` of a net's one chip function. keep : of decisions of a name the values left, beside the
    first; those not named keep all."""

    net: str
    first: int
    last: int
    keep: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    forms: bool = True


PROBLEMS = {
    "ResNet-8 stem and first block": Problem(RESNET8, 0, 1),
    "ResNet-8 first two blocks": Problem(RESNET8, 1, 2, {"rows": FEW_ROWS, "tile": (1, 2, -2), "inner": (0, 1)}),
    "MobileNetV2 stem": Problem(MOBILENET, 1, 2, {"rows": (0, 1, 2, 4, 8)}),
    "MobileNetV2 first depthwise and projection": Problem(MOBILENET, 2, 3, {"rows": (0, 1, 2, 4, 8)}),
    "MobileNetV2 second bottleneck": Problem(MOBILENET, 4, 6, {"rows": (0, 1, 4), "tile": (1, 2, -4)}, forms=False),
    "MobileNetV2 28x28 residual bottleneck": Problem(MOBILENET, 11, 11),
    "SqueezeNet first fire": Problem(SQUEEZENET, 3, 4, {"rows": (0, 2, 8), "tile": (1, 2)}),
    "SqueezeNet last fire and classifier": Problem(SQUEEZENET, 19, 21, {"rows": (0, 1, 4), "tile": (1, -2)}),
    "MobileNetV2 last residual bottleneck": Problem(MOBILENET, 27, 27),
    "MobileNetV2 last bottleneck": Problem(MOBILENET, 29, 31, {"rows": (0, 4), "tile": (1, -2, -4)}),
    "MiniLM feed-forward": Problem(MINILM, 1, 1, forms=False),
}


class Restricted(Space):
    """A space with fewer values a decision. keep : see `Problem`."""

    def __init__(self, graph: Graph, keep: Mapping[str, tuple[int, ...]], forms: bool):
        self.keep = keep
        super().__init__(graph, ON, forms=forms)

    def _choices(self) -> Iterator[Choice]:
        for choice in super()._choices():
            kept = self.keep.get(choice.name, choice.candidates)
            yield replace(
                choice, candidates=tuple(c for place, c in enumerate(choice.candidates) if place == 0 or c in kept)
            )


@dataclass(eq=False)
class Enumerated:
    """A problem all of whose ways are measured. figures : by the way's key. memory_bytes : of whole layers. seconds :
    it took."""

    name: str
    space: Space
    bench: Bench
    figures: dict[str, Figures]
    whole: Figures
    seconds: float


def minilm_block() -> tuple[onnx.ModelProto, list[dict]]:
    """MiniLM's first feed-forward block with its residual, and what real sentences give it. Its matrices are 1x1
    convolutions over a column of tokens, the same arithmetic, so that tokens can be rows of the plan: as matrices they
    are reshaped before and after each product, and nothing is left to decide."""
    model = onnx.load_from_string(lzma.decompress(model_path(MINILM).read_bytes()))
    model.graph.output.append(helper.make_tensor_value_info(BLOCK, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = [
        {"x": session.run([BLOCK], feeds)[0].transpose(0, 2, 1)[..., None]}
        for feeds in TASKS[MINILM].calibration.inputs(CALIBRATION)
    ]
    constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    kept = {"rsqrt2": constants["rsqrt2"], "half": constants["half"], "one": constants["one"]}
    for name in ("intermediate", "output"):
        kept |= {
            f"{name}.w": constants[f"{LAYER}.{name}.dense.weight_T"].T[..., None, None],
            f"{name}.b": constants[f"{LAYER}.{name}.dense.bias"],
        }
    steps = (
        ("Conv", ("x", "intermediate.w", "intermediate.b"), "wide"),
        ("Mul", ("wide", "rsqrt2"), "scaled"),
        ("Erf", ("scaled",), "erf"),
        ("Add", ("erf", "one"), "gate"),
        ("Mul", ("wide", "half"), "halved"),
        ("Mul", ("halved", "gate"), "gelu"),
        ("Conv", ("gelu", "output.w", "output.b"), "narrow"),
        ("Add", ("narrow", "x"), "y"),
    )
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, inputs[0]["x"].shape) for name in ("x", "y")]
    block = helper.make_graph(
        [helper.make_node(op, read, [made]) for op, read, made in steps],
        "feed_forward",
        ports[:1],
        ports[1:],
        [numpy_helper.from_array(value, name) for name, value in kept.items()],
    )
    return helper.make_model(block, opset_imports=[helper.make_opsetid("", 17)]), inputs


@cache
def graph(net: str) -> Graph:
    """A net's one chip function."""
    task = TASKS.get(net)
    if net == MINILM:
        model, inputs = minilm_block()
        shapes = None
    else:
        model, shapes = model_path(net), input_shapes_of(task) if task else None
        inputs = list(task.calibration.inputs(CALIBRATION)) if task and task.calibration else None
    imported = frontend.load(model, input_shapes=shapes)
    mod = run_stages(imported.mod, PipelineOptions(ON, renamed(inputs, imported)), until="code_weights")
    ((name, func),) = chip_functions(mod)
    return fuse(graph_of(func, name))


def space_of(problem: Problem) -> Space:
    whole = graph(problem.net)
    units = units_of(whole)
    nodes = [node for unit in units[problem.first : problem.last + 1] for node in unit]
    inputs = units[problem.first - 1][-1].outputs if problem.first else whole.inputs
    outputs = nodes[-1].outputs if problem.last + 1 < len(units) else whole.outputs
    return Restricted(alone(whole, nodes, inputs, outputs), problem.keep, problem.forms)


def enumerate_all(name: str, problem: Problem) -> Enumerated:
    """Measures every way; those that cannot be carried out, or take too many steps, are left out."""
    space, start = space_of(problem), time.monotonic()
    bench, figures, seen = Bench(space.graph, space, ON), {}, set()
    for values in product(*(choice.candidates for choice in space.choices)):
        way = space.way(values)
        if way.key in seen:
            continue
        seen.add(way.key)
        try:
            figures[way.key] = bench.measure(way)
        except ErgoError:
            continue
    whole = bench.measure(space.way([choice.candidates[0] for choice in space.choices]))
    return Enumerated(name, space, bench, figures, whole, time.monotonic() - start)


def budget_of(every: Enumerated) -> Budget:
    """Memory, power and rate by the rule of this module's docstring."""
    point, least = ON.points[0], min(f.memory_bytes for f in every.figures.values())
    memory = int(least + MEMORY_AT * (every.whole.memory_bytes - least))
    within = [f for f in every.figures.values() if f.memory_bytes <= memory]
    fastest = min(within, key=lambda f: (f.cycles, f.energy_pj[point.name]))
    rate = Budget(memory, frames_per_s=BUSY * point.clock_hz / fastest.cycles)
    powers = [rate.power(f.cycles, f.energy_pj[point.name], ON, point) for f in within]
    return replace(
        rate, power_mw=(rate.power(fastest.cycles, fastest.energy_pj[point.name], ON, point) + min(powers)) / 2
    )


def best(figures, goal: Goal, budget: Budget) -> float | None:
    """The least cost of figures that the budget allows, at the point each does best at."""
    costs = [cost(goal, f, point) for f in figures if f is not None and (point := best_point(goal, f, budget, ON))]
    return min(costs, default=None)


def task_of(every: Enumerated, budget: Budget) -> Task:
    """The problem as the tuner takes it: it starts from the plan compilation would choose, where the space holds that,
    else from whole layers."""
    space, plan = every.space, choose(every.space.graph, ON, budget.memory_bytes)
    values = (
        space.values(
            plan.bands,
            plan.stages,
            plan.barriers,
            {t.id: t.coding for t in plan.graph.tensors if t.coding and t.id in space.forms},
        )
        if isinstance(plan, SpacePlan)
        else None
    )
    seed = values or [choice.candidates[0] for choice in space.choices]
    nodes = tuple(range(len(space.graph.nodes)))
    return Task(
        digest(space),
        space,
        every.bench,
        [(every.name, Part(0, len(space.units) - 1, space.graph, nodes, {}, {}, frozenset()))],
        [tuple(seed)],
    )


def searched(
    every: Enumerated, goal: Goal, budget: Budget, trials: int, seed: int, strategy: str = "evolutionary"
) -> Task:
    """The task after a search. Figures come from those measured already."""
    task = task_of(every, budget)
    default = every.figures[every.space.way(task.seeds[0]).key]
    score = Score.of(goal, ON, budget, default)
    with tempfile.TemporaryDirectory() as folder:
        Search(
            [task],
            Gate([task], budget, ON),
            Model(score, seed, strategy != "random"),
            Log(Path(folder) / "trials.jsonl", False),
            lambda task, values: every.bench.measure(task.space.way(values)),
            Settings(trials, seed=seed, strategy=strategy),
            Path(folder),
        ).run()
    return task


def rows_of(every: Enumerated, seeds: int) -> Iterator[dict]:
    budget, trials = budget_of(every), max(1, int(SHARE * len(every.figures)))
    for goal in (Goal.LATENCY, Goal.ENERGY):
        optimum = best(every.figures.values(), goal, budget)
        tasks = [searched(every, goal, budget, trials, seed) for seed in range(seeds)]
        again = searched(every, goal, budget, trials, 0)
        drawn = [searched(every, goal, budget, trials, seed, "random") for seed in range(seeds)]
        gaps, random = ([gap(task, goal, budget, optimum) for task in many] for many in (tasks, drawn))
        known = [g for g in gaps if g is not None]
        yield {
            "subproblem": every.name,
            "objective": goal.value,
            "combinations": every.space.size,
            "different": len(every.figures),
            "trials": trials,
            "most used": max(len(task.records) for task in tasks),
            "KiB": budget.memory_bytes / 1024,
            "mW": budget.power_mw,
            "fps": budget.frames_per_s,
            "optimum": optimum * (1e6 if goal is Goal.LATENCY else 1e-6),
            "gaps %": ", ".join("none" if g is None else f"{100 * g:.2f}" for g in gaps),
            "worst %": 100 * max(known) if len(known) == len(gaps) else None,
            "random %": ", ".join("none" if g is None else f"{100 * g:.1f}" for g in random),
            "repeats": list(again.records.items()) == list(tasks[0].records.items()),
            "enumerated s": every.seconds,
        }


def gap(task: Task, goal: Goal, budget: Budget, optimum: float) -> float | None:
    """What the best trial within the budgets exceeds the optimum by, as a share; None where no trial was within
    them."""
    found = best(task.records.values(), goal, budget)
    return None if found is None else found / optimum - 1


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__.split("\n\n")[0])
    arguments.add_argument("--seeds", type=int, default=SEEDS, metavar="N", help=f"searches of each (default {SEEDS})")
    parsed = parse(arguments, argv)
    rows = []
    for name in parsed.nets or PROBLEMS:
        rows += rows_of(enumerate_all(name, PROBLEMS[name]), parsed.seeds)
        print(rows[-2:], flush=True)
    show("search against the true optimum (us, uJ)", rows, parsed.json, hidden=("fps",))


if __name__ == "__main__":
    main()
