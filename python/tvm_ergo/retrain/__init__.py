"""Retraining of PyTorch networks into forms the chip computes on: pruned, with trained codebooks, quantized, taught by
another network.

Needs the extra ``retrain`` (PyTorch). A user's module and loader go in; the same module comes out, its weights dense
tensors again whose values carry the structure (zeros, few values), which `tvm_ergo.compile`, `tvm_ergo.quantize` and
the weight codecs find by themselves:

    phases = [Phase(20, density=0.05), Phase(10, values=7)]
    retrain(module, loader, phases, checkpoint="run")
    mod = to_relax(module, example)

The structure is a parametrization of each weight while it trains (`structured`), a phase says what it should become
(`phases`), `loop` trains and checkpoints. Tried and dropped: masks that freeze what they remove (at a density of 0.02
such weights never come back, and are missed)."""

try:
    import torch  # noqa: F401
except ModuleNotFoundError as error:
    from tvm_ergo.target.errors import InputError

    raise InputError(
        "retraining needs PyTorch, which is not installed", remedy="pip install 'tvm-ergo[retrain]'"
    ) from error

from tvm_ergo.retrain.export import exported, to_relax
from tvm_ergo.retrain.loop import History, retrain
from tvm_ergo.retrain.phases import Phase
from tvm_ergo.retrain.structured import Structured, attach, finish, structures

__all__ = ["History", "Phase", "Structured", "attach", "exported", "finish", "retrain", "structures", "to_relax"]
