"""Power and energy of the model beside what is published of Ergo, Ergo 2 and measured silicon: images/s/W, uJ per
inference, mW at 30 frames a second, at every clock point.

Every figure comes from counted events and the chip file's table (`tvm-ergo targets ergo/1 --json -` names the source of
each number); nothing is fitted. An inference's energy is dynamic energy and leakage while it runs; at 30 frames a
second the power between frames is added, as it is and with what can be switched off switched off (gated). "zeros" are
products with a zero operand, counted in runs on real inputs (not for the YOLOs, whose weights are random); the columns
that are called expected leave out what isolating them saves, all others count every product in full. Layers run whole,
weights are coded where that takes less energy. A network that exceeds the chip's memory is planned for a larger one,
whose leakage only the gated figures count: said in the column *memory*. NET@0.5: weights in steps of 0.5 times their
rms, made by reconstruction from 128 calibration inputs (minutes): more of them are zero, and they take fewer bytes;
planned for the chip's own memory where they fit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

import tvm_ergo
from benchmarks.common import parse, parser, show
from benchmarks.one_shot import Net, step_of
from benchmarks.yolov5 import yolov5s
from tvm_ergo.evaluation.nets import BIG_MEMORY_BYTES, compile_net, inputs_of
from tvm_ergo.relay_passes.micro.reconstruct import Reconstruct
from tvm_ergo.report.build import build_report
from tvm_ergo.report.zeros import count_zeros
from tvm_ergo.target.chip import chip
from tvm_ergo.target.errors import OutOfMemoryError
from tvm_ergo.target.machine.zeros import ZeroProducts

YOLO = "yolov5s_"
NETS = (
    "resnet50_pqf_large",
    "tf2_mobilenet_v2_1.0_224_ptq",
    f"{YOLO}640",
    "pretrainedResnet_quant",
    "vww_96_int8",
    "kws_ref_model",
    "ad01_int8",
)
CHIPS = ("ergo/1", "ergo/2")
FPS = 30.0
SAMPLES = 4
COARSE_SAMPLES, COARSE_IMAGES = 128, 200
UJ = 1e6


@dataclass(frozen=True)
class Published:
    """What is published of a network. text : for the table; uj : per inference."""

    text: str
    uj: float


PUBLISHED = {
    ("resnet50_pqf_large", "ergo/1"): Published("2,727 images/s/W (Perceive)", 1e6 / 2727),
    ("resnet50_pqf_large", "ergo/2"): Published("2,465 images/s/W (Perceive)", 1e6 / 2465),
    (f"{YOLO}640", "ergo/2"): Published("75 mW at 30 fps, 115 images/s (Perceive; input size not said)", 2500.0),
    ("pretrainedResnet_quant", "ergo/1"): Published("27.7 uJ GAP9, 102 NDP120, 966 STM32U385", 27.7),
    ("kws_ref_model", "ergo/1"): Published("18.6 uJ GAP9, 31.5 NDP120, 245 STM32U385", 18.6),
    ("vww_96_int8", "ergo/1"): Published("40.8 uJ GAP9, 71.7 NDP120, 519 STM32U385", 40.8),
    ("ad01_int8", "ergo/1"): Published("5.25 uJ GAP9, 31.8 STM32U385", 5.25),
}
"""Perceive's announcements, and other chips' measured figures (MLPerf Tiny; the least of them is compared with): the
anchors named in benchmarks/README.md."""


@cache
def coarse(name: str, steps: float):
    """A net with weights in steps of so many times their rms, quantized, and its top-1 against the float net's on the
    first images."""
    net = Net(name, COARSE_SAMPLES, COARSE_IMAGES)
    quantized = net.quantized(Reconstruct(net.calibration, step_of(net.mod, steps), samples=None)(net.mod))
    print(
        f"{name}, steps of {steps:g} rms: top-1 {net.top1(quantized):.1f} in int8, {net.top1(net.mod):.1f} of the "
        f"float network, {COARSE_IMAGES} images",
        flush=True,
    )
    return quantized


def compiled_coarse(name: str, steps: float, target: str):
    for memory in (None, BIG_MEMORY_BYTES):
        try:
            compiled = tvm_ergo.compile(coarse(name, steps), target=target, objective="energy", memory=memory)
        except OutOfMemoryError:
            continue
        (port,) = compiled.inputs
        return compiled, [
            {port.name: array for array in feeds.values()} for feeds in inputs_of(name, compiled, SAMPLES)
        ]
    raise AssertionError(f"{name} does not fit {BIG_MEMORY_BYTES} bytes")


def compiled_net(name: str, target: str):
    """The compiled network, and real inputs to count zeros on; none where its weights are random."""
    name, _, steps = name.partition("@")
    if steps:
        return compiled_coarse(name, float(steps), target)
    if name.startswith(YOLO):
        size, rng = int(name.removeprefix(YOLO)), np.random.default_rng(1)
        calibration = [{"images": rng.random((1, 3, size, size), np.float32)} for _ in range(2)]
        return tvm_ergo.compile(
            yolov5s(size), target=target, calibration=calibration, objective="energy", memory=BIG_MEMORY_BYTES
        ), []
    compiled = compile_net(name, target=target, calibration_samples=8, objective="energy")
    return compiled, inputs_of(name, compiled, SAMPLES)


def rows_of(name: str) -> list[dict]:
    rows = []
    for chip_name in CHIPS:
        compiled, inputs = compiled_net(name, chip_name)
        on = chip(chip_name)
        counted = [count_zeros(compiled, sample) for sample in inputs]
        report = build_report(name, compiled.programs, compiled.chip, frames_per_s=(FPS,))
        needed = max(p.meta["peak_bytes"] for p in compiled.programs.values())
        memory = "fits" if needed <= on.memory_bytes else f"needs {needed / 2**20:.1f} MiB"
        rows += [
            row_of(name, chip_name, report, number, counted) | {"memory": memory} for number in range(len(on.points))
        ]
    return rows


def row_of(name: str, chip_name: str, report, number: int, counted: list[ZeroProducts]) -> dict:
    point, on = report.points[number], chip(chip_name)
    power, published = point.power[0], PUBLISHED.get((name.partition("@")[0], chip_name))
    saved = float(np.mean([c.saved_pj(on, point.point) for c in counted])) / UJ if counted else None
    expected = None if saved is None else point.energy_uj - saved
    gated = None if power.gated_mw is None or saved is None else power.gated_mw - saved * FPS / 1e3
    return {
        "net": name,
        "chip": chip_name,
        "point": point.point,
        "MHz": point.clock_hz / 1e6,
        "V": point.voltage_v,
        "MMAC": report.macs / 1e6,
        "ms": point.latency_ms,
        "uJ": point.energy_uj,
        "per s and W": UJ / point.energy_uj,
        "pJ/MAC": point.energy_uj * UJ / report.macs,
        "zeros %": 100 * float(np.mean([c.share for c in counted])) if counted else None,
        "expected uJ": expected,
        "expected per s and W": UJ / expected if expected else None,
        f"mW at {FPS:g} fps": power.power_mw,
        "gated": power.gated_mw,
        "gated, expected": gated,
        "peak mW": point.peak_mw,
        "uJ by published": point.energy_uj / published.uj if published else None,
        "published": published.text if published and number == 0 else "",
        "by part uJ": {p.part: p.model_dump(exclude={"part"}) for p in report.parts}
        if point.point == report.point
        else None,
    }


def main(argv: list[str] | None = None) -> None:
    arguments = parse(parser(__doc__.split("\n\n")[0]), argv)
    rows = [row for name in arguments.nets or NETS for row in rows_of(name)]
    show("power", rows, arguments.json, hidden=("by part uJ", "MMAC", "MHz", "V", "pJ/MAC", "published", "expected uJ"))


if __name__ == "__main__":
    main()
