"""The training loop: phases one after another, distillation, progress, checkpoints after every epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from tvm_ergo.retrain import checkpoint as checkpoints
from tvm_ergo.retrain.activations import NAME, round_inputs
from tvm_ergo.retrain.phases import Phase
from tvm_ergo.retrain.structured import attach, density_of, structures
from tvm_ergo.target.errors import InputError

MASK_EVERY = 16
"""Batches between two looks at which weights are the largest."""


@dataclass
class History:
    """One row an epoch: phase, epoch, loss, density, seconds left out on purpose; ``score`` where ``evaluate`` was
    given."""

    rows: list[dict] = field(default_factory=list)


def retrain(
    module: nn.Module,
    loader: Iterable,
    phases: Sequence[Phase],
    *,
    loss: Callable = functional.cross_entropy,
    teacher: nn.Module | None = None,
    temperature: float = 3.0,
    taught: float = 0.7,
    evaluate: Callable[[nn.Module], float] | None = None,
    checkpoint: str | Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    seed: int = 0,
    optimizer: Callable = torch.optim.Adam,
) -> History:
    """Trains ``module`` in place through ``phases``; afterwards its weights are still parametrized (`structured.finish`
    makes them plain).

    Parameters
    ----------
    loader : gives ``(inputs, targets)`` batches, iterated once an epoch. loss : ``loss(outputs, targets)``, a scalar.
    teacher : a network whose outputs the module learns too (Hinton et al. 2015): ``taught`` of the loss is the
    divergence from its softened outputs, at ``temperature``. evaluate : a score after every epoch, for the history.
    checkpoint : folder; a run that was stopped goes on from its last whole epoch, to the same result as one that was
    not. seed : of everything random in an epoch that uses torch's generator (shuffling too). progress :
    ``progress(step, done, total)``.

    Errors: InputError (no phases, no layers, an empty loader, a checkpoint of another run, a loss that is no number).
    """
    if not phases:
        raise InputError("there is nothing to do", required="at least one Phase", remedy="give phases=[Phase(...)]")
    run = _Run(module, attach(module), loader, list(phases), loss, teacher, temperature, taught, optimizer, seed)
    folder = None if checkpoint is None else Path(checkpoint)
    if folder is not None:
        run.restore(checkpoints.load(folder, run.key))
    total = sum(phase.epochs for phase in phases)
    while run.done < total:
        run.epoch(evaluate)
        if folder is not None:
            checkpoints.save(folder, run.state())
        if progress:
            row = run.history.rows[-1]
            text = f"phase {row['phase'] + 1}, loss {row['loss']:.4f}, density {row['density']:.3f}" + (
                f", score {row['score']:.4g}" if "score" in row else ""
            )
            progress(text, run.done, total)
    return run.history


class _Run:
    def __init__(self, module, layers, loader, phases, loss, teacher, temperature, taught, optimizer, seed):
        self.module, self.layers, self.loader, self.phases, self.loss = module, layers, loader, phases, loss
        self.teacher = None if teacher is None else teacher.eval()
        self.temperature, self.taught, self.make, self.seed = temperature, taught, optimizer, seed
        self.done, self.history = 0, History()
        self.before: dict[str, float] = {}
        self.key = {
            "phases": [repr(p) for p in phases],
            "layers": [f"{n} {tuple(w.shape)}" for n, (_, w) in structures(module).items()],
            "seed": seed,
        }
        self.optimizer: torch.optim.Optimizer | None = None

    def place(self) -> tuple[int, int]:
        """Phase and epoch within it."""
        left = self.done
        for number, phase in enumerate(self.phases):
            if left < phase.epochs:
                return number, left
            left -= phase.epochs
        return len(self.phases), 0

    def state(self) -> dict:
        return {
            "key": self.key,
            "done": self.done,
            "module": self.module.state_dict(),
            "before": self.before,
            "rows": self.history.rows,
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: dict | None) -> None:
        if state is None:
            return
        for name, layer in self.layers.items():
            if f"{name}.{NAME}.bits" in state["module"]:
                round_inputs(layer, int(state["module"][f"{name}.{NAME}.bits"]))
        self.module.load_state_dict(state["module"])
        self.done, self.before, self.history = state["done"], state["before"], History(state["rows"])
        number, epoch = self.place()
        if epoch:
            self.optimizer = self._optimizer(self.phases[number])
            self.optimizer.load_state_dict(state["optimizer"])

    def _optimizer(self, phase: Phase) -> torch.optim.Optimizer:
        """Weights decay, codebooks do not."""
        books = {id(structure.codebook) for structure, _ in structures(self.module).values()}
        own = [p for p in self.module.parameters() if id(p) not in books and p.requires_grad]
        return self.make(
            [
                {"params": own, "weight_decay": phase.weight_decay},
                {"params": [p for p in self.module.parameters() if id(p) in books], "weight_decay": 0.0},
            ],
            lr=phase.lr,
        )

    def _begin(self, phase: Phase) -> None:
        """The structures of a phase, then its optimizer, as codebooks are parameters."""
        for name, layer in self.layers.items():
            if (bits := phase.of("activation_bits", name)) is not None:
                round_inputs(layer, int(bits))
        for name, (structure, weight) in structures(self.module).items():
            self.before[name] = float(structure.mask.float().mean())
            values, bits = phase.of("values", name), phase.of("bits", name)
            if values is not None:
                structure.cluster(weight, int(values))
            if bits is not None:
                structure.bits.fill_(int(bits))
        self.optimizer = self._optimizer(phase)

    def epoch(self, evaluate) -> None:
        number, epoch = self.place()
        phase = self.phases[number]
        torch.manual_seed(self.seed + 1000003 * self.done)  # whatever went before: a resumed run draws the same
        if epoch == 0:
            self._begin(phase)
        self.module.train()
        losses, batches = 0.0, _length(self.loader)
        for index, (inputs, targets) in enumerate(self.loader):
            share = (epoch + index / batches) / phase.epochs
            if index % MASK_EVERY == 0:
                self._mask(phase, share)
            for group in self.optimizer.param_groups:
                group["lr"] = phase.lr * (1 + math.cos(math.pi * min(share, 1.0))) / 2
            losses += self._step(inputs, targets)
        self._mask(phase, (epoch + 1) / phase.epochs)
        self.done += 1
        row = {"phase": number, "epoch": epoch, "loss": losses / batches, "density": density_of(self.module)}
        if evaluate is not None:
            self.module.eval()
            with torch.no_grad():
                row["score"] = float(evaluate(self.module))
        self.history.rows.append(row)

    def _mask(self, phase: Phase, share: float) -> None:
        for name, (structure, weight) in structures(self.module).items():
            density = phase.density_at(name, share, self.before[name])
            if density is not None:
                structure.keep_largest(weight, density, phase.block)

    def _step(self, inputs, targets) -> float:
        outputs = self.module(inputs)
        loss = self.loss(outputs, targets)
        if self.teacher is not None:
            with torch.no_grad():
                wanted = functional.softmax(self.teacher(inputs) / self.temperature, -1)
            divergence = functional.kl_div(
                functional.log_softmax(outputs / self.temperature, -1), wanted, reduction="batchmean"
            )
            loss = (1 - self.taught) * loss + self.taught * self.temperature**2 * divergence
        if not torch.isfinite(loss):
            raise InputError(
                "the loss is not a number any more",
                where=f"epoch {self.done}",
                remedy="a lower learning rate, or a slower ramp",
            )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


def _length(loader) -> int:
    try:
        count = len(loader)
    except TypeError:
        raise InputError(
            "the loader has no length",
            required="something like a torch DataLoader, which knows how many batches an epoch has",
        ) from None
    if not count:
        raise InputError("the loader is empty", required="at least one batch", remedy="give a loader with samples")
    return count
