"""What the chip can do, in one table: the rules, the grouping of a graph into quantizable units, and the reference
page."""

from tvm_ergo.relay_passes.support.groups import Analysis, analyse, check, find_groups
from tvm_ergo.relay_passes.support.rule import RULES, Group, Kind, Refused, Rule, Supported
from tvm_ergo.relay_passes.support.view import ConstTensor, FunctionView

__all__ = [
    "RULES",
    "Analysis",
    "ConstTensor",
    "FunctionView",
    "Group",
    "Kind",
    "Refused",
    "Rule",
    "Supported",
    "analyse",
    "check",
    "find_groups",
]
