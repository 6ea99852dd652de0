"""What a network is worth on labelled data: in float by the interpreter, as `eval --float` does; a file by the integers
that the chip computes.

A file is measured as `eval` measures it: read back, lowered to the integer dialect, and built with TVM for the CPU as
`compile` builds the share of the host, which gives the emulator's outputs to the bit (``benchmarks/exactness.py``). The
quantized (QDQ) module in the interpreter is no substitute, as it rounds otherwise: ResNet-8 had 87.6 there and 87.5 on
the chip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import tvm

from tvm_ergo import frontend
from tvm_ergo.compressed.file import Contents
from tvm_ergo.evaluation.runner import Outcome, Run, evaluate
from tvm_ergo.evaluation.tasks import Test
from tvm_ergo.pipeline import PipelineOptions, host_build, is_integer, run_stages
from tvm_ergo.relay_passes.cpu import CompiledOnCPU
from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.relay_passes.micro.quantize import is_quantized
from tvm_ergo.relay_passes.relax_utils import main_of
from tvm_ergo.target.tags import DEFAULT_CHIP, chip_of_target

Say = Callable[[str, int, int], None]


def as_on_chip(data: bytes) -> Run:
    """A compressed network's file as a function from feeds to the outputs that the chip gives. Errors: ModelError,
    UnsupportedError."""
    imported, options = (
        frontend.load(data),
        PipelineOptions(chip_of_target(DEFAULT_CHIP)),
    )  # lowering is the same for every chip
    lowered = run_stages(imported.mod, options, until="lower_quantized")
    ready = run_stages(
        lowered, options, start="host"
    )  # as `compile` does: what is left to the host in float sums up in the same order
    with host_build():
        executable = tvm.relax.build(ready, options.target, relax_pipeline=None)
    built = CompiledOnCPU(
        executable,
        tuple((name, tuple(i.shape), i.dtype) for name, i in zip(imported.parameters, imported.inputs, strict=True)),
    )
    return lambda feeds: built(*(feeds[i.name] for i in imported.inputs))


def in_float(mod: tvm.IRModule, inputs: list[str]) -> Run:
    """A float module in normal form, or one kept in float; ``inputs`` : names of the source for main's parameters."""
    run, by_name = Interpreter(mod), dict(zip(inputs, (p.name for p in main_of(mod).params)))
    return lambda feeds: run.run({by_name[name]: array for name, array in feeds.items()})


@dataclass
class Measure:
    """Runs tests. inputs : names of the source. limit : at most so many samples. say : ``say(step, done, total)``. What
    was built last is kept."""

    inputs: list[str]
    limit: int | None
    say: Say
    _built: tuple[bytes, Run] | None = field(default=None, repr=False)

    def of_float(self, mod: tvm.IRModule, test: Test, step: str) -> Outcome:
        return self._outcome(in_float(mod, self.inputs), test, step)

    def of_file(self, mod: tvm.IRModule, contents: Contents, test: Test, step: str) -> Outcome:
        """contents : the file of ``mod``; a file in float has no integers yet, and is measured in float."""
        if not is_integer(mod) and not is_quantized(mod):
            return self.of_float(mod, test, step)
        if self._built is None or self._built[0] != contents.data:
            self.say(f"build {len(contents.data):,} bytes", 0, 1)
            self._built = contents.data, as_on_chip(contents.data)
        return self._outcome(self._built[1], test, step)

    def _outcome(self, run: Run, test: Test, step: str) -> Outcome:
        return evaluate(test, run, limit=self.limit, progress=lambda done, total: self.say(step, done, total))
