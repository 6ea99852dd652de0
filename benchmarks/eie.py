"""The sparse engine beside EIE (Han et al., ISCA 2016): the real AlexNet fc8 and the paper's nine layers at the
published densities.

fc8: codes, codebook and activations of one image from the authors' repository; their simulator's figures beside ours at
five depths of the activation queues. The other tables: for each layer so many weights and activations as published are
nonzero, at random positions (--seed), stored and timed in EIE's way, with EIE's parameters (64 processing elements,
queues of 8, 800 MHz), beside the published times. "same floor": as many activations are nonzero as give the published
theoretical time. Then what each step from EIE to our engine brings, in cycles, at equal elements, clock and width of
the memory, and what deeper queues or less looking ahead would change; stored bytes, everything counted; energy of
memory, queues, tables and arithmetic, with one table (ergo/1) for both. At last the layers as instructions of the
emulated chip: the dense convolution and SPMV, whose outputs are compared with the dense product."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from benchmarks.common import parse, parser, save, show
from benchmarks.eie_on_chip import dense_cost, run_sparse
from tvm_ergo.target.chip import chip
from tvm_ergo.target.codecs.eie import EieFormat, EieMatrix, decode, encode
from tvm_ergo.target.sparse.events import events
from tvm_ergo.target.sparse.form import stored
from tvm_ergo.target.sparse.timing import Activity, Timing, Work

PES, MHZ, CHIP = 64, 800, "ergo/1"
AUTHORS_CYCLES = {2: 10_194, 4: 8_386, 8: 7_926, 16: 7_794, 32: 7_794}
AUTHORS = {"entries": 1_051_991, "macs": 453_748, "pointer reads": 112_640, "line reads": 100_900}
# inputs, outputs, share of nonzero weights, of nonzero activations, theoretical us, actual us: tables 3 and 4 of the
# paper
LAYERS = {
    "Alex-6": (9216, 4096, 0.09, 0.351, 28.1, 30.3),
    "Alex-7": (4096, 4096, 0.09, 0.353, 11.7, 12.2),
    "Alex-8": (4096, 1000, 0.25, 0.375, 8.9, 9.9),
    "VGG-6": (25088, 4096, 0.04, 0.183, 28.1, 34.4),
    "VGG-7": (4096, 4096, 0.04, 0.375, 7.9, 8.7),
    "VGG-8": (4096, 1000, 0.23, 0.411, 7.3, 8.4),
    "NT-We": (4096, 600, 0.10, 1.0, 5.2, 8.0),
    "NT-Wd": (600, 8791, 0.11, 1.0, 13.0, 13.9),
    "NT-LSTM": (1201, 2400, 0.10, 1.0, 6.5, 7.5),
}
REAL, PAPER = (
    "AlexNet fc8 with its real activations, EIE's parameters",
    "Nine layers, EIE's parameters, beside the published times",
)
CYCLES, BYTES, ON_CHIP = (
    "Cycles, step by step from EIE to ours",
    "Ours beside EIE: bytes and energy",
    f"On {CHIP}: dense convolution and SPMV",
)
OURS = Timing(fifo_depth=32, ahead=4, row_gap=False)


def picked(rng, count: int, share: float) -> np.ndarray:
    """bool[count] with ``round(count * share)`` true, at random places."""
    wanted, mask = round(count * share), np.zeros(count, bool)
    if share > 0.5:
        return ~picked(rng, count, 1 - share)
    chosen = np.unique(rng.integers(0, count, int(wanted * (1 + share) * 1.1) + 1000))
    mask[rng.permutation(chosen)[:wanted]] = True
    return mask


def energy_uj(activity: Activity) -> float:
    return chip(CHIP).energy_pj(events(activity, PES)) / 1e6


def steps(plain: EieMatrix, ours: EieMatrix, matrix: np.ndarray, active: np.ndarray) -> dict[str, int]:
    """Cycles with EIE's parameters and with one step after the other. EIE's bias is a column of its own here as there,
    ours is loaded into the sums."""
    no_padding = encode(matrix, EieFormat(PES, ours.format.code_bits, ours.format.run_bits, ours.format.pointers))
    theirs, inputs, load = Work(plain), active[: matrix.shape[1]], ours.format.slots(matrix.shape[0])
    plainly, evenly = Work(no_padding), Work(ours)
    return {
        "EIE": theirs.run(active, Timing(8)).cycles,
        "depth 32": theirs.run(active, Timing(32)).cycles,
        "look ahead": load + Work(encode(matrix, EieFormat(PES))).run(inputs, OURS).cycles,
        "no padding": load + plainly.run(inputs, OURS).cycles,
        "even rows": load + evenly.run(inputs, OURS).cycles,
        "ours, depth 8": load + evenly.run(inputs, Timing(8, OURS.ahead, False)).cycles,
        "ours, 2 ahead": load + evenly.run(inputs, Timing(32, 2, False)).cycles,
        "ours, depth 64": load + evenly.run(inputs, Timing(64, OURS.ahead, False)).cycles,
    }


def compare(tables: dict[str, list[dict]], name: str, matrix: np.ndarray, bias: np.ndarray, active: np.ndarray) -> None:
    """One layer into the last two tables: int8 [outputs, inputs], the bias column, bool[inputs + 1]."""
    plain, ours = encode(np.concatenate([matrix, bias[:, None]], 1), EieFormat(PES)), stored(matrix, PES)
    if not (decode(ours.data, matrix.shape).dense() == matrix).all():
        raise AssertionError(f"{name}: what is stored is not the matrix")
    counted = steps(plain, ours, matrix, active)
    theirs, mine = Work(plain).run(active, Timing(8)), Work(ours).run(active[:-1], OURS)
    tables[CYCLES].append(
        {
            "layer": name,
            **counted,
            "floor": -(-theirs.macs // PES),
            "over floor %": 100 * (counted["even rows"] * PES / theirs.macs - 1),
            "speed-up": counted["EIE"] / counted["even rows"],
        }
    )
    tables[BYTES].append(
        {
            "layer": name,
            "int8 bytes": matrix.size,
            "EIE bytes": len(plain.data),
            "our bytes": len(ours.data),
            "bits an entry": ours.format.entry_bits,
            "bytes": len(ours.data) / len(plain.data),
            "EIE uJ": energy_uj(theirs),
            "our uJ": energy_uj(mine),
            "energy": energy_uj(mine) / energy_uj(theirs),
        }
    )
    on, dense, trace = (
        chip(CHIP),
        dense_cost(*matrix.shape, chip(CHIP)),
        run_sparse(matrix, active[:-1], chip(CHIP), len(name)),
    )
    dense_uj = on.energy_pj(dense.events) / 1e6
    tables[ON_CHIP].append(
        {
            "layer": name,
            "dense cycles": dense.cycles,
            "SPMV cycles": trace.cycles,
            "faster": dense.cycles / trace.cycles,
            "dense uJ": dense_uj,
            "SPMV uJ": trace.dynamic_pj / 1e6,
            "less energy": dense_uj / (trace.dynamic_pj / 1e6),
            "us": trace.seconds * 1e6,
        }
    )


def published(name: str, plain: EieMatrix, seed: int) -> dict:
    """EIE's times with the published numbers of nonzeros, and with as many activations as give the published
    theoretical time."""
    inputs, outputs, weights, share, theory, actual = LAYERS[name]
    work, rng = Work(plain), np.random.default_rng(seed)
    found = work.run(np.append(picked(rng, inputs, share), True), Timing(8))
    floor_us = found.entries / PES / MHZ
    row = {
        "layer": name,
        "floor us": floor_us,
        "published floor": theory,
        "time us": found.cycles / MHZ,
        "published": actual,
        "of published": found.cycles / MHZ / actual,
        "efficiency": found.entries / PES / found.cycles,
        "published efficiency": theory / actual,
    }
    share = min(1.0, share * theory / floor_us)
    same = work.run(np.append(picked(rng, inputs, share), True), Timing(8))
    return {
        **row,
        "same floor: activations %": 100 * share,
        "same floor: us": same.cycles / MHZ,
        "same floor: of published": same.cycles / MHZ / actual,
    }


def fc8() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(codes int8[1000, 4097], activations float64[4097], the last 1 for the bias, outputs float32[1000])."""
    data = np.load(Path(os.environ.get("ERGO_SHARED", "../shared")) / "data" / "alexnet_fc8_codes.npz")
    return (
        data["codes"].astype(np.int8),
        np.append(data["activations"].astype(np.float64), 1.0),
        data["reference_output"][:1000],
    )


