"""Images a second that threads get from one model: 1, 2 and 4 threads call ``run`` of the same compiled network, every
answer compared with the sequential one.

The numbers of threads take turns in short rounds, so that a busy machine slows all alike; the best round of each is
kept. *Of one*: images a second over those of one thread that may use one processor. *Layers*: one thread whose layers
are shared out over all processors, as `run` does it where nothing else runs. *CPU ms*: processor time an image, which a
busy machine changes least: what threads cost each other."""

from __future__ import annotations

import os
import threading
import time

import numpy as np

from benchmarks.common import parse, parser, show
from tvm_ergo.evaluation.nets import compile_net, inputs_of
from tvm_ergo.target.machine.kernels import workers

NETS = (
    "pretrainedResnet_quant",
    "kws_ref_model",
    "vww_96_int8",
    "mobilenet_v2_1.0_224_torchvision_qdq_int8",
    "resnet18_ktb_small",
)
THREADS = (1, 2, 4)
PICTURES = 4


class Wrong(AssertionError):
    """An answer that is not the sequential one."""


def rate(compiled, feeds: list[dict], expected: list[dict], threads: int, seconds: float) -> tuple[float, float]:
    """Images a second of all threads together, and processor milliseconds an image."""
    counts, errors, until = [0] * threads, [], time.perf_counter() + seconds

    def work(number: int) -> None:
        try:
            while time.perf_counter() < until:
                i = (counts[number] + number) % len(feeds)
                outputs = compiled.run(feeds[i]).outputs
                if not all(np.array_equal(outputs[name], value) for name, value in expected[i].items()):
                    raise Wrong(f"image {i}")
                counts[number] += 1
        except Exception as error:
            errors.append(error)

    running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    start, before = time.perf_counter(), time.process_time()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if errors:
        raise errors[0]
    return sum(counts) / (time.perf_counter() - start), 1000 * (time.process_time() - before) / max(1, sum(counts))


def measure(name: str, rounds: int, seconds: float) -> dict:
    compiled = compile_net(name, calibration_samples=4)
    feeds = inputs_of(name, compiled, PICTURES)
    expected = [compiled.run(feed).outputs for feed in feeds]
    best, cpu_ms = dict.fromkeys(("layers", *THREADS), 0.0), dict.fromkeys(("layers", *THREADS), np.inf)
    for _ in range(rounds):
        for threads in best:
            alone = workers.thread_count
            if threads == 1:
                workers.thread_count = lambda: 1
            try:
                images, ms = rate(compiled, feeds, expected, 1 if threads == "layers" else threads, seconds)
                best[threads], cpu_ms[threads] = max(best[threads], images), min(cpu_ms[threads], ms)
            finally:
                workers.thread_count = alone
    return {
        "net": name,
        "layers": best["layers"],
        **{f"{n} threads": best[n] for n in THREADS},
        **{f"{n} of one": best[n] / best[1] for n in THREADS[1:]},
        **{f"CPU ms, {n}": cpu_ms[n] for n in THREADS},
        "load": os.getloadavg()[0],
    }


def main(argv=None) -> None:
    options = parser(__doc__.split("\n\n")[0])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=1.0, help="of a round (default 1)")
    arguments = parse(options, argv)
    rows = [measure(name, arguments.rounds, arguments.seconds) for name in arguments.nets or NETS]
    show(f"images a second from one model, {len(os.sched_getaffinity(0))} processors", rows, arguments.json)


if __name__ == "__main__":
    main()
