"""Checkpoints of a retraining: one file, written under another name and renamed, so that a killed run leaves the last
whole one."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import torch

from tvm_ergo.files import write_atomically
from tvm_ergo.target.errors import InputError

NAME = "retrain.pt"


def save(folder: Path, state: dict) -> None:
    """Errors: OutputError."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(folder / NAME, buffer.getvalue())


def load(folder: Path, key: dict) -> dict | None:
    """The state saved last, None if there is none. key : what the run is; one of another run is refused. Errors:
    InputError."""
    path = folder / NAME
    if not path.exists():
        return None
    try:
        state = torch.load(path, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError) as error:
        raise InputError(
            "the checkpoint cannot be read",
            where=str(path),
            available=(str(error).splitlines() or [type(error).__name__])[0][:200],
            remedy="remove it to start again",
        ) from None
    if not isinstance(state, dict) or state.get("key") != key:
        raise InputError(
            "the checkpoint is of another run: its phases or layers are different",
            where=str(path),
            remedy="give another folder, or remove it to start again",
        )
    return state