def real_layer() -> list[dict]:
    """fc8 in EIE's format at the five depths; outputs computed from the decoded bytes."""
    codes, activations, reference = fc8()
    codebook = np.load(Path(os.environ.get("ERGO_SHARED", "../shared")) / "data" / "alexnet_fc8_codes.npz")[
        "codebook"
    ].astype(np.float64)
    matrix = encode(codes, EieFormat(PES))
    error = np.abs(codebook[decode(matrix.data, codes.shape).dense()] @ activations - reference).max()
    work, rows = Work(matrix), []
    for depth, authors in AUTHORS_CYCLES.items():
        found = work.run(activations != 0, Timing(depth))
        counts = {
            "entries": matrix.entries,
            "macs": found.macs,
            "pointer reads": found.pointer_reads,
            "line reads": found.line_reads,
        }
        rows.append(
            {
                "FIFO": depth,
                "cycles": found.cycles,
                "authors": authors,
                "difference %": 100 * (found.cycles / authors - 1),
                **counts,
                "counts as authors'": "yes" if counts == AUTHORS else "no",
                "largest output error": float(error),
                "stored bytes": len(matrix.data),
            }
        )
    return rows


def main(argv=None) -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--seed", type=int, default=1, help="of the random positions")
    options = parse(arguments, argv)
    names = options.nets or ["fc8", *LAYERS]
    tables: dict[str, list[dict]] = {REAL: [], PAPER: [], CYCLES: [], BYTES: [], ON_CHIP: []}
    if "fc8" in names:
        tables[REAL] = real_layer()
        codes, activations, _ = fc8()
        compare(tables, "fc8", codes[:, :-1], codes[:, -1], activations != 0)
    for number, name in enumerate(LAYERS):
        if name in names:
            inputs, outputs, weights, share, _, _ = LAYERS[name]
            rng = np.random.default_rng((options.seed, number))
            matrix = (
                picked(rng, inputs * outputs, weights).view(np.int8)
                * rng.integers(1, 16, inputs * outputs, dtype=np.int8)
            ).reshape(outputs, inputs)
            bias, active = np.ones(outputs, np.int8), np.append(picked(rng, inputs, share), True)
            tables[PAPER].append(
                published(name, encode(np.concatenate([matrix, bias[:, None]], 1), EieFormat(PES)), options.seed)
            )
            compare(tables, name, matrix, bias, active)
    for title, rows in tables.items():
        show(title, rows)
    if options.json:
        save(
            "the sparse engine beside EIE",
            [{"table": title, **row} for title, rows in tables.items() for row in rows],
            options.json,
        )


if __name__ == "__main__":
    main()
