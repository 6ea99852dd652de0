"""A network that listens: the whole window at every step against its new rows alone (``new_rows``).

MLPerf Tiny's streaming wake word sees 30 frames of 40 features and is asked every 32 ms, when one frame is new; keyword
spotting's DS-CNN sees 49 frames of 20 ms and has a stride of two. Power is the chip's alone, with its memory, pauses
asleep as the chip file says (docs/power.md): no microphone, no features, no host. That both give the same outputs is
checked over 100 steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import tvm_ergo
from benchmarks.common import parse, parser, show
from tvm_ergo.evaluation.nets import model_path
from tvm_ergo.report.build import build_report


@dataclass(frozen=True)
class Listener:
    """rows : new ones a step. step_s : from one step to the next."""

    rows: int
    step_s: float


NETS = {"str_ww_ref_model": Listener(1, 0.032), "kws_ref_model": Listener(2, 0.04)}
STEPS = 100


def rows_of(name: str) -> list[dict]:
    listener, path = NETS[name], model_path(name)
    whole = tvm_ergo.compile(path)
    found = [figures(name, "whole window", whole, 1 / listener.step_s)]
    for times in (1, 2, 4):
        rows = times * listener.rows
        compiled = tvm_ergo.compile(path, new_rows=rows)
        check(whole, compiled, f"{name}, {rows} new rows")
        found.append(figures(name, f"{rows} new row{'s' * (rows > 1)}", compiled, 1 / listener.step_s / times))
    return found


def check(whole, compiled, label: str) -> None:
    """Both on one signal. Errors: AssertionError where they differ."""
    info = whole.inputs[0]
    (axis,) = [a for a, (m, n) in enumerate(zip(info.shape, compiled.inputs[0].shape)) if m != n]
    rows = compiled.inputs[0].shape[axis]
    rng, window = np.random.default_rng(0), np.full(info.shape, info.zero_point or 0, info.dtype)
    for step in range(STEPS):
        fresh = rng.integers(-128, 128, compiled.inputs[0].shape).astype(info.dtype)
        window = np.concatenate([np.take(window, range(rows, info.shape[axis]), axis=axis), fresh], axis=axis)
        pairs = zip(whole.run(window).outputs.values(), compiled.run(fresh).outputs.values(), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs), f"{label}, step {step}"


def figures(name: str, form: str, compiled, steps_per_s: float) -> dict:
    report = build_report(
        name,
        compiled.programs,
        compiled.chip,
        frames_per_s=[steps_per_s],
        inputs=compiled.inputs,
        states=compiled.states,
    )
    (program,) = compiled.programs.values()
    (power,) = report.power
    (asleep,) = [row for row in report.sleep if row.chosen]
    return {
        "net": name,
        "form": form,
        "steps/s": steps_per_s,
        "MACs": report.macs,
        "activation bytes": program.meta["activation_bytes"],
        "of these kept": sum(int(np.prod(s.shape)) * np.dtype(s.dtype).itemsize for s in compiled.states),
        "cycles": report.cycles,
        "uJ": report.energy_uj,
        "mW awake": power.power_mw,
        "mW gated": power.gated_mw,
        "mW asleep between": asleep.average_mw,
        "asleep": asleep.state,
    }


def main(argv=None) -> None:
    arguments = parse(parser(__doc__), argv)
    show("networks that listen, on ergo/1", [r for n in arguments.nets or NETS for r in rows_of(n)], arguments.json)


if __name__ == "__main__":
    main()
