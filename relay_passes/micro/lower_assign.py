"""Which quantization every float tensor of a QDQ function has, read off its quantize and dequantize operators."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes.micro.lower_context import ACTIVATIONS, Quant, scale_of
from tvm_ergo.relay_passes.support import movement, spatial
from tvm_ergo.relay_passes.support.groups import Analysis
from tvm_ergo.relay_passes.support.rule import Group
from tvm_ergo.relay_passes.support.view import FunctionView


@dataclass
class Assignment:
    """``quant[v]`` for every float variable that exists in int8. ``why[v]`` is the reason for those that do not.

    A tensor has the quantization of its dequantize, else the one all its readers quantize it to, looked for through
    data movement; data movement hands its input's on. ``given`` adds quantizations by variable name (float outputs that
    nothing quantizes). ``from_host[v, group]`` is what a movement's float input from the host is quantized to before it
    moves."""

    analysis: Analysis
    given: dict[str, Quant] = field(default_factory=dict)
    quant: dict[relax.Var, Quant] = field(default_factory=dict)
    why: dict[relax.Var, str] = field(default_factory=dict)
    wide: set[relax.Var] = field(default_factory=set)
    from_host: dict[tuple[relax.Var, Group], Quant] = field(default_factory=dict)
    _group: dict[relax.Var, list[Group]] = field(default_factory=dict)
    _wanted: dict[relax.Var, Quant | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for group in self.analysis.groups:
            for var in group.inputs:
                self._group.setdefault(var, []).append(group)
        outputs = {g.output: g for g in self.analysis.groups}
        for var in self.view.order:
            if self.view.op(var) == "relax.dequantize" and self.view.const(var) is None:
                found = scale_of(self.view, self.view.value[var])
                if found is not None:
                    self.quant[var] = found
            elif var in outputs:
                found = self._of_group(outputs[var])
                if found is not None:
                    self.quant[var] = found

    @property
    def view(self) -> FunctionView:
        return self.analysis.view

    def _of_group(self, group: Group) -> Quant | None:
        if str(group.output.name) in self.given:
            return self.given[str(group.output.name)]
        if not group.carries_quantization:
            return self.wanted(group.output)
        known = [self.quant.get(v) for v in group.inputs]
        if group.rule is spatial.Resize2d and str(self.view.value[group.root].attrs.method) == "linear":
            wanted = self.wanted(group.output)  # its sums are rounded to whatever scale is asked for
            if wanted is not None and known[0] is not None:
                return wanted
        if len(group.inputs) == 1 and known[0] is not None:
            return self._holding(group, known[0])
        if spatial.clamped_resize(group):
            self.why.setdefault(group.output, "what it interpolates is not quantized")
            return None
        wanted = self.wanted(group.output)
        if wanted is not None:
            for source, quant in zip(group.inputs, known):
                if quant is None:  # a host tensor (a graph input): quantized before it moves, which is exact
                    self.from_host[source, group] = wanted
            return wanted
        return known[0] if known and all(q is not None and q == known[0] for q in known) else None

    def _holding(self, group: Group, quant: Quant) -> Quant | None:
        """The input's quantization where it holds the constants that the movement brings in (padding, concatenated
        constants); else the output's own, if its readers name one."""
        worst = max(
            (np.abs(quant.real(quant.codes(c)) - c).max(initial=0) for c in _constants(self.view, group)), default=0.0
        )
        if worst <= 1e-4 * quant.scale:
            return quant
        wanted = self.wanted(group.output)
        return wanted if wanted is not None or worst > 0.5001 * quant.scale else quant

    def wanted(self, var: relax.Var) -> Quant | None:
        """The quantization the readers of ``var`` agree on (`SplitQuantizers` has run: they do, but for moved
        integers).

        None where one reads it in float.
        """
        if str(var.name) in self.given:
            return self.given[str(var.name)]
        if var not in self._wanted:
            self._wanted[var] = None
            self._wanted[var] = self._ask_readers(var)
        return self._wanted[var]

    def _ask_readers(self, var: relax.Var) -> Quant | None:
        if var in self.view.outputs:
            for user in self.view.users(var):
                if isinstance(self.view.value[user], relax.Var) and str(user.name) in self.given:
                    return self.given[str(user.name)]
            self.why[var] = "it is a float output of the network that the model does not quantize"
            return None
        answers = []
        for user in self.view.users(var):
            answer = self._through(user, var)
            if answer is None:
                self.why.setdefault(var, self._why(user))
                if self.view.op(user) == "relax.quantize":
                    self.wide.add(var)
                return None
            answers.append(answer)
        return answers[0] if answers else None

    def _why(self, user: relax.Var) -> str:
        """Why what ``user`` reads has no quantization in 8 bits."""
        op = self.view.op(user)
        if op == "relax.quantize":
            dtype = str(self.view.value[user].attrs.out_dtype)
            return (
                f"its result is {dtype}, and on the chip it gives int8 or int16"
                if dtype not in ACTIVATIONS
                else "its result has more than one scale"
            )
        return f"its result is read in float by {user.name} ({op.removeprefix('relax.') or 'copy'})"

    def _through(self, user: relax.Var, var: relax.Var) -> Quant | None:
        if self.view.op(user) == "relax.quantize":
            return scale_of(self.view, self.view.value[user])
        if isinstance(self.view.value[user], relax.Var):
            return self.wanted(user)
        moved = [g for g in self._group.get(var, ()) if g.carries_quantization and user in g.members]
        if any(spatial.clamped_resize(g) for g in moved):
            return None  # the range behind the clamp is not that of what is interpolated
        answers = [self.wanted(g.output) for g in moved]
        return answers[0] if answers and all(a is not None for a in answers) else None


def _constants(view: FunctionView, group: Group) -> list[np.ndarray]:
    """The real values a movement adds to those of its input."""
    call = view.value[group.root]
    if group.rule is movement.Pad:
        return [np.float64(call.attrs.pad_value)] if str(call.attrs.pad_mode) == "constant" else []
    if group.rule is not movement.Concat:
        return []
    return [const.real() for const in map(view.const, view.fields(call.args[0])) if const is not None]
