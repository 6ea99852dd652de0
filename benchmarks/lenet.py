"""LeNet-300-100 and LeNet-5 (Caffe's: 20 and 50 filters, 500 units) trained on MNIST, pruned, clustered, quantized:
bytes of the whole file, test error.

Beside Deep Compression (Han et al., ICLR 2016, tables 1 to 3) and Cambricon-S (Zhou et al., MICRO 2018). Sizes are of
the file `tvm-ergo compress` writes, everything in it: structure, codebooks, coded weights, biases, scales of
activations. Errors are of the quantized network (int8 activations) over all 10,000 test images.

Training uses the 60,000 training images, each in several slightly turned, scaled and shifted copies, and a larger
network's outputs on them (Hinton et al. 2015); nothing of the test set is looked at before the end. Runs on two cores
in about half an hour; --work DIR keeps checkpoints, and a stopped run goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import tvm_ergo
from benchmarks.common import parse, parser, show
from tvm_ergo.compressed.compress import compress
from tvm_ergo.evaluation.datasets import shared_root
from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.retrain import Phase, finish, retrain, to_relax

COPIES, BATCH = 6, 256
TAUGHT, TEMPERATURE = 0.7, 3.0
ANCHORS = {
    "LeNet-300-100": "Deep Compression 40x, 1.58 %; Cambricon-S 82x, 1.91 %",
    "LeNet-5": "Deep Compression 39x, 0.74 %; Cambricon-S 82x, 0.95 %",
}
GOALS = {"LeNet-300-100": (82, 1.64), "LeNet-5": (82, 0.80)}
PHASES = {
    "LeNet-300-100": [
        Phase(12, lr=2e-3),
        Phase(50, lr=1e-3, density={"1": 0.02, "3": 0.05, "5": 0.25}),
        Phase(20, lr=5e-4, values={"5": 9, "*": 5}),
        Phase(2, lr=1e-5, bits=8),
    ],
    "LeNet-5": [
        Phase(10, lr=2e-3),
        Phase(20, lr=1e-3, density={"0": 0.5, "2": 0.12, "5": 0.02, "7": 0.2}),
        Phase(8, lr=5e-4, values={"0": 9, "*": 5}),
        Phase(1, lr=1e-5, bits=8),
    ],
}


def lenet_300_100() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )


def lenet_5() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, 10),
    )


NETS = {"LeNet-300-100": lenet_300_100, "LeNet-5": lenet_5}


def mnist(file: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images float32 [n,1,28,28] in 0..1 and labels."""
    with np.load(shared_root() / "data" / file) as loaded:
        return torch.tensor(loaded["images"]).reshape(-1, 1, 28, 28).float() / 255, torch.tensor(
            loaded["labels"]
        ).long()


