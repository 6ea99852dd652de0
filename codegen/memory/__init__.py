"""Where buffers go: a Problem (sizes and lifetimes) and its Solution (offsets), the solver, and the CSV form of
both."""

from tvm_ergo.codegen.memory.problem import Buffer, Problem, Solution
from tvm_ergo.codegen.memory.solver import Allocation, allocate, solve

__all__ = ["Allocation", "Buffer", "Problem", "Solution", "allocate", "solve"]
