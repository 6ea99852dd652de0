"""A float net and the one it is becoming, run side by side on the same samples, layer by layer.

When the walk reaches a layer, everything before it is final, so the layer can be made with what it will really read
(and what it read in the float net) in hand. One walk costs two inferences a sample, however many layers there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import tvm

from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.relay_passes.micro.table_layers import table_layers
from tvm_ergo.relay_passes.micro.weight_layers import WeightLayer, weight_layers, with_weights
from tvm_ergo.relay_passes.micro.weights import bias_position
from tvm_ergo.relay_passes.relax_utils import array_of, main_of
from tvm_ergo.relay_passes.support import FunctionView

Inputs = list[tuple[np.ndarray, np.ndarray]]
"""Per sample: what a layer reads in the float net, and in the net so far."""


@dataclass(frozen=True)
class NewLayer:
    """What a layer becomes. weight: of the layer's size; bias: float [O], None keeps it."""

    weight: np.ndarray
    bias: np.ndarray | None = None


def bias_of(view: FunctionView, layer: WeightLayer) -> np.ndarray | None:
    """The bias of a layer, float64 [O]; None where it has none."""
    bias = layer.group.rule.parts(view, layer.group).bias
    return None if bias is None else np.broadcast_to(bias.real(), (len(layer.weight),))


class Lockstep:
    """Walks ``mod`` (float normal form) on ``samples`` (feeds ``{input: array [1, ...]}``)."""

    def __init__(self, mod: tvm.IRModule, samples: list[dict[str, np.ndarray]]):
        self.mod, self.view = mod, FunctionView(main_of(mod))
        self.layers, self.tables = weight_layers(self.view), table_layers(self.view)
        self._nets = Interpreter(mod), Interpreter(mod)
        self._envs = [[{p: np.asarray(s[p.name]) for p in net.params} for s in samples] for net in self._nets]

    def run(
        self, make: Callable[[WeightLayer, Inputs], NewLayer | None], tables: Mapping[str, np.ndarray] | None = None
    ) -> tvm.IRModule:
        """The net whose layers are what ``make(layer, inputs)`` says, called in order of execution; None keeps a
        layer. tables: new contents of tables by the name of their ``take``."""
        weights, biases, at = {}, {}, {}
        tables = tables or {}
        by_var = {layer.group.root: layer for layer in self.layers.values()}
        for steps in zip(*(net.steps for net in self._nets)):
            var = steps[0].var
            if var in by_var:
                layer = by_var[var]
                source = steps[0].value.args[0]
                inputs = [tuple(env[source] for env in pair) for pair in zip(*self._envs)]
                new = make(layer, inputs)
                if new is not None:
                    weights[layer.name] = np.asarray(new.weight, np.float32).reshape(layer.weight.shape)
                    self._nets[1].replace(
                        steps[1].value.args[1], np.ascontiguousarray(weights[layer.name].transpose(layer.stored_axes))
                    )
                    if new.bias is not None:
                        at[layer.name] = biases_at = bias_position(self.view, layer.group)
                        biases[biases_at] = np.asarray(new.bias, np.float32)
            if str(var.name) in tables:
                self._nets[1].replace(steps[1].value.args[0], np.asarray(tables[str(var.name)], np.float32))
            self._rebias(var, steps[1].value, biases)
            for net, step, envs in zip(self._nets, steps, self._envs):
                for env in envs:
                    env[var] = net.evaluate(step.value, env)
                    for dead in step.last_use_of:
                        env.pop(dead, None)
        return with_weights(self.mod, self.layers, weights, {**biases, **{(n, 0): t for n, t in tables.items()}})

    def _rebias(self, var, value, biases) -> None:
        for (name, index), bias in biases.items():
            if name == var.name:
                constant = value.args[index]
                self._nets[1].replace(
                    constant, np.broadcast_to(bias, array_of(constant).shape) if bias.size == 1 else bias.reshape(-1)
                )
