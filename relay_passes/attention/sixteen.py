"""Which tensors dense layers read as int16: those without which the network's outputs are too far off.

Behind the GELU of large encoders a few channels reach far beyond the others, and 8 bits leave the others nothing:
MPNet-base's embeddings are half off. Such a tensor can stand in int16 (TABLE_16, MUL_16, or the attention's own result)
and be read by CONV_16, at half the rate of 8 bits. Candidates are ranked by the share of their own spread that 8 bits
lose; as few of them are raised as bring the measured loss to ``AIM``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tvm

from tvm_ergo.relay_passes.attention import rules
from tvm_ergo.relay_passes.attention.find import find_sites
from tvm_ergo.relay_passes.attention.lower import Seen
from tvm_ergo.relay_passes.attention.values import narrow_quant
from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.relay_passes.relax_utils import main_of
from tvm_ergo.relay_passes.support import FunctionView, analyse
from tvm_ergo.relay_passes.support.elementwise import BinaryElementwise, UnaryTable
from tvm_ergo.relay_passes.support.linear import Dense

AIM = 0.1
"""Loss of the outputs above which 16 bits are tried, and that they are to reach. MiniLM in 8 bits loses 0.09."""
GAIN = 0.9
"""16 bits are kept where the loss falls below so much of what it was."""


def candidates(mod: tvm.IRModule) -> dict[str, frozenset[str]]:
    """Tensors that dense layers read and that can be made in int16, each with all that is raised with it: functions of
    one tensor, products of two (and the functions that they multiply), results of attention."""
    view = FunctionView(main_of(mod))
    groups, sites = analyse(view).groups, find_sites(view)
    made_by = {g.output: g for g in groups}
    found = {}
    for x in dict.fromkeys(Dense.parts(view, g).x for g in groups if g.rule is Dense):
        group = made_by.get(x)
        if isinstance(sites.get(_source(view, x)), rules.Attention) or (group is not None and group.rule is UnaryTable):
            found[str(x.name)] = frozenset({str(x.name)})
        elif (
            group is not None and group.rule is BinaryElementwise and group.op == "multiply" and len(group.inputs) == 2
        ):
            curves = {i for i in group.inputs if i in made_by and made_by[i].rule is UnaryTable}
            found[str(x.name)] = frozenset(str(v.name) for v in (x, *curves))
    return found


def _source(view: FunctionView, var):
    """What a tensor was moved from."""
    while view.op(var) in ("relax.permute_dims", "relax.reshape"):
        var = view.value[var].args[0]
    return var


def ranked(mod: tvm.IRModule, seen: Seen, sample) -> list[frozenset[str]]:
    """The candidates, the one of whose spread 8 bits lose most first, on one sample."""
    found, lost = candidates(mod), {}

    def watch(name: str, value: np.ndarray) -> None:
        if name in found and name in seen.narrow:
            quant = narrow_quant(seen.narrow[name])
            off = quant.real(quant.codes(value)).astype(np.float64) - value
            lost[name] = float(np.sqrt(np.mean(off**2)) / max(float(value.std()), 1e-30))

    Interpreter(mod).run(sample, watch)
    return [found[name] for name in sorted(lost, key=lambda name: (-lost[name], name))]


def raised(
    order: list[frozenset[str]], loss: float, lower: Callable[[frozenset[str]], tvm.IRModule], measure: Callable
) -> tuple[frozenset[str], tvm.IRModule | None, float]:
    """``(tensors in 16 bits, the module, its loss)``; no tensors and None where 8 bits serve or 16 do not help.

    order : `ranked`. loss : with all in 8 bits. lower, measure : the module with some in 16 bits, and its loss."""
    best = frozenset(), None, loss
    if loss <= AIM or not order:
        return best
    fewest, most = 0, len(order)  # with the first `fewest` it is above AIM
    while True:
        count = most if best[1] is None else (fewest + most) // 2
        some = frozenset().union(*order[:count])
        module = lower(some)
        found = measure(module)
        if best[1] is None:
            if found > GAIN * loss:
                return best
            best, enough = (some, module, found), max(AIM, found / GAIN)
        elif found <= enough:
            best, most = (some, module, found), count
        else:
            fewest = count
        if most - fewest <= 1:
            return best
