"""Small networks of the integer dialect, and what the tuner makes of their one chip function."""

from dataclasses import dataclass

import numpy as np
import pytest
import tvm
from tvm import relax

from tvm_ergo.codegen.fuse import fuse
from tvm_ergo.codegen.space import choose
from tvm_ergo.codegen.stream import graph_of
from tvm_ergo.codegen.tuning.budget import Gate
from tvm_ergo.codegen.tuning.combine import default_figures
from tvm_ergo.codegen.tuning.figures import Budget, Figures, Goal
from tvm_ergo.codegen.tuning.log import Log
from tvm_ergo.codegen.tuning.model import Model
from tvm_ergo.codegen.tuning.network import Function
from tvm_ergo.codegen.tuning.score import Score
from tvm_ergo.codegen.tuning.search import Search, Settings
from tvm_ergo.codegen.tuning.task import Task, tasks_of
from tvm_ergo.pipeline import PipelineOptions, run_stages
from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.compile.partition import chip_functions
from tvm_ergo.target.chip import Chip, chip


def net(blocks: int = 2, size: int = 24, channels: int = 8, seed: int = 0) -> tvm.IRModule:
    """[1, size, size, 3] -> a convolution, ``blocks`` inverted bottlenecks with residuals, a mean, a dense layer. The
    bottlenecks have equal shapes and other weights."""
    rng, builder = np.random.default_rng(seed), relax.BlockBuilder()

    def convolution(x, inputs: int, outputs: int, kernel: int, name: str, stride: int = 1):
        constants = [
            relax.const(rng.integers(-90, 91, (outputs, kernel, kernel, inputs)).astype("int8"), "int8"),
            *vectors(outputs),
        ]
        op = dialect.Conv2d((stride, stride), (kernel // 2,) * 4, (1, 1), 1, 3, 0, -128, 127, name=name)
        return builder.emit(op.call(x, *constants))

    def vectors(n: int):
        return [
            relax.const(rng.integers(-500, 501, n).astype("int32"), "int32"),
            relax.const(rng.integers(2**23, 2**24, n).astype("int32"), "int32"),
            relax.const(np.full(n, 31, "int8"), "int8"),
        ]

    x = relax.Var("x", relax.TensorType((1, size, size, 3), "int8"))
    with builder.function("main", [x]):
        with builder.dataflow():
            y = convolution(x, 3, channels, 3, "stem", 2)
            for block in range(blocks):
                wide = convolution(y, channels, 4 * channels, 1, f"expand{block}")
                taps = relax.const(rng.integers(-90, 91, (3, 3, 4 * channels)).astype("int8"), "int8")
                deep = builder.emit(
                    dialect.DepthwiseConv2d(
                        (1, 1), (1, 1, 1, 1), (1, 1), 3, 0, -128, 127, name=f"depthwise{block}"
                    ).call(wide, taps, *vectors(4 * channels))
                )
                narrow = convolution(deep, 4 * channels, channels, 1, f"project{block}")
                y = builder.emit(dialect.Add(3, 3, 2**19, 2**19, 20, -128, 127, name=f"add{block}").call(y, narrow))
            y = convolution(y, channels, 4 * channels, 1, "head")
            mean = builder.emit(dialect.ReduceSum((1, 2), True, 3, 2**23, 31, -128, 127, name="mean").call(y))
            out = builder.emit_output(convolution(mean, 4 * channels, 10, 1, "dense"))
        builder.emit_func_output(out)
    return builder.get()


@dataclass
class Bed:
    """A function, its tasks, and the means to search them."""

    chip: Chip
    function: Function
    tasks: list[Task]
    budget: Budget
    measured: int = 0

    def search(
        self,
        folder,
        trials: int = 48,
        goal: Goal = Goal.LATENCY,
        resume: bool = False,
        seed: int = 0,
        fail_after: int | None = None,
        strategy: str = "evolutionary",
    ) -> Search:
        """A search, not run yet. fail_after : measurements after which one more is an error."""
        default = default_figures([self.function], self.chip, Budget(1 << 32))
        point = self.chip.points[0]
        score = Score(goal, self.chip, point, default.cycles / point.clock_hz, default.energy_pj[point.name])

        def measure(task: Task, decisions) -> Figures:
            if self.measured == fail_after:
                raise RuntimeError("killed")
            self.measured += 1
            return task.bench.measure(task.space.way(decisions))

        folder.mkdir(exist_ok=True)
        return Search(
            self.tasks,
            Gate(self.tasks, self.budget, self.chip),
            Model(score, seed),
            Log(folder / "trials.jsonl", resume),
            measure,
            Settings(trials, seed=seed, strategy=strategy),
            folder,
        )


def bed(
    mod: tvm.IRModule | None = None, memory: int = 10 * 1024, power_mw: float = float("inf"), frames_per_s: float = 0.0
) -> Bed:
    """The tuner's view of a network with one chip function."""
    small = chip("ergo/1").with_memory(memory)
    mod = run_stages(net() if mod is None else mod, PipelineOptions(small), start="partition", until="code_weights")
    ((name, func),) = chip_functions(mod)
    graph = fuse(graph_of(func, name))
    function = Function.of(name, graph, choose(graph, small, memory))
    return Bed(
        small,
        function,
        tasks_of([(name, part) for part in function.parts], small),
        Budget(memory, power_mw, frames_per_s),
    )


@pytest.fixture
def make_bed():
    return bed


@pytest.fixture(scope="session")
def make_net():
    return net
