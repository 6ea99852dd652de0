"""Looking into a compile: how long every stage takes, what it leaves, and stopping after one.

    with tvm_ergo.watch_stages(stop_after="partition") as watch:
        tvm_ergo.compile("net.onnx", calibration=images)
    print(watch.module.script())

The same as ``ERGO_DEBUG=1`` to ``4`` (docs/environment.md) and the options ``--time-stages``, ``--print-after`` and
``--stop-after`` of ``tvm-ergo compile``. TVM's own pass instruments see every stage as a pass of the name
``ergo.STAGE``.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

import tvm
from tvm import relax

from tvm_ergo.printed import printable
from tvm_ergo.relay_passes.relax_utils import Constant, array_of
from tvm_ergo.target.environment import debug_level
from tvm_ergo.target.errors import InputError, ModelError

OPERATORS = 6
"""As many kinds of operators a line of level 2 names, the most frequent first."""


class StoppedAfter(Exception):
    """Raised within `watch_stages`, which ends on it: the stage asked for is done."""


@dataclass
class StageWatch:
    """What a compile does, stage by stage.

    stop_after : name of the stage after which it ends, None for the last. print_after : stages whose module is printed.
    level : as ``ERGO_DEBUG``. tell : takes the lines. seconds : of every stage so far, summed over repetitions.
    module : after the last stage that was run; None before."""

    stop_after: str | None = None
    print_after: frozenset[str] = frozenset()
    level: int = 0
    tell: Callable[[str], None] = lambda line: print(printable(line), file=sys.stderr)
    seconds: dict[str, float] = field(default_factory=dict)
    module: tvm.IRModule | None = None

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Adds what the body takes to the step's seconds."""
        start, token = time.perf_counter(), _current.set(StageWatch())  # a stage's own trials are not stages
        try:
            yield
        finally:
            _current.reset(token)
            took = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + took
            if self.level >= 1:
                self.tell(f"{name}: {took:.3f} s")

    def left(self, name: str, mod: tvm.IRModule) -> None:
        """Looks at what a stage left. Errors: StoppedAfter; ModelError of a module that is not well formed (level
        4)."""
        self.module = mod
        if self.level >= 2:
            self.tell(f"{name} left {described(mod)}")
        if self.level >= 3 or name in self.print_after:
            self.tell(f"# after {name}\n{mod.script()}")
        if self.level >= 4:
            _check_well_formed(name, mod)
        if name == self.stop_after:
            raise StoppedAfter(name)


_current: ContextVar[StageWatch | None] = ContextVar("tvm_ergo_stage_watch", default=None)


def current() -> StageWatch:
    """The watch of the surrounding `watch_stages`, else one of the environment's level that nobody else sees."""
    return _current.get() or StageWatch(level=debug_level())


@contextlib.contextmanager
def watch_stages(
    *, stop_after: str | None = None, print_after: Collection[str] = (), level: int | None = None
) -> Iterator[StageWatch]:
    """A `StageWatch` of all that is compiled within, in this thread.

    Parameters
    ----------
    stop_after : stage after which the compile ends, and the ``with`` block with it, without an error; ``module`` is
    what it left. print_after : stages whose module is printed on standard error. level : 0 to 4, as ``ERGO_DEBUG``,
    which holds where it is None.

    Errors: InputError for a name that is no stage, or a level that is none.
    """
    from tvm_ergo.pipeline import STAGES

    names = [stage.name for stage in STAGES]
    printed = frozenset([print_after] if isinstance(print_after, str) else print_after)
    for name in sorted(printed | ({stop_after} if stop_after is not None else set()), key=str):
        if name not in names:
            raise InputError(f"there is no stage {name!r}", available=", ".join(names), remedy="name one of these")
    if level is not None and (isinstance(level, bool) or level not in range(5)):
        raise InputError(f"there is no debug level {level!r}", available="0 to 4", remedy="name one of these")
    watch = StageWatch(stop_after, printed, debug_level() if level is None else level)
    token = _current.set(watch)
    try:
        yield watch
    except StoppedAfter:
        pass
    finally:
        _current.reset(token)


def _check_well_formed(name: str, mod: tvm.IRModule) -> None:
    """Errors: ModelError with TVM's reason."""
    try:
        relax.analysis.well_formed(mod)
    except Exception as error:
        raise ModelError(
            f"the stage {name} left a module that is not well formed",
            available=str(error).strip().splitlines()[-1],
            remedy="report this as a bug",
        ) from error


def described(mod: tvm.IRModule) -> str:
    """One line: functions, operators by frequency, bytes of constants."""
    operators: Counter[str] = Counter()
    constant_bytes = 0

    def visit(expr) -> None:
        nonlocal constant_bytes
        if isinstance(expr, relax.Call):
            operators[getattr(expr.op, "name", None) or getattr(expr.op, "name_hint", "call")] += 1
        elif isinstance(expr, Constant) and hasattr(expr.value, "shape"):
            constant_bytes += array_of(expr).nbytes

    functions = [func for _, func in mod.functions_items()]
    for func in functions:
        if isinstance(func, relax.Function):
            relax.analysis.post_order_visit(func, visit)
    listed = ", ".join(f"{name} {count}" for name, count in operators.most_common(OPERATORS))
    rest = sum(operators.values()) - sum(count for _, count in operators.most_common(OPERATORS))
    listed += f" and {rest} more" if rest else ""
    kinds = Counter("PrimFunc" if not isinstance(f, relax.Function) else "function" for f in functions)
    heads = ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in sorted(kinds.items()))
    return f"{heads}; calls: {listed or 'none'}; {constant_bytes:,} bytes of constants"
