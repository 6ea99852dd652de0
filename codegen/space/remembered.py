"""What searches keep for the next one in the same process: figures of runs of layers, and the last plans decided.

One compilation asks the same several times: does it fit, what would compression gain, carry it out; and a graph with
codecs is the plain one but for some nodes. Nothing of it changes a result: figures are functions of their keys, and
plans of equal graphs are equal."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

from tvm_ergo.codegen.options import Options
from tvm_ergo.target.chip import Chip

T = TypeVar("T")
PLANS = 32
_plans: OrderedDict[Hashable, object] = OrderedDict()
_lock = threading.Lock()  # of _plans; held for no search


@lru_cache(maxsize=4)
def footprints(chip: Chip, options: Options) -> dict[tuple, tuple | None]:
    """The figures of elements (`Elements`) by signature, one table for a chip and options. chip : as `costs_only` gives
    it."""
    return {}


def costs_only(chip: Chip) -> Chip:
    """Equal for chips on which the same instructions cost the same, whatever memory they have."""
    return replace(chip, memory_bytes=1, sources={})


def remembered(key: Hashable, make: Callable[[], T]) -> T:
    """``make()``, or what it gave for an equal key before, if that is among the last ones."""
    with _lock:
        if key in _plans:
            _plans.move_to_end(key)
            return _plans[key]
    made = make()
    with _lock:
        found = _plans.setdefault(key, made)
        _plans.move_to_end(key)
        while len(_plans) > PLANS:
            _plans.popitem(last=False)
    return found


def forget() -> None:
    """Nothing is kept any more."""
    with _lock:
        _plans.clear()
    footprints.cache_clear()
