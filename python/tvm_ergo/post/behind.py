"""A compiled network with post-processing behind it."""

from __future__ import annotations

from dataclasses import replace

import tvm
from tvm import relax

from tvm_ergo.chain import described
from tvm_ergo.codegen.post import attached
from tvm_ergo.compiled import CompiledModel
from tvm_ergo.exporting_c import port_scales
from tvm_ergo.post.options import PostOptions
from tvm_ergo.post.planned import Network, planned
from tvm_ergo.post.sources import last_operators, outputs_of
from tvm_ergo.relay_passes.compile.partition import is_chip_function
from tvm_ergo.relay_passes.relax_utils import Call, bindings_of, main_of
from tvm_ergo.target.errors import UnsupportedError


def behind(model: CompiledModel, mod: tvm.IRModule, options: PostOptions) -> CompiledModel:
    """mod : what the model was made of, partitioned, its chip function not yet compiled. The result holds no library:
    the chip computes everything. Errors: UnsupportedError, InputError, OutOfMemoryError."""
    where = f"post-processing {options.NAME}"
    if model.states:
        raise UnsupportedError(
            "post-processing behind a network that keeps values from run to run is not there yet",
            where=where,
            available=", ".join(s.name for s in model.states),
            remedy="leave post (--post) out and process the outputs on the host",
        )
    if len(model.programs) != 1:
        raise UnsupportedError(
            f"the network has {len(model.programs)} parts on the chip",
            where=where,
            required="one, of all layers: post-processing runs behind the last in the same Program",
            remedy="compile with --strict: it says what splits the network",
        )
    ((symbol, program),) = model.programs.items()
    chain = described(_up_to_the_chip(mod))
    if chain is None:
        raise UnsupportedError(
            "operators stay on the host CPU in front of the chip",
            where=where,
            available=", ".join(sorted({f.op for f in model.fallbacks})) or "see `tvm-ergo report`",
            remedy="compile with --strict: it says for each what would put it on the chip",
        )
    places = outputs_of(mod, program, model.outputs)
    alone = replace(model, chain=chain)
    scale = port_scales(alone, symbol, program).get(program.inputs[0].name)
    ends = frozenset() if model.reference is None else last_operators(model.reference)
    post, outputs = planned(options, Network(program, model.inputs, list(zip(model.outputs, places)), scale, ends))
    whole = attached(program, post, model.chip.memory_bytes)
    step = next(s for s in chain["steps"] if s[0] == "call")
    step[2]["shapes"] = [list(info.shape) for info in outputs]
    first = len(model.inputs) + len(chain["constants"]) + len(chain["steps"]) - 1
    return replace(
        model,
        module=None,
        executable=None,
        outputs=outputs,
        fallbacks=(),
        chain={**chain, "outputs": [first + i for i in range(len(outputs))]},
        carried={symbol: whole.to_bytes()},
    )


def _up_to_the_chip(mod: tvm.IRModule) -> tvm.IRModule:
    """main, ending with the call of the chip."""
    func, kept = main_of(mod), []
    for var, value in bindings_of(func):
        kept.append(relax.VarBinding(var, value))
        if isinstance(value, Call) and isinstance(value.op, tvm.ir.GlobalVar) and is_chip_function(mod[value.op]):
            break
    last = kept[-1].var
    ended = relax.Function(
        func.params, relax.SeqExpr([relax.BindingBlock(kept)], last), last.ty, is_pure=func.is_pure, attrs=func.attrs
    )
    found = mod.clone()
    found["main"] = ended
    return found
