"""Power and energy of the model beside what is published of Ergo, Ergo 2 and measured silicon: images/s/W, uJ per inference, mW at 30 frames a second.

Every figure comes from counted events and the chip file's table (`tvm-ergo targets ergo/1 --json -` names the source of each number); nothing is fitted. An inference's energy is dynamic
energy and leakage while it runs; at 30 frames a second the idle power between frames is added. Layers run whole, weights coded where that costs no time. Networks that exceed the chip's
memory are planned for a larger one, whose own leakage is not counted: said in the column *memory*.
"""

from __future__ import annotations

from benchmarks.common import parse, parser, show
from tvm_ergo.evaluation.nets import BIG_MEMORY_BYTES, compile_net
from tvm_ergo.report.build import build_report
from tvm_ergo.target.chip import chip

NETS = ("resnet50_pqf_large", "tf2_mobilenet_v2_1.0_224_ptq", "pretrainedResnet_quant", "kws_ref_model", "vww_96_int8", "ad01_int8")
CHIPS = ("ergo/1", "ergo/2")
FPS = 30.0
PUBLISHED = {
    ("resnet50_pqf_large", "ergo/1"): "2,727 images/s/W (Perceive)", ("resnet50_pqf_large", "ergo/2"): "2,465 images/s/W (Perceive)",
    ("pretrainedResnet_quant", "ergo/1"): "27.7 uJ GAP9, 102 NDP120, 966 STM32U385", ("kws_ref_model", "ergo/1"): "18.6 uJ GAP9, 31.5 NDP120, 245 STM32U385",
    ("vww_96_int8", "ergo/1"): "40.8 uJ GAP9, 71.7 NDP120, 519 STM32U385", ("ad01_int8", "ergo/1"): "5.25 uJ GAP9, 31.8 STM32U385"}
"""Of other chips' measured figures (MLPerf Tiny) and of Perceive's announcements; see the anchors named in benchmarks/README.md."""


def rows_of(name: str) -> list[dict]:
    rows = []
    for chip_name in CHIPS:
        compiled = compile_net(name, target=chip_name, calibration_samples=8)
        on = chip(chip_name)
        for point in on.points:
            report = build_report(name, compiled.programs, on.with_memory(BIG_MEMORY_BYTES), point=point.name, frames_per_s=(FPS,))
            needed = max(p.meta["peak_bytes"] for p in compiled.programs.values())
            power = report.power[0].power_mw
            rows.append({"net": name, "chip": chip_name, "point": point.name, "MHz": point.clock_hz / 1e6, "V": point.voltage_v, "MMAC": report.macs / 1e6,
                         "ms": report.latency_ms, "uJ": report.energy_uj, "of it leakage": report.leakage_uj, "images/s/W": 1e6 / report.energy_uj, "pJ/MAC": report.energy_uj * 1e6 / report.macs,
                         f"mW at {FPS:g} fps": power, "memory": "fits" if needed <= on.memory_bytes else f"needs {needed / 2**20:.1f} MiB",
                         "published": PUBLISHED.get((name, chip_name), "") if point is on.points[0] else "",
                         "by engine uJ": report.energy_by_engine_uj, "by event uJ": report.energy_by_event_uj})
    return rows


def main(argv: list[str] | None = None) -> None:
    arguments = parse(parser(__doc__.splitlines()[0]), argv)
    rows = [row for name in arguments.nets or NETS for row in rows_of(name)]
    show("power", rows, arguments.json, hidden=("by engine uJ", "by event uJ", "MMAC", "V"))


if __name__ == "__main__":
    main()