class Pool:
    """The training images in ``COPIES`` slightly changed forms; an epoch is one form, in another order each time.
    targets : of each form, with what a teacher says."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor):
        torch.manual_seed(0)
        self.forms, self.labels = [images, *(changed(images) for _ in range(COPIES - 1))], labels
        self.taught: list[torch.Tensor] | None = None

    def ask(self, teacher: nn.Module) -> None:
        """From now on targets are ``(labels, the teacher's logits)``."""
        teacher.eval()
        with torch.no_grad():
            self.taught = [torch.cat([teacher(part) for part in form.split(1000)]) for form in self.forms]

    def __len__(self) -> int:
        return len(self.labels) // BATCH

    def __iter__(self):
        form = int(torch.randint(len(self.forms), ()))
        for picked in torch.randperm(len(self.labels)).split(BATCH)[: len(self)]:
            targets = self.labels[picked] if self.taught is None else (self.labels[picked], self.taught[form][picked])
            yield self.forms[form][picked], targets


def changed(images: torch.Tensor) -> torch.Tensor:
    """Turned by up to 0.2 rad, sheared by 0.15, scaled by 12 %, shifted by 3 pixels."""
    parts = []
    for part in images.split(2000):
        n = len(part)
        turn, size, shear = (torch.rand(n) - 0.5) * 0.4, 1 + (torch.rand(n) - 0.5) * 0.24, (torch.rand(n) - 0.5) * 0.3
        cos, sin, shift = torch.cos(turn) * size, torch.sin(turn) * size, (torch.rand(2, n) - 0.5) * 0.22
        matrix = torch.stack([torch.stack([cos, sin + shear, shift[0]], 1), torch.stack([-sin, cos, shift[1]], 1)], 1)
        parts.append(
            functional.grid_sample(
                part, functional.affine_grid(matrix, part.shape, align_corners=False), align_corners=False
            )
        )
    return torch.cat(parts)


def taught_loss(outputs: torch.Tensor, targets) -> torch.Tensor:
    """Cross-entropy with the labels and divergence from the teacher's softened outputs."""
    labels, logits = targets
    soft = functional.kl_div(
        functional.log_softmax(outputs / TEMPERATURE, -1),
        functional.softmax(logits / TEMPERATURE, -1),
        reduction="batchmean",
    )
    return (1 - TAUGHT) * functional.cross_entropy(outputs, labels) + TAUGHT * TEMPERATURE**2 * soft


def error_of(module: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    module.eval()
    with torch.no_grad():
        return 100 * float((module(images).argmax(1) != labels).float().mean())


def measure(name: str, pool: Pool, test, work: Path | None, say) -> dict:
    """One network from nothing to its file."""
    torch.manual_seed(1)
    module = NETS[name]()
    float_bytes = 4 * sum(p.numel() for p in module.parameters())
    history = retrain(
        module,
        pool,
        PHASES[name],
        loss=taught_loss,
        checkpoint=work and work / name,
        progress=lambda *row: say(name, *row),
    )
    finish(module)
    mod = to_relax(module, (test[0][:1],))
    calibration = pool.forms[0][:256].numpy()
    found = compress(tvm_ergo.quantize(mod, calibration))
    if work:
        found.save(work / f"{name}.ergoz")
    run = Interpreter(found.mod)
    key = found.mod["main"].params[0].name
    wrong = sum(int(np.argmax(run.run({key: x[None].numpy()})[0])) != int(y) for x, y in zip(*test))
    ratio, goal = float_bytes / found.size_bytes, GOALS[name]
    error = 100 * wrong / len(test[1])
    return {
        "net": name,
        "fp32 bytes": float_bytes,
        "file bytes": found.size_bytes,
        "ratio": ratio,
        "error %": error,
        "float, same weights %": error_of(module, *test),
        "density %": 100 * history.rows[-1]["density"],
        "weights": found.report.weight_bytes,
        "graph": found.report.graph_bytes,
        "goal": f"{goal[0]}x at {goal[1]} %",
        "reached": "yes" if ratio >= goal[0] and error <= goal[1] else "no",
        "published": ANCHORS[name],
        "layers": [row.model_dump() for row in found.report.layers],
    }


def main(argv: list[str] | None = None) -> None:
    command = parser(__doc__)
    command.add_argument("--work", metavar="DIR", help="folder for checkpoints and the files")
    arguments = parse(command, argv)
    torch.set_num_threads(1)
    work = Path(arguments.work) if arguments.work else None
    pool, test = Pool(*mnist("mnist_train60000.npz")), mnist("mnist_test10000.npz")

    def say(name: str, text: str, done: int, total: int) -> None:
        print(f"{name} {done}/{total} {text}", flush=True)

    torch.manual_seed(0)
    teacher = lenet_5()
    retrain(
        teacher,
        pool,
        [Phase(12, lr=2e-3)],
        checkpoint=work and work / "teacher",
        progress=lambda *row: say("teacher", *row),
    )
    pool.ask(teacher)
    rows = [measure(name, pool, test, work, say) for name in arguments.nets or NETS]
    show("LeNets on MNIST: retrained, whole file", rows, arguments.json, hidden=("layers",))


if __name__ == "__main__":
    main()
