"""The chip as a TVM target: tags ``ergo``, ``ergo/1``, ``ergo/2``, and targets of a user's own chip.

Target kinds exist in C++ only, so a chip is a tag over the kind ``ext_dev``; every such target has ``"ergo"`` among its
keys, and that is what this backend dispatches on (``Target("ergo").tag`` is empty). The option ``device`` names the
chip; the option ``model`` is JSON with the keys ``memory-bytes`` (int, bytes of unified memory) and ``chip`` (a whole
chip description). ``Target({"tag": "ergo", "model": '{"memory-bytes": 65536}'})`` overrides one instance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tvm_ergo.target.errors import TargetError
from tvm_ergo.target.limits import parsed_json

if TYPE_CHECKING:
    from tvm.target import Target

    from tvm_ergo.target.chip import Chip

KEY = "ergo"
DEFAULT_CHIP = "ergo/1"
TAGS = {"ergo": DEFAULT_CHIP, "ergo/1": "ergo/1", "ergo/2": "ergo/2"}
"""Tag -> chip it means."""

_MODEL_KEYS = ("chip", "memory-bytes")


def _config(device: str, model: dict) -> dict:
    return {"kind": "ext_dev", "keys": [KEY], "device": device, "host": {"kind": "llvm"}, "model": json.dumps(model)}


def register_tags() -> None:
    """Registers every tag of `TAGS` with TVM. Idempotent."""
    from tvm.target import register_tag

    for tag, name in TAGS.items():
        register_tag(tag, _config(name, {}), override=True)


def is_ergo(target: Target | None) -> bool:
    """Whether ``target`` is one of ours."""
    return target is not None and KEY in target.keys


def target_of_chip(chip: Chip) -> Target:
    """The TVM target of a chip value; it carries the whole description, so no file is needed later."""
    from tvm.target import Target

    # the device name becomes a key of the target; the description itself is in ``model``
    return Target(_config(chip.name, {"chip": chip.to_json()}))


def target_from_file(path: str | Path) -> Target:
    """A TVM target of the chip described in ``path`` (JSON, the form of ``target/chips/*.json``).

    Errors: TargetError if the file does not describe a chip.
    """
    from tvm_ergo.target.chip import load_chip

    return target_of_chip(load_chip(path))


def chip_of_target(target: Target | str | Path | Chip) -> Chip:
    """The chip that a TVM target, a tag, a chip file or a chip stands for, with the instance's overrides applied.

    Errors: TargetError for an unknown tag, a target of another backend, or an option that is not understood.
    """
    from tvm_ergo.target.chip import Chip, load_chip

    if isinstance(target, Chip):
        return target
    if isinstance(target, Path) or (isinstance(target, str) and target.endswith(".json")):
        return load_chip(target)
    target = as_target(target)
    if not is_ergo(target):
        raise TargetError(
            f"target {target.kind.name} is not an Ergo chip",
            required=f"one of {', '.join(TAGS)}, or a chip file",
            remedy="tvm_ergo.target_from_file(path) makes a target of a chip file",
        )
    return _chip_of_options(dict(target.attrs))


def _chip_of_options(attrs: dict) -> Chip:
    from tvm_ergo.target.chip import Chip, chip

    model = _parse_model(str(attrs.get("model", "{}")))
    described = model.get("chip")
    if described is not None and not isinstance(described, (dict, str)):
        raise TargetError(f"chip must be a chip's name or description, got {described!r}", where="target option model")
    if isinstance(described, dict):
        made = Chip.from_json(described, "target option model")
    else:
        made = chip(str(described or attrs.get("device", DEFAULT_CHIP)))
    memory_bytes = model.get("memory-bytes")
    if memory_bytes is None:
        return made
    if not isinstance(memory_bytes, int) or isinstance(memory_bytes, bool) or memory_bytes <= 0:
        raise TargetError(f"memory-bytes must be a positive integer, got {memory_bytes!r}", where="target option model")
    return made.with_memory(memory_bytes)


def _parse_model(text: str) -> dict:
    try:
        model = parsed_json(text)
    except ValueError as error:
        raise TargetError(
            f"target option model is not JSON: {error}", where=text[:200], remedy='for example {"memory-bytes": 65536}'
        ) from None
    unknown = sorted(set(model) - set(_MODEL_KEYS)) if isinstance(model, dict) else [text]
    if unknown:
        raise TargetError(
            f"target option model has unknown keys: {', '.join(unknown)}",
            required=f"keys among {', '.join(_MODEL_KEYS)}",
        )
    return model


def as_target(target: Target | str) -> Target:
    """A tag or a target as a TVM Target.

    Errors: TargetError for a string that names none.
    """
    from tvm.target import Target

    if isinstance(target, Target):
        return target
    try:
        return Target(target)
    except (ValueError, TypeError) as error:
        raise TargetError(
            f"unknown target {target!r}",
            required=f"one of {', '.join(TAGS)}, or the path of a chip file (.json)",
            remedy="`tvm-ergo targets ergo/1 --json mine.json` writes a chip file to start from",
        ) from error
