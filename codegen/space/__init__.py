"""Order in space: nodes run in bands of rows, tensors keep only the rows still needed, released bytes are taken over at once.

`order` makes the steps, `extents` finds which bytes live when, `rolling` moves surviving rows to a buffer's front, `place` gives addresses,
`plan` is the result, `search` chooses, `check` judges by brute force.
"""

from tvm_ergo.codegen.space.plan import SpacePlan, make_space_plan
from tvm_ergo.codegen.space.search import Objective, choose

__all__ = ["Objective", "SpacePlan", "choose", "make_space_plan"]
