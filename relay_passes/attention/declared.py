"""A network with attention whose file quantizes its tensors (ONNX QDQ): the file's ranges and its own integer weights,
lowered as a calibrated network is.

Pairs of quantize and dequantize between operators are taken away, and what they say is kept: the range of the tensor.
Products read int8 tensors with the file's scale and zero point; what the chip holds in 16 bits (sums, scores, inputs of
norms) is cut at the file's range or finer. Masks leave the scores before these are quantized, whatever scale the file
gives both together. Layers keep the file's codes, so nothing is migrated into them (`lower.Lowering.migration`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tvm

from tvm_ergo.relay_passes.attention.find import find_sites, has_rows
from tvm_ergo.relay_passes.attention.lower import Lowering, Seen, with_main
from tvm_ergo.relay_passes.attention.rules import MaskedMean
from tvm_ergo.relay_passes.attention.sites import Norm
from tvm_ergo.relay_passes.micro.calibrate import Method, Ranges
from tvm_ergo.relay_passes.micro.complete import MADE_HERE
from tvm_ergo.relay_passes.micro.lower_quantized import LowerQuantized, host_fallbacks
from tvm_ergo.relay_passes.micro.observe import Range
from tvm_ergo.relay_passes.relax_utils import (
    RANGES_ATTR,
    Constant,
    Rewriter,
    Var,
    main_of,
    op_name,
    scalar_of,
    shape_of,
)
from tvm_ergo.relay_passes.support import FunctionView, Kind, analyse

NARROW = ("int8", "uint8")
TYPES = (*NARROW, "int16", "uint16")


class _Stripped(Rewriter):
    """Without pairs of quantize and dequantize of one scale; ``found`` are their ranges, by type and tensor."""

    def __init__(self, mod: tvm.IRModule):
        super().__init__(mod)
        self.found: dict[tuple[str, bool], Range] = {}

    def rewrite(self, var, value):
        if op_name(value) != "relax.dequantize":
            return value
        before = self.defined(value.args[0], "relax.quantize")
        if before is None or not isinstance(before.args[0], Var):
            return value
        scale, zero = value.args[1:3]
        dtype = str(before.args[0].ty.dtype), str(value.args[0].ty.dtype)
        if dtype[0] != "float32" or dtype[1] not in TYPES or not (_same(scale, before.args[1]) and _one(zero)):
            return value
        info, step, middle = np.iinfo(dtype[1]), scalar_of(scale), scalar_of(zero)
        given = Range(step * (info.min - middle), step * (info.max - middle))
        self.found.setdefault((str(before.args[0].name), dtype[1] in NARROW), given)
        return before.args[0]


def _one(expr) -> bool:
    return isinstance(expr, Constant) and int(np.prod(shape_of(expr))) == 1


def _same(a, b) -> bool:
    return _one(a) and _one(b) and scalar_of(a) == scalar_of(b)


def stripped(mod: tvm.IRModule) -> tuple[tvm.IRModule, dict[tuple[str, bool], Range]]:
    """The network in float operators, and what its file says of its tensors: ranges by (name, whether in 8 bits)."""
    change = _Stripped(mod)
    return change.run(), change.found


def declared(mod: tvm.IRModule, found: dict[tuple[str, bool], Range], observed: Seen | None = None) -> Seen:
    """Ranges of all tensors of a stripped network that can be known: the file's, else those that calibration saw, else
    what follows from the operators (a movement has its input's range, a unit norm -1 to 1)."""
    narrow, wide = ({} if observed is None else dict(r.ranges) for r in _of(observed))
    for (name, is_narrow), given in found.items():
        if is_narrow:
            narrow[name] = given
        wide[name] = given
    for name, given in wide.items():
        narrow.setdefault(name, given)
    view = FunctionView(main_of(mod))
    for known in (narrow, wide):
        _follow(view, known)
    return Seen(*(Ranges(known, 1, Method.MINMAX) for known in (narrow, wide)))


def _of(observed: Seen | None):
    return (None, None) if observed is None else (observed.narrow, observed.wide)


def _follow(view: FunctionView, known: dict[str, Range]) -> None:
    """Adds to ``known`` what follows from it, until nothing does."""
    pairs = [(str(g.inputs[0].name), str(g.output.name)) for g in analyse(view).groups if _moves(g)]
    pairs += [(str(v.name), str(view.value[v].args[0].name)) for v in view.order if _turns(view, v)]
    for var, site in find_sites(view).items():
        if isinstance(site, MaskedMean) and isinstance(site.x, Var):
            pairs.append((str(site.x.name), str(var.name)))
        elif isinstance(site, Norm) and _of_length_one(site, var):
            known.setdefault(str(var.name), Range(-1.0, 1.0))
    changed = True
    while changed:
        changed = False
        for a, b in pairs:
            for source, target in ((a, b), (b, a)):
                if source in known and target not in known:
                    known[target] = known[source]
                    changed = True


def _moves(group) -> bool:
    return group.kind is Kind.MOVEMENT and group.carries_quantization and len(group.inputs) == 1


def _turns(view: FunctionView, var) -> bool:
    return view.op(var) in ("relax.permute_dims", "relax.reshape") and isinstance(view.value[var].args[0], Var)


def _of_length_one(site: Norm, var) -> bool:
    """Whether a norm gives vectors of length one: no element is beyond -1 to 1."""
    length = (site.shape or shape_of(var))[-1]
    plain = not site.centre and not np.any(site.beta)
    return plain and float(np.abs(site.gamma).max()) * np.sqrt(length) <= 1.0001


class _Kept(Lowering):
    """The lowering, which also tells the tensors whose range it asked for in vain."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.unknown: list[str] = []

    def quant(self, var, wide: bool):
        if var.name not in (self.seen.wide if wide else self.seen.narrow):
            self.unknown.append(str(var.name))
        return super().quant(var, wide)


def lower_declared(mod: tvm.IRModule, seen: Seen) -> tuple[tvm.IRModule, list[str], int]:
    """``(the integer dialect, tensors whose range is not known, how many operators are left to the host)`` of a
    stripped network."""
    low = _Kept(main_of(mod), seen, migration=0.0)
    made = with_main(mod, low.run())
    return made, low.unknown, len(host_fallbacks(made))


def from_file(mod: tvm.IRModule, observe: Callable[[tvm.IRModule], Seen] | None = None) -> tvm.IRModule | None:
    """The integer dialect of a network with attention that its file quantizes; None where that brings nothing: the
    shared rules (`micro.lower_quantized`) leave no less of it to the host, or it was quantized here.

    observe : gives what calibration saw of a float network, for tensors that the file leaves in float; ``mod`` itself
    comes back where there are none."""
    attrs = main_of(mod).attrs
    if attrs is not None and any(name in attrs for name in (*MADE_HERE, RANGES_ATTR)):
        return None
    base, found = stripped(mod)
    if not found or not has_rows(base):
        return None
    left = len(host_fallbacks(LowerQuantized()(mod)))
    if not left:
        return None
    made, unknown, fewer = lower_declared(base, declared(base, found))
    if observe is not None and not (unknown and fewer):
        return mod if fewer < left else None
    if observe is not None:
        made, _, fewer = lower_declared(base, declared(base, found, observe(base)))
    return made if fewer < left else None
