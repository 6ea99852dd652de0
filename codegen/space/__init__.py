"""Order in space: nodes run in bands of rows, tensors keep only the rows still needed, released bytes are taken over at
once.

`order` makes the steps, `extents` finds which bytes live when, `rolling` moves surviving rows to a buffer's front,
`place` gives addresses, `stages` computes groups of nodes tile by tile, `plan` is the result. The search: `elements`
are ways to carry out a run of layers, `segments` are subproblems with their Pareto sets, `paths` combines them,
`search` chooses. `check` judges by brute force, `bound` says what no plan goes below."""

from tvm_ergo.codegen.space.plan import SpacePlan, make_space_plan
from tvm_ergo.codegen.space.search import Objective, choose

__all__ = ["Objective", "SpacePlan", "choose", "make_space_plan"]
