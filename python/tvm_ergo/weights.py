"""The stage that codes constant weights: per chip function, which constants stand coded in memory and how.

"auto": what costs no cycles (for the objective energy: what takes least energy); for the objective memory the fewest bytes at a bounded loss of time; and where
the network does not fit with whole layers, as many more as it takes, those first that cost least time for what they save. Results never change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tvm
from tvm import relax
from tvm_ergo.codegen.plan import make_plan
from tvm_ergo.codegen.space import Objective
from tvm_ergo.codegen.stream import graph_of
from tvm_ergo.codegen.weights.apply import annotated
from tvm_ergo.codegen.weights.choose import SLOWER, Candidates, Choice, Weights, enough
from tvm_ergo.relay_passes.compile.partition import chip_functions

if TYPE_CHECKING:
    from tvm_ergo.pipeline import PipelineOptions

NO_LIMIT = 1 << 40
SLACK_BYTES = 256
"""For the alignment of constants."""


def code_weights(mod: tvm.IRModule, options: PipelineOptions) -> tvm.IRModule:
    """A partitioned module whose chip functions carry the codings of their constants."""
    functions = dict(chip_functions(mod))
    if options.weights is Weights.DENSE or not functions:
        return mod
    candidates = {name: Candidates(graph_of(func), options.chip) for name, func in functions.items()}
    if options.weights is Weights.CODED:
        chosen = {name: c.least(share=1) for name, c in candidates.items()}
    elif options.objective is Objective.MEMORY:
        chosen = {name: c.least(SLOWER) for name, c in candidates.items()}
    else:
        chosen = {name: c.free(options.objective is Objective.ENERGY) for name, c in candidates.items()}
    chosen = _as_needed(functions, candidates, chosen, options)
    mod = mod.clone()
    for name, choices in chosen.items():
        mod[mod.get_global_var(name)] = _with(functions[name], choices)
    return mod


def _with(func: relax.Function, choices: list[Choice]) -> relax.Function:
    return annotated(func, {c.digest: c.chosen.coding for c in choices if c.chosen.coding is not None})


def _as_needed(functions: dict[str, relax.Function], candidates: dict[str, Candidates], chosen: dict[str, list[Choice]],
               options: PipelineOptions) -> dict[str, list[Choice]]:
    """The choices, and more bytes saved where whole layers do not fit the memory otherwise."""
    plans = [make_plan(graph_of(_with(func, chosen[name])), NO_LIMIT) for name, func in functions.items()]
    missing = sum(plan.constant_bytes for plan in plans) + max(plan.activation_bytes for plan in plans) - options.chip.memory_bytes
    if missing <= 0 or options.weights is Weights.CODED:
        return chosen
    names = list(functions)
    least = [choice for name in names for choice in candidates[name].least()]
    found = iter(enough([choice for name in names for choice in chosen[name]], least, missing + SLACK_BYTES))
    return {name: [next(found) for _ in chosen[name]] for name in names}
