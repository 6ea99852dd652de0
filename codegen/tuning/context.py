"""TVM's tuning context without what it imports first. The private part of MetaSchedule this product leans on is used
here only."""

from __future__ import annotations

import logging

import tvm
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule import _ffi_api
from tvm.s_tir.meta_schedule.logging import get_logging_func
from tvm.s_tir.meta_schedule.tune_context import TuneContext
from tvm.s_tir.schedule import _ffi_api as _schedule

LOGGER = logging.getLogger("tvm_ergo.tuning")


def tune_context(
    mod: tvm.IRModule,
    target: tvm.target.Target,
    space: ms.SpaceGenerator,
    strategy: ms.SearchStrategy,
    name: str,
    seed: int,
) -> TuneContext:
    """What ``TuneContext(...)`` makes, on one thread: several would draw from one sequence of random numbers in an
    order nobody knows.

    Its constructor imports 248 intrinsics of other vendors' chips first, which takes half a minute and is not needed
    here."""
    context = TuneContext.__new__(TuneContext)
    context.__init_handle_by_constructor__(
        _ffi_api.TuneContext, mod, target, space, strategy, name, 1, seed, get_logging_func(LOGGER)
    )
    _ffi_api.TuneContextInitialize(context)
    return context


def unannotated(sch: Schedule, block: str, keys: list[str]) -> None:
    """Removes annotations of a block. As ``Schedule.unannotate``, whose checks of types in Python take most of the time
    of a postprocessor."""
    found = _schedule.ScheduleGetSBlock(sch, block, "main")
    for key in keys:
        _schedule.ScheduleUnannotate(sch, found, key)
