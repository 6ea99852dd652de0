"""The name under which servers register: equal for installations whose figures are equal."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

PARTS = ("tvm_ergo.target", "tvm_ergo.codegen", "tvm_ergo.relay_passes")
"""What decides about a Program and its figures."""
SUFFIXES = (".py", ".json")


@lru_cache(maxsize=1)
def compiler_key() -> str:
    """``ergo-VERSION-DIGEST``: the version, and the contents of what plans, lowers and prices. A tree that was edited
    has another key."""
    from tvm_ergo import __version__

    digest = hashlib.sha256()
    for part in PARTS:
        root = Path(find_spec(part).origin).parent
        for file in sorted(path for path in root.rglob("*") if path.suffix in SUFFIXES):
            digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return f"ergo-{__version__}-{digest.hexdigest()[:12]}"
