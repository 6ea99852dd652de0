"""Scale migration in the float module: large channels of a norm's result go into the weights that read it, before the
weights are rounded, shared or coded.

The lowering does the same as it goes (`lower.Lowering.migration`); there the weights change at the last moment, and
what a pass has made of them (a grid, few values) would be lost. What reads a norm otherwise (the residual stream of
networks that normalize last) keeps the norm as it was: it is made twice, in the two widths, as by the lowering."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.relay_passes.attention.lower import MIGRATION, Lowering, Seen
from tvm_ergo.relay_passes.attention.sites import Norm
from tvm_ergo.relay_passes.relax_utils import Call, Rewriter, const, main_of
from tvm_ergo.relay_passes.support.linear import Dense

SUFFIX = "_migrated"


@dataclass(frozen=True, eq=False)
class Moved:
    """A norm whose channels are divided by ``factors`` [C] where dense layers read it."""

    norm: Norm
    factors: np.ndarray


class Migrate(Rewriter):
    """``seen`` is of the same module."""

    def __init__(self, mod: tvm.IRModule, seen: Seen, strength: float = MIGRATION):
        super().__init__(mod)
        low = Lowering(main_of(mod), seen, migration=strength)
        self.moved, self.readers, self.divided, self.norms = {}, {}, {}, {}
        for var, site in low.sites.items():
            factors = low.migration(var) if isinstance(site, Norm) and site.shape is None else np.ones(1)
            if (factors == 1).all():
                continue
            self.moved[var] = Moved(site, factors)
            for group in low.groups.values():
                if group.rule is Dense and var in group.inputs:
                    self.readers.update(dict.fromkeys(group.members, var))
                    weight = low.view.const(low.view.value[group.root].args[1]).real()
                    self.divided[group.root] = weight * factors[:, None]

    def rewrite(self, var, value):
        norm = self.readers.get(var)
        if norm is not None:
            value = Call(value.op, [self._read(a, norm) for a in value.args], value.attrs, value.ty_args)
        if var in self.divided:
            args = [value.args[0], const(self.divided[var].astype(np.float32)), *value.args[2:]]
            value = Call(value.op, args, value.attrs, value.ty_args)
        return value

    def _read(self, expr, norm):
        return self._made(norm) if expr == self.replacement(norm) else expr

    def _made(self, var):
        """The norm once more, its channels divided; made where the first layer reads it."""
        if var not in self.norms:
            key = f"{var.name}{SUFFIX}"
            found = self.moved[var]
            x = self.replacement(found.norm.x)
            gamma, beta = (np.broadcast_to(v, found.factors.shape) / found.factors for v in _vectors(found.norm))
            gamma, beta = const(gamma.astype(np.float32)), const(beta.astype(np.float32))
            eps = max(found.norm.eps, 0.0)
            if found.norm.centre:
                made = relax.op.nn.layer_norm(x, gamma, beta, axes=[-1], epsilon=eps)
            else:
                made = relax.op.nn.rms_norm(x, gamma, axes=[-1], epsilon=eps)
                if beta.value.numpy().any():
                    made = relax.op.add(self.emit(made, f"{key}_unit"), beta)
            self.norms[var] = self.emit(made, key)
        return self.norms[var]


def _vectors(norm: Norm) -> tuple[np.ndarray, np.ndarray]:
    return np.atleast_1d(np.asarray(norm.gamma, np.float64)), np.atleast_1d(np.asarray(norm.beta, np.float64))


def migrate(mod: tvm.IRModule, seen: Seen, strength: float = MIGRATION) -> tvm.IRModule:
    """The float network with the same function whose large channels are in its weights; itself where there are
    none."""
    change = Migrate(mod, seen, strength)
    return change.run() if change.moved else mod
