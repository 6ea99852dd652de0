"""The price of a form of the weights is what happens in the plan: a constant read for every band is decoded as
often."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from tvm import relax

from tvm_ergo.codegen.choices import Weights
from tvm_ergo.codegen.compile import emit_program
from tvm_ergo.codegen.space import Objective, choose
from tvm_ergo.codegen.stream import graph_of
from tvm_ergo.codegen.testing import RandomFunction
from tvm_ergo.codegen.weights.choose import SLOWER
from tvm_ergo.codegen.weights.forms import IN_PLAN, Forms, stored_bytes
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.chip import chip
from tvm_ergo.target.isa import DType, contiguous

CHIP = chip("ergo/1")
NO_LIMIT = 1 << 40


def bottlenecks(blocks: int = 2):
    """Pointwise layers between 32 and 128 channels with depthwise ones between them, 24 x 24: the least memory computes
    them in bands of rows. Weights of few bits of entropy, which take long to decode."""
    function = RandomFunction(Random(0))
    rng = np.random.default_rng(0)
    x = relax.Var("x", relax.TensorType((1, 24, 24, 32), "int8"))
    function.params, function.values = [x], [x]

    def conv(out, taps, **fields):
        last, channels = function.values[-1], int(function.values[-1].ty.shape.values[-1])
        depthwise = taps == 3
        weights = np.clip(
            np.rint(rng.normal(0, 3, (3, 3, channels) if depthwise else (out, 1, 1, channels))), -128, 127
        ).astype(np.int8)
        vectors = [
            relax.const(np.full(out, value, dtype), dtype)
            for value, dtype in ((0, "int32"), (2**23, "int32"), (30, "int8"))
        ]
        op = (dialect.DepthwiseConv2d if depthwise else dialect.Conv2d)(
            padding=(1, 1, 1, 1) if depthwise else (0, 0, 0, 0), lo=-100, **fields
        )
        call = op.call(last, relax.const(weights, "int8"), *vectors)
        function.values.append(relax.DataflowVar(f"y{len(function.bindings)}", call.ty))
        function.bindings.append(relax.VarBinding(function.values[-1], call))

    for _ in range(blocks):
        conv(128, 1)
        conv(128, 3)
        conv(32, 1)
    return function.finish(1)["main"]


def worst(program) -> float:
    """By how much the slowest layer takes longer than with plain weights."""
    coded, plain = {}, {}
    for instruction in program.instructions:
        for name in instruction.WEIGHTS:
            dense = replace(instruction, **{name: contiguous(0, DType.I8, getattr(instruction, name).shape)})
            coded[instruction.node] = coded.get(instruction.node, 0) + instruction.cost(CHIP).cycles
            plain[instruction.node] = plain.get(instruction.node, 0) + dense.cost(CHIP).cycles
    return max(coded[node] / plain[node] for node in plain)


@pytest.fixture(scope="module")
def forms():
    return Forms({"main": bottlenecks()}, CHIP)


def least_program(forms, chosen):
    (func,) = forms.of(chosen).values()
    return emit_program(choose(graph_of(func, "main"), CHIP, NO_LIMIT, objective=Objective.MEMORY), CHIP)


def test_layers_keep_to_the_bound_in_the_plan(forms):
    whole = least_program(forms, forms.bounded)
    assert worst(whole) > SLOWER  # the bound for whole layers says nothing about bands
    program = least_program(forms, forms.in_plan)
    assert worst(program) <= 1.05 * SLOWER  # streams of panels are priced by their share of the whole
    assert stored_bytes(forms.bounded) <= stored_bytes(forms.in_plan) <= stored_bytes(forms.plain)


def test_the_objective_memory_takes_it(forms):
    levels = forms.levels(Weights.AUTO)
    assert levels[forms.of_least_memory(Weights.AUTO)] == forms.in_plan
    assert IN_PLAN not in forms.levels(Weights.AUTO, least_memory=False)
    assert forms.of_least_memory(Weights.CODED) == "coded"
