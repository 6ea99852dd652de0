"""Activations in the output stage: cycles, energy and activation bytes of networks with hard-swish and SiLU, with and
without it, in one run.

"without" is the same chip whose tensor engine has no output table (``output_table_lanes`` 0), so that every activation
is an instruction of the vector engine, as in builds before the output stage had one. The outputs of both are compared
to the bit. Weights are random (no trained file is here), the shapes are the published ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import tvm_ergo
from benchmarks.common import parse, parser, show
from benchmarks.mobilenet_v3 import mobilenet_v3_small
from benchmarks.yolov5 import yolov5s
from tvm_ergo.target.chip import chip
from tvm_ergo.target.machine import Trace
from tvm_ergo.target.tags import target_of_chip

NETS = {
    "mobilenet_v3_small_224": (mobilenet_v3_small, 224),
    "mobilenet_v3_small_96": (mobilenet_v3_small, 96),
    "yolov5s_320": (yolov5s, 320),
}
BIG_MEMORY_BYTES = 64 << 20
SAMPLES = 2


def main(argv=None) -> None:
    arguments = parse(parser(__doc__), argv)
    rows = [row_of(name) for name in arguments.nets or NETS]
    show("activations in the output stage, ergo/1", rows, arguments.json)


def row_of(name: str) -> dict:
    """Errors: AssertionError where the outputs differ."""
    make, size = NETS[name]
    model, images = make(size), np.random.default_rng(1).standard_normal((SAMPLES, 3, size, size)).astype(np.float32)
    with_tables = chip("ergo/1").with_memory(BIG_MEMORY_BYTES)
    without = replace(with_tables, tensor=replace(with_tables.tensor, output_table_lanes=0))
    found = [tvm_ergo.compile(model, target=target_of_chip(c), calibration=images) for c in (without, with_tables)]
    before, after = (figures(compiled) for compiled in found)
    outputs = [compiled.run(images[:1]).outputs for compiled in found]
    for key, value in outputs[0].items():
        np.testing.assert_array_equal(value, outputs[1][key])
    return {
        "net": name,
        "TABLE before": before["tables"],
        "after": after["tables"],
        "cycles before": before["cycles"],
        "cycles": after["cycles"],
        "% of them": 100 * after["cycles"] / before["cycles"],
        "uJ before": before["uj"],
        "uJ": after["uj"],
        "activation KiB before": before["kib"],
        "activation KiB": after["kib"],
    }


def figures(compiled) -> dict:
    programs = list(compiled.programs.values())
    traces = [Trace(program, compiled.chip, None) for program in programs]
    return {
        "cycles": sum(t.cycles for t in traces),
        "uj": sum(t.energy_pj for t in traces) / 1e6,
        "kib": max(p.meta["activation_bytes"] for p in programs) / 1024,
        "tables": sum(i.MNEMONIC == "TABLE" for p in programs for i in p.instructions),
    }


if __name__ == "__main__":
    main()
