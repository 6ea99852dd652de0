"""What a support rule is: a pattern of operators, the constraints on it, and the text the user reads.

A rule's docstring and its constraints' docstrings are the message of a refusal and the lines of
``docs/supported_operators.md``. A constraint returns None when it holds, else the reason it does not.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from tvm import relax

from tvm_ergo.relay_passes.support.view import FunctionView, dtype_of, static_shape

Constraint = Callable[["Group", FunctionView], "str | None"]


class Kind(enum.Enum):
    """Families of groups, by what they cost and by how calibration treats them."""

    LINEAR = "linear with constant weights"
    MATMUL = "product of two activations"
    BINARY = "elementwise of two tensors"
    TABLE = "elementwise of one tensor (256-entry table)"
    POOL = "pooling and reduction"
    SOFTMAX = "softmax"
    MOVEMENT = "data movement"


@dataclass(frozen=True, eq=False)
class Group:
    """One unit that becomes one (or a few) chip operations; between groups a tensor is int8.

    rule: the class that matched. root: the variable bound to the defining operator. members: every variable the group
    computes, in order (a `split` is a member of the group of each of its parts). inputs: the variables read, constants
    excluded, each once. output: the variable other groups see. op: the operator's Relax name without the prefix.
    """

    rule: type[Rule]
    root: relax.Var
    members: tuple[relax.Var, ...]
    inputs: tuple[relax.Var, ...]
    output: relax.Var
    op: str

    @property
    def kind(self) -> Kind:
        return self.rule.kind

    @property
    def carries_quantization(self) -> bool:
        """True where the output has the scale and zero point of the inputs: the group needs no quantization of its
        own."""
        return self.rule.carries

    @property
    def copies(self) -> bool:
        """True where it computes nothing: its elements may have any width."""
        return self.rule.copies

    @property
    def name(self) -> str:
        """The source layer: the name of the defining operator, without the suffix by which importers tell it from its
        bias."""
        return str(self.root.name).removesuffix(f"_{self.op.rpartition('.')[2]}")


@dataclass(frozen=True)
class Supported:
    """The chip runs the binding, as part of ``group``."""

    group: Group


@dataclass(frozen=True)
class Refused:
    """The chip cannot run ``members``: they stay on the host. node: the source layer."""

    op: str
    node: str
    reason: str
    remedy: str
    members: tuple[relax.Var, ...] = ()


def constraint(method) -> Constraint:
    """Mark a static method ``(group, view) -> reason | None`` of a rule as one of its constraints."""
    method.is_constraint = True
    return staticmethod(method)


RULES: list[type[Rule]] = []
"""Every rule, in the order in which they claim bindings."""


class Rule:
    """Base of the support rules."""

    kind: ClassVar[Kind]
    ops: ClassVar[tuple[str, ...]] = ()
    """Relax names (without ``relax.``) of the operators that can be the root."""
    runs_as: ClassVar[tuple[str, ...]] = ()
    """The ``relax.ergo`` operators it becomes."""
    carries: ClassVar[bool] = False
    copies: ClassVar[bool] = False
    """True where the result holds elements of the operands unchanged: of any width."""
    numbers: ClassVar[bool] = False
    """True where the output is whole numbers and no quantized tensor: such groups are `Analysis.numbered`."""
    remedy: ClassVar[str] = "it runs on the host CPU; replace the operator by a supported one to keep it on the chip"
    element_dtype: ClassVar[str] = "float32"

    @classmethod
    def match(cls, view: FunctionView, root: relax.Var, claimed: set[relax.Var]) -> Group | None:
        """The group whose defining operator is bound to ``root``, or None where the pattern is another one."""
        raise NotImplementedError

    @constraint
    def static_shapes(group: Group, view: FunctionView) -> str | None:
        """Every tensor has a static shape of rank 1 to 6."""
        for var in (*group.inputs, group.output):
            shape = static_shape(var)
            if shape is None:
                return f"the shape of {var.name} is not known at compile time"
            if not 1 <= len(shape) <= 6:
                return f"{var.name} has rank {len(shape)}"
            if 0 in shape:
                return f"{var.name} has no elements"
        return None

    @constraint
    def float_tensors(group: Group, view: FunctionView) -> str | None:
        """Tensors are float32 in the model, int8 on the chip, or int16 where the file says so; no integer, boolean,
        float16 or float64 tensors."""
        for var in (*group.inputs, group.output):
            if dtype_of(var) != "float32":
                return f"{var.name} is {dtype_of(var)}"
        return None

    @classmethod
    def constraints(cls) -> list[Constraint]:
        """The constraints of this rule, its bases' first, in the order they are written."""
        found: dict[str, Constraint] = {}
        for base in reversed(cls.__mro__):
            names = [n for n, m in vars(base).items() if getattr(getattr(m, "__func__", None), "is_constraint", False)]
            found.update({n: getattr(cls, n) for n in names})
        return list(found.values())

    @classmethod
    def check(cls, group: Group, view: FunctionView) -> Supported | Refused:
        for rule in cls.constraints():
            reason = rule(group, view)
            if reason is not None:
                return Refused(group.op, group.name, reason, cls.remedy, group.members)
        return Supported(group)


def register(cls: type[Rule]) -> type[Rule]:
    """Class decorator: enter the rule in ``RULES``."""
    RULES.append(cls)
    return cls


def short(name: str) -> str:
    return name.removeprefix("relax.")


def make_group(rule: type[Rule], view: FunctionView, root, members, output=None) -> Group:
    """A Group with its inputs worked out: what the members read and do not compute, constants left out."""
    members = sorted(set(members), key=view.position.__getitem__)
    inside, inputs = set(members), []
    for member in members:
        for var in view.reads(member):
            if var not in inside and var not in inputs and view.const(var) is None:
                inputs.append(var)
    return Group(
        rule, root, tuple(members), tuple(inputs), output if output is not None else members[-1], short(view.op(root))
    )
