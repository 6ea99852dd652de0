"""``torch.export`` archives, up to where PyTorch's own reader gets what was checked of them.

Only what is ours is run: the reader takes a cleaned archive, and would crash or refuse by itself."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from pathlib import Path

import torch

from fuzz import mutate
from fuzz.engine import Target
from tvm_ergo.frontend import torch_archive
from tvm_ergo.target.errors import ModelError

FILE = Path(tempfile.mkdtemp(prefix="ergo-fuzz-")) / "net.pt2"


class _Stopped(Exception):
    """Where PyTorch's reader would begin."""


def _stop(*_):
    raise _Stopped


def seeds() -> list[bytes]:
    torch.manual_seed(0)
    nets = [
        (torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten()), torch.zeros(1, 3, 8, 8)),
        (torch.nn.Linear(5, 3), torch.zeros(2, 5)),
    ]
    found = []
    for module, example in nets:
        file = io.BytesIO()
        torch.export.save(torch.export.export(module.eval(), (example,)), file)
        found.append(file.getvalue())
    return found


def change(rng, seed: bytes, other: bytes) -> bytes:
    if rng.random() < 0.3:
        return mutate.some_bytes(rng, seed, other)
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(seed)) as archive, zipfile.ZipFile(made, "w") as target:
        names = archive.namelist()
        chosen = rng.choice([n for n in names if n.endswith(".json")] if rng.random() < 0.8 else names)
        for name in names:
            data = archive.read(name)
            if name == chosen and name.endswith(".json"):
                data = json.dumps(mutate.json_value(rng, json.loads(data))).encode("utf-8", "replace")
            elif name == chosen:
                data = mutate.some_bytes(rng, data)
            target.writestr(name if name != chosen or rng.random() < 0.9 else name[: rng.randrange(1, len(name))], data)
    return made.getvalue()


def run(data: bytes) -> None:
    FILE.write_bytes(data)
    load, torch.export.load = torch.export.load, _stop
    try:
        torch_archive.read(FILE)
    except ModelError as error:
        if not isinstance(error.__cause__, _Stopped):
            raise
    finally:
        torch.export.load = load


TARGET = Target(seeds, change, run)
