"""Tensors between layers become a few coordinates, on which the next layers compute directly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.relay_passes.macro.channel_sites import Site, find_sites
from tvm_ergo.relay_passes.macro.low_rank import Basis
from tvm_ergo.relay_passes.relax_utils import Call, Expr, Rewriter, Var, array_of, const, main_of, op_name, shape_of
from tvm_ergo.relay_passes.support import FunctionView
from tvm_ergo.target.errors import ModelError


@tvm.transform.module_pass(opt_level=0, name="ergo.ProjectChannels")
@dataclass(frozen=True)
class ProjectChannels:
    """Site by site (`channel_sites`), z = B y stands in place of y, and W A in place of the readers' weights W.

    bases: site name -> `low_rank.Basis`. B goes into the weights and bias of linear writers without clamp, into a 1x1
    convolution (a matrix product where the rank is not 4) behind the other writers. There the tensor keeps its name and
    z is ``<name>_projected``. Expects the float normal form. The function changes by what ``1 - A B`` takes of the
    tensors: nothing (up to rounding) at full rank. `choose_ranks.project` chooses bases so that the error of the net's
    outputs on calibration data stays within a bound. Errors: ModelError for a name that is no site's, or a basis of
    other shape."""

    bases: Mapping[str, Basis] = field(default_factory=dict)

    def transform_module(self, mod: tvm.IRModule, ctx) -> tvm.IRModule:
        sites = {site.name: site for site in find_sites(main_of(mod))[0]}
        for name, basis in self.bases.items():
            if name not in sites:
                raise ModelError("this tensor cannot be projected", where=name, available=", ".join(sites) or "none")
            if (
                basis.analysis.shape[1:] != (sites[name].channels,)
                or basis.synthesis.shape != basis.analysis.shape[::-1]
            ):
                raise ModelError(
                    "a basis does not fit its tensor",
                    where=name,
                    required=f"[k, {sites[name].channels}] and its transpose's shape",
                    available=f"{basis.analysis.shape} and {basis.synthesis.shape}",
                )
        return _Projector(mod, [(sites[name], basis) for name, basis in self.bases.items()]).run()


class _Projector(Rewriter):
    def __init__(self, mod: tvm.IRModule, chosen: list[tuple[Site, Basis]]):
        super().__init__(mod)
        view = FunctionView(self.func)
        self.weight_out: dict[Var, Basis] = {}
        self.weight_in: dict[Var, Basis] = {}
        self.bias: dict[Var, Basis] = {}
        self.insert: dict[Var, Basis] = {}
        self.reshaped: dict[Var, Basis] = {}
        for site, basis in chosen:
            self.insert.update({var: basis for var in site.inserted})
            self.reshaped.update(
                {var: basis for var in site.tensors if view.op(var) == "relax.reshape" and var not in site.inserted}
            )
            self.weight_in.update({group.root: basis for group in site.readers})
            for group in site.absorbing:
                self.weight_out[group.root] = basis
                self.bias.update(
                    {member: basis for member in group.members[1:]}
                )  # no clamp: the addition of a bias at most

    def rewrite(self, var: Var, value: Expr) -> Expr:
        into, out = self.weight_in.get(var), self.weight_out.get(var)
        if into is not None or out is not None:
            value = _with_weight(value, into, out)
        elif var in self.bias:
            value = _with_bias(value, self.bias[var])
        elif var in self.reshaped:
            value = relax.op.reshape(value.args[0], (*shape_of(var)[:-1], self.reshaped[var].rank))
        basis = self.insert.get(var)
        if basis is None:
            return value
        whole = self.emit(value, var.name)
        return self.emit(projected(whole, basis), f"{var.name}_projected")


def projected(y: Expr, basis: Basis) -> Call:
    """The call that computes z [..., k] of y [..., C]."""
    matrix = basis.analysis.astype(np.float32)
    if len(shape_of(y)) != 4:
        return relax.op.matmul(y, const(matrix.T))
    return relax.op.nn.conv2d(y, const(matrix[:, None, None]), data_layout="NHWC", kernel_layout="OHWI")


def _with_weight(call: Call, into: Basis | None, out: Basis | None) -> Call:
    """A linear call whose input is z of ``into``, whose output is z of ``out``."""
    weight = array_of(call.args[1]).astype(np.float64)
    dense = op_name(call) == "relax.matmul"
    weight = weight.T if dense else weight  # [O, ..., C]
    if into is not None:
        weight = weight @ into.synthesis
    if out is not None:
        weight = np.tensordot(out.analysis, weight, 1)
    return Call(
        call.op, [call.args[0], const((weight.T if dense else weight).astype(np.float32))], call.attrs, call.ty_args
    )


def _with_bias(call: Call, basis: Basis) -> Call:
    """The addition of ``basis.analysis @ bias``."""
    place = next(i for i, a in enumerate(call.args) if not isinstance(a, Var))
    bias = array_of(call.args[place]).astype(np.float64).reshape(-1)
    added = const((basis.analysis @ np.broadcast_to(bias, basis.analysis.shape[1:])).astype(np.float32))
    return Call(call.op, [added if i == place else a for i, a in enumerate(call.args)], call.attrs, call.ty_args)
