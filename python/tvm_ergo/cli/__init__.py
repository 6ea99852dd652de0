"""The command ``tvm-ergo``: a module ``NAME_command`` for each of ``COMMANDS``.

Exit codes: 0 done, 1 a condition of --fail-if holds, 2 wrong input of any kind (one clear message on stderr, no
traceback), 130 interrupted.
"""

from __future__ import annotations

import argparse
import difflib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context

from tvm_ergo.cli.stray import without_stray_warnings
from tvm_ergo.cli.usage import OverviewFormatter, Parser
from tvm_ergo.printed import ClosedFile, printable

GROUPS = {
    "does it fit, and what does it cost": ("card", "report", "compare", "explore", "eval"),
    "make it fit": ("compile", "compress", "tune", "worker"),
    "use it": ("run", "generate", "export-c", "disasm"),
    "look up": ("targets", "ops", "explain", "schema"),
    "shells and agents": ("completion", "serve-mcp"),
}
"""The commands, in the order of ``--help``."""
COMMANDS = tuple(name for names in GROUPS.values() for name in names)


def build_parser() -> argparse.ArgumentParser:
    from importlib import import_module

    modules = {name: import_module(f"tvm_ergo.cli.{name.replace('-', '_')}_command") for name in COMMANDS}
    parser = Parser(
        prog="tvm-ergo",
        description="Trained networks inside the memory and the power of an edge chip, which is assumed and emulated.",
        epilog=_overview({name: module.HELP for name, module in modules.items()}),
        formatter_class=OverviewFormatter,
    )
    parser.add_argument("--version", action="version", version=_version())
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", help="see below")
    for name, module in modules.items():
        sub = subparsers.add_parser(
            name, help=module.HELP, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return parser


def _overview(helps: dict[str, str]) -> str:
    """The commands by what they are for, a line each."""
    lines = []
    for title, names in GROUPS.items():
        lines += [f"{title}:", *(f"  {name:<11}{helps[name]}" for name in names), ""]
    return "\n".join([*lines, "tvm-ergo COMMAND --help shows its options; ergo.toml may hold those that are repeated."])


def main(argv: list[str] | None = None) -> int:
    _open_standard_files()
    with _ctrl_c() as pressed:
        try:
            with without_stray_warnings():
                code = _run(argv)
            sys.stdout.flush()  # a full disk is noticed here, and not when nobody can say so any more
            return code
        except BrokenPipeError:  # the reader (head, less) went away: not our error
            _silence()
            sys.stderr.close()
            return 0
        except OSError as error:
            if pressed():
                return _interrupted()
            _say(
                f"tvm-ergo: OutputError: the system refused to read or write: {error.strerror or error}\n"
                f"  where: {error.filename or 'standard output'}\n  remedy: look for free space and for permissions"
            )
            _silence()
            return 2
        except (KeyboardInterrupt, Exception) as error:
            if (
                isinstance(error, KeyboardInterrupt) or pressed()
            ):  # modules that are being imported turn it into errors of their own
                return _interrupted()
            raise


def _open_standard_files() -> None:
    """In place of those that were closed (``>&-``), the null device: the next file opened would take their number, and
    get what libraries print. Results that were asked for there are refused (`common.check_result_paths`)."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, ClosedFile())


def _interrupted() -> int:
    _say("tvm-ergo: interrupted")
    return 130


def _say(text: str) -> None:
    """On standard error, where that takes anything."""
    with suppress(OSError):
        print(printable(text), file=sys.stderr, flush=True)


def _silence() -> None:
    """What is left in standard output's buffer goes nowhere: the interpreter would try once more at its end, and say so
    in a traceback."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _run(argv: list[str] | None) -> int:
    from tvm_ergo.cli.configuration import configured
    from tvm_ergo.target.errors import ErgoError
    from tvm_ergo.target.limits import model_bytes_limit

    try:
        arguments = configured(build_parser(), argv)
        _check_model_file(arguments)
        with model_bytes_limit(getattr(arguments, "max_model_bytes", None)):
            return copy_context().run(arguments.run, arguments) or 0  # what it notes of itself ends with it
    except ErgoError as error:
        name = type(error).__name__
        more = f"\n  more: tvm-ergo explain {name}" if sys.stderr.isatty() else ""  # for people; logs stay short
        _say(f"tvm-ergo: {name}: {error}{more}")
        return 2


def _check_model_file(arguments: argparse.Namespace) -> None:
    """A model file that is not there is said at once: what reads models takes seconds to import. Errors: ModelError."""
    for name in ("model", "other"):
        _check_file(getattr(arguments, name, None))


def _check_file(model: str | None) -> None:
    is_file = isinstance(model, str) and (
        os.path.splitext(model)[1] or os.sep in model
    )  # else it may name a built-in task
    if is_file and not os.path.exists(model):
        from tvm_ergo.target.errors import ModelError

        raise ModelError(
            "there is no such model file",
            where=model,
            available=_beside(model),
            remedy="check the path" + ("" if os.path.isabs(model) else f"; it is looked for in {os.getcwd()}"),
        )


def _beside(path: str) -> str | None:
    """The file of the same folder whose name is nearest, in words; None where none is near."""
    folder, name = os.path.split(path)
    with suppress(OSError):
        near = difflib.get_close_matches(name, os.listdir(folder or "."), 1, 0.7)
        return f"{os.path.join(folder, near[0])} is there" if near else None


@contextmanager
def _ctrl_c() -> Iterator[Callable[[], bool]]:
    """Yields whether Ctrl-C was pressed; it raises KeyboardInterrupt as ever."""
    pressed = threading.Event()
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield pressed.is_set
        return

    def press(number, frame) -> None:
        pressed.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _version() -> str:
    from tvm_ergo import __version__

    return f"tvm-ergo {__version__}"


if __name__ == "__main__":
    sys.exit(main())
