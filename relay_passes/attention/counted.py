"""Which positions of a sample count: padding is computed like the rest, and no output depends on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import tvm

from tvm_ergo.relay_passes.attention.find import find_sites
from tvm_ergo.relay_passes.attention.masks import InputMask
from tvm_ergo.relay_passes.attention.rules import Attention
from tvm_ergo.relay_passes.relax_utils import main_of
from tvm_ergo.relay_passes.support import FunctionView


def counted_positions(mod: tvm.IRModule) -> Callable[[Mapping[str, np.ndarray]], np.ndarray] | None:
    """From a sample to bool [S]: the keys that its mask leaves. None for a network whose attention has no mask that
    comes from one input [1, S] and hides the same keys from every row."""
    for site in find_sites(FunctionView(main_of(mod))).values():
        for mask in site.scores.masks if isinstance(site, Attention) else ():
            length = mask.shape[-1] if isinstance(mask, InputMask) else 0
            if length and int(np.prod(mask.shape)) == length:
                return _of(str(mask.source.name), mask.valid, length)
    return None


def _of(name: str, valid: np.ndarray, length: int) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    def positions(sample: Mapping[str, np.ndarray]) -> np.ndarray:
        levels = np.clip(np.rint(np.asarray(sample[name], np.float64)), -128, 127).astype(int).reshape(-1)
        found = valid[levels + 128]
        return found if len(found) == length and found.any() else np.ones(length, bool)

    return positions


def for_rows(mod: tvm.IRModule) -> dict[str, object]:
    """Options of `micro.reconstruct.Reconstruct` for a network of rows."""
    return {"counted": counted_positions(mod)}
