"""A tensor that several quantizers read differently is computed once for each of them.

Quantization-aware training and some exporters put a quantizer in front of every consumer. The second one sees the
operator's result, not what the first left of it: making it from the first's 8 bits rounds twice, and where the first
clips, values are lost. The chip's operators write 8 bits, so the operator itself runs once for every quantization.
Moved integers stay as they are: every quantizer reads their exact values."""

from __future__ import annotations

from dataclasses import dataclass, field

import tvm
from tvm import relax

from tvm_ergo.relay_passes.micro.lower_context import Quant, scale_of
from tvm_ergo.relay_passes.relax_utils import assemble, body_of, infer, main_of, with_operands
from tvm_ergo.relay_passes.support.groups import analyse
from tvm_ergo.relay_passes.support.rule import Group


@tvm.transform.module_pass(opt_level=0, name="ergo.SplitQuantizers")
@dataclass(frozen=True)
class SplitQuantizers:
    """In and out: QDQ normal form. Afterwards all readers of a group's result quantize it alike.

    Groups whose result is read in float too are left alone: the host quantizes that.
    """

    def transform_module(self, mod: tvm.IRModule, _context) -> tvm.IRModule:
        splitting = _Splitting(mod)
        return splitting.rewritten() if splitting.needed else mod


@dataclass
class _Splitting:
    """``versions[group]``: the quantizations that its result is made in, [None] where it is left as it is."""

    mod: tvm.IRModule
    versions: dict[Group, list[Quant | None]] = field(default_factory=dict)
    made: dict = field(default_factory=dict)  # (group or None, version, source variable) -> its copy

    def __post_init__(self) -> None:
        analysis = analyse(main_of(self.mod))
        self.view, self.groups = analysis.view, analysis.groups
        self.group_at = {g.output: g for g in self.groups}
        self.groups_of: dict[relax.Var, list[Group]] = {}
        for group in self.groups:
            for member in group.members:
                self.groups_of.setdefault(member, []).append(group)
        for group in sorted(self.groups, key=lambda g: -self.view.position[g.output]):
            wants = self._wants(group.output)
            self.versions[group] = [None] if None in wants or not wants else list(dict.fromkeys(wants))
            if group.carries_quantization and len(group.inputs) == 1 and self._stored(group.inputs[0]):
                self.versions[group] = [None]

    @property
    def needed(self) -> bool:
        """Whether a group has several versions, or reads for its own what its neighbours in a split read otherwise."""
        return any(len(v) > 1 for v in self.versions.values()) or any(
            len(self._ways(m)) > 1 for m in self.groups_of if len(self.groups_of[m]) > 1
        )

    def _stored(self, var: relax.Var) -> bool:
        """Whether ``var`` is integers as they stand, moved at most."""
        if self.view.op(var) == "relax.dequantize":
            return True
        group = self.group_at.get(var)
        return (
            group is not None
            and group.carries_quantization
            and len(group.inputs) == 1
            and self._stored(group.inputs[0])
        )

    def _wants(self, var: relax.Var) -> list[Quant | None]:
        """What the readers of ``var`` quantize it to; None for one that reads it in float."""
        found: list[Quant | None] = [None] if var in self.view.outputs else []
        for user in self.view.users(var):
            found += self._wanted_by(user, var)
        return found

    def _wanted_by(self, user: relax.Var, var: relax.Var) -> list[Quant | None]:
        if self.view.op(user) == "relax.quantize":
            return [scale_of(self.view, self.view.value[user])]
        moved = [g for g in self.groups_of.get(user, ()) if g.carries_quantization and var in g.inputs]
        return [want for g in moved for want in self.versions[g]] or [None]

    def _ways(self, member: relax.Var) -> set[Quant | None]:
        return {want for g in self.groups_of[member] for want in self.versions[g]}

    def _source(self, var: relax.Var, want: Quant | None) -> relax.Var:
        """The copy of ``var`` that is made for a reader that wants ``want``."""
        group = self.group_at.get(var)
        if group is None:
            return self.made.get((None, 0, var), var)
        options = self.versions[group]
        index = options.index(want) if want in options else 0
        return self.made.get((group, index, var), var)

    def _operand(self, var: relax.Var, key: tuple[Group, int], want: Quant | None) -> relax.Var:
        """What stands for ``var`` in version ``key`` of a group: its own member, else the source fit for ``want``."""
        return self.made[(*key, var)] if (*key, var) in self.made else self._source(var, want)

    def rewritten(self) -> tvm.IRModule:
        func, bindings = main_of(self.mod), []

        def bind(key, var, value):
            value = infer(value)
            self.made[(*key, var)] = new = (
                relax.DataflowVar(var.name, value.ty)
                if isinstance(var, relax.DataflowVar)
                else relax.Var(var.name, value.ty)
            )
            bindings.append((new, value))

        for var in self.view.order:
            value = self.view.value[var]
            for group in self.groups_of.get(var, ()):
                for index, want in enumerate(self.versions[group]):
                    bind(
                        (group, index),
                        var,
                        with_operands(value, lambda v, key=(group, index), w=want: self._operand(v, key, w)),
                    )
            if var not in self.groups_of:
                want = scale_of(self.view, value) if self.view.op(var) == "relax.quantize" else None
                bind((None, 0), var, with_operands(value, lambda v, w=want: self._source(v, w)))
        return assemble(self.mod, func, bindings, with_operands(body_of(func), lambda v: self._source(v, None)))
