"""Networks with attention on the emulated chip: accuracy over all samples beside float, what stays on the host, memory,
cycles, energy, power.

stories260K is calibrated on the first 4 of its 48 windows (there is no other data): the loss is given over all windows
and over the 44 others. MiniLM is calibrated on SST-2 training sentences and tested on all pairs of STS-B. Float: the
manifest's figure of the same samples where it has one, else the same network evaluated by NumPy in float32 in the same
run."""

from __future__ import annotations

import time

import numpy as np

from benchmarks.common import parse, parser, show
from tvm_ergo.evaluation import TASKS
from tvm_ergo.evaluation.datasets import shared_root
from tvm_ergo.evaluation.nets import compile_net
from tvm_ergo.target.machine import Trace

NETS = {"stories260k_s256": 4, "all_minilm_l6_v2_trim": 64}
"""And how many samples calibrate them."""
TOKENS = {"stories260k_s256": 256, "all_minilm_l6_v2_trim": 64}


def main(argv=None) -> None:
    options = parser(__doc__)
    options.add_argument("--limit", type=int, help="at most so many samples of each test")
    options.add_argument("--tests", nargs="*", help="only these tests")
    options.add_argument("--generate", action="store_true", help="instead: text token by token, and its cost")
    options.add_argument("--tokens", type=int, default=200, help="how many are written of each text")
    arguments = parse(options, argv)
    if arguments.generate:
        show("stories260K writing on ergo/1, beside figures of silicon", generation(arguments.tokens), arguments.json)
        return
    rows = [row for name in arguments.nets or NETS for row in rows_of(name, arguments.limit, arguments.tests)]
    show("networks with attention, ergo/1 with the memory they need", rows, arguments.json)


PROMPTS = ("", "Once upon a time", "One day, Tom and his dog went to the park. They")
ANCHORS = (
    {"text": "Siracusa, TinyStories (silicon)", "tokens/s": 340, "uJ a token": 490},
    {"text": "ITA + Deeploy, MobileBERT (silicon), 32.5 inferences/s, 1.60 mJ each"},
)


def generation(tokens: int) -> list[dict]:
    """Texts written with an empty and two other prompts, and every step held against the whole sequence."""
    vocabulary = shared_root() / "data" / "tinystories_val_tok512.npz"
    model = compile_net("stories260k_s256", calibration_samples=4, generate=True, tokenizer=vocabulary, memory="8MiB")
    rows = []
    for prompt in PROMPTS:
        found = model.generate(prompt, tokens=tokens)
        ids = np.zeros((1, TOKENS["stories260k_s256"]), np.int64)
        ids[0, : len(found.tokens)] = found.tokens
        whole = model.run(ids).outputs["logits"][0].argmax(-1)
        written = range(found.prompt, len(found.tokens))
        rows.append(
            {
                "text": prompt or "(no prompt)",
                "prompt": found.prompt,
                "prompt us": found.prefill.seconds * 1e6,
                "written": len(written),
                "as the whole sequence": sum(found.tokens[i] == whole[i - 1] for i in written),
                "tokens/s": found.decode.tokens_per_second,
                "uJ a token": found.decode.uj_per_token,
                "mW": found.decode.mw,
            }
        )
    return [*rows, *({**dict.fromkeys(rows[0]), **anchor} for anchor in ANCHORS)]


def rows_of(name: str, limit: int | None, tests: list[str] | None) -> list[dict]:
    """One row for each test of a net."""
    begin = time.perf_counter()
    compiled = compile_net(name, calibration_samples=NETS[name])
    seconds = time.perf_counter() - begin
    figures = chip_figures(compiled, TOKENS[name])
    return [
        {"net": name, **tested(compiled, test, limit, skip), **figures, "compile s": seconds}
        for test in TASKS[name].tests
        if not tests or test.name in tests
        for skip in ((0, NETS[name]) if name.startswith("stories") else (0,))
    ]


def tested(compiled, test, limit: int | None, skip: int) -> dict:
    """Float and chip on the same samples; skip: samples at the beginning that are left out, because they calibrated the
    network."""
    found = {}
    runs = {
        "float": lambda feeds: [np.asarray(o) for o in compiled.run_float(feeds)],
        "chip": lambda feeds: list(compiled.run(feeds).outputs.values()),
    }
    known = test.figures.get(test.metric().primary) if limit is None and not skip else None
    if known is not None:
        found["float"] = known
        del runs["float"]
    for kind, run in runs.items():
        metric, count = test.metric(), 0
        for number, (feeds, label) in enumerate(test.source.samples(limit)):
            if number >= skip:
                metric.update([run(feed) for feed in feeds], label)
                count += 1
        found[kind] = metric.result()[metric.primary]
    return {
        "test": test.name + (f", without the first {skip}" if skip else ""),
        "samples": count,
        "figure": metric.primary,
        "float": found["float"],
        "chip": found["chip"],
        "change": found["chip"] - found["float"],
    }


def chip_figures(compiled, tokens: int) -> dict:
    """Of one inference at the first operating point."""
    programs = list(compiled.programs.values())
    traces = [Trace(program, compiled.chip) for program in programs]
    cycles, seconds, pj = (
        sum(t.cycles for t in traces),
        sum(t.seconds for t in traces),
        sum(t.energy_pj for t in traces),
    )
    return {
        "host operators": len(compiled.fallbacks),
        "constants KiB": sum(p.meta["constant_bytes"] for p in programs) / 1024,
        "activations KiB": max((p.meta["activation_bytes"] for p in programs), default=0) / 1024,
        "cycles": cycles,
        "us": seconds * 1e6,
        "uJ": pj / 1e6,
        "uJ a token": pj / 1e6 / tokens,
        "mW running": pj / 1e9 / seconds if seconds else 0.0,
    }


if __name__ == "__main__":
    main()
