"""Figures from remembered pieces are those of lowering, waits and timeline one after another, to the last digit."""

from collections import Counter
from random import Random

import numpy as np
import pytest
from tvm import relax

from tvm_ergo.codegen.compile import instructions_of
from tvm_ergo.codegen.tuning.figures import Figures
from tvm_ergo.codegen.tuning.priced import Prices
from tvm_ergo.codegen.tuning.task import Task, tasks_of
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.slots import HEADER_BYTES, SlotLayout
from tvm_ergo.target.errors import UnsupportedError
from tvm_ergo.target.machine.timeline import simulate
from tvm_ergo.target.program import Program

from ..codegen.compression.nets import Waits


def naive(plan, chip) -> Figures:
    """By the very instructions of the plan's Program."""
    program = Program(
        chip_name=chip.name,
        instructions=instructions_of(plan)[0],
        data=[],
        inputs=[],
        outputs=[],
        nodes=[],
        buffers=[],
        memory_bytes=chip.memory_bytes,
        meta={},
    )
    run, events = simulate(program, chip), Counter()
    for spent in run.costs:
        events.update(spent.events)
    return Figures(
        run.cycles,
        {p.name: chip.energy_pj(events, p) + chip.leakage_pj(run.cycles, p) for p in chip.points},
        plan.constant_bytes,
        plan.activation_bytes,
        plan.live_bytes,
    )


def moving_net():
    """[1, 16, 16, 4] -> two convolutions side by side, joined and padded, and another: what moves depends on
    addresses."""
    rng, builder = np.random.default_rng(0), relax.BlockBuilder()

    def convolution(x, inputs: int, outputs: int, kernel: int, name: str):
        constants = [
            relax.const(rng.integers(-3, 4, (outputs, kernel, kernel, inputs)).astype("int8"), "int8"),
            relax.const(np.zeros(outputs, "int32"), "int32"),
            relax.const(np.full(outputs, 2**23, "int32"), "int32"),
            relax.const(np.full(outputs, 31, "int8"), "int8"),
        ]
        return builder.emit(
            dialect.Conv2d((1, 1), (kernel // 2,) * 4, (1, 1), 1, 3, 0, -128, 127, name=name).call(x, *constants)
        )

    x = relax.Var("x", relax.TensorType((1, 16, 16, 4), "int8"))
    with builder.function("main", [x]):
        with builder.dataflow():
            squeezed = convolution(x, 4, 8, 1, "squeeze")
            wide = builder.emit(
                dialect.Concat(3, name="join").call(
                    convolution(squeezed, 8, 16, 1, "left"), convolution(squeezed, 8, 16, 3, "right"), squeezed
                )
            )
            padded = builder.emit(dialect.Pad((0, 0, 2, 1, 1, 2, 0, 0), 3, name="pad").call(wide))
            out = builder.emit_output(convolution(padded, 40, 12, 3, "last"))
        builder.emit_func_output(out)
    return builder.get()


def slotted(bed) -> list[Task]:
    """The tasks of a bed, with every tensor free to wait in slots of half its rows' bytes."""
    graph = bed.function.plan.graph
    layouts = {
        t.name: [SlotLayout(Codec.BITMASK, 1, HEADER_BYTES + t.size_bytes // (2 * t.shape[1]), -128)]
        for t in graph.tensors
        if t.data is None and len(t.shape) == 4 and t.shape[1] > 1
    }
    return tasks_of(
        [(bed.function.name, part) for part in bed.function.parts], bed.chip, layouts={bed.function.name: layouts}
    )


@pytest.mark.parametrize("kind", ["plain", "moves", "slots"])
def test_figures_are_those_of_the_instructions(make_bed, kind):
    mod = {"plain": lambda: None, "moves": moving_net, "slots": lambda: Waits().finish()}[kind]()
    bed, random, compared, cycles, coded = make_bed(mod, memory=14 * 1024), Random(3), 0, set(), 0
    for task in slotted(bed) if kind == "slots" else bed.tasks:
        for _ in range(40):
            way = task.space.way([random.choice(choice.candidates) for choice in task.space.choices])
            try:
                plan = task.bench.plan(way)
                expected = naive(plan, task.bench.chip)
            except UnsupportedError:
                continue
            assert task.bench.measure(way) == expected
            assert Prices(plan.graph, task.bench.chip).figures(plan) == expected  # nothing remembered
            compared, coded = compared + 1, coded + bool(way.codes)
            cycles.add(expected.cycles)
    assert compared >= 40 and len(cycles) >= 20 and (coded >= 5 or kind != "slots")
