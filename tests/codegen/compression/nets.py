"""A small network with a tensor that waits, and what its tensors need."""

from __future__ import annotations

from random import Random

import numpy as np
from tvm import relax

from tvm_ergo.codegen.compile import compile_function
from tvm_ergo.codegen.compression import Collector
from tvm_ergo.codegen.graph import from_function
from tvm_ergo.codegen.runtime.launcher import Launcher
from tvm_ergo.codegen.runtime.recording import watch
from tvm_ergo.codegen.testing import RandomFunction, shape_of
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.chip import chip
from tvm_ergo.target.machine import Machine

CHIP = chip("ergo/1")
ZERO = -128


class Waits(RandomFunction):
    """x -> a -> wide -> wide -> narrow -> added to a: ``a`` waits while the wide tensors are made. ReLUs everywhere:
    half of the values are zero."""

    def __init__(self, rows: int = 16, columns: int = 6, seed: int = 5):
        super().__init__(Random(seed))
        self.params = [relax.Var("x", relax.TensorType((1, rows, columns, 4), "int8"))]
        self.values = list(self.params)
        a = self.conv(self.params[0], 8)
        narrow = self.conv(self.conv(self.conv(a, 24), 24), 8)
        total = self.emit(
            dialect.Add(a_zp=ZERO, b_zp=ZERO, a_mult=2**20, b_mult=2**20, shift=20, out_zp=ZERO, lo=-128, hi=127),
            narrow,
            a,
        )
        self.conv(total, 4)

    def conv(self, x, channels: int):
        taps = 9 * shape_of(x)[3]
        op = dialect.Conv2d(strides=(1, 1), padding=(1, 1, 1, 1), in_zp=ZERO, out_zp=ZERO, lo=-128, hi=127)
        vectors = (
            self.constant((channels,), "int32", -400, 400),
            self.constant((channels,), "int32", 2**23, 2**24 - 1),
            relax.const(np.full(channels, round(23.5 + np.log2(taps) / 2 + 4), "int8"), "int8"),
        )
        return self.emit(op, x, self.constant((channels, 3, 3, shape_of(x)[3])), *vectors)

    def pictures(self, count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
        """Smooth ones with some texture."""
        rng, shape = np.random.default_rng(seed), shape_of(self.params[0])
        found = []
        for _ in range(count):
            smooth = np.add.outer(
                np.sin(np.arange(shape[1]) / rng.uniform(3, 9)), np.cos(np.arange(shape[2]) / rng.uniform(3, 9))
            )
            found.append(
                {"x": np.clip(30 * smooth[None, ..., None] + rng.normal(0, 6, shape) - 60, -128, 127).astype(np.int8)}
            )
        return found


def statistics(function: relax.Function, inputs: list[dict[str, np.ndarray]]):
    """What the function's tensors need on these inputs."""
    collector = Collector({"main": from_function(function)})
    launcher = Launcher("main", Machine(compile_function(function, CHIP), CHIP))
    with watch(collector):
        for values in inputs:
            launcher.run(values)
    return collector.statistics("main")
