"""``tvm-ergo``: compile, compress, run, eval, report, explore, tune, worker, disasm, targets, ops.

Exit codes: 0 done, 2 wrong input of any kind (one clear message on stderr, no traceback), 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys

from tvm_ergo.target.errors import ErgoError

COMMANDS = ("compile", "compress", "run", "eval", "report", "explore", "tune", "worker", "disasm", "targets", "ops")


def build_parser() -> argparse.ArgumentParser:
    from importlib import import_module

    parser = argparse.ArgumentParser(prog="tvm-ergo", description="Trained networks inside the memory and the power of an edge chip.")
    parser.add_argument("--version", action="version", version=_version())
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = import_module(f"tvm_ergo.cli.{name}_command")
        sub = subparsers.add_parser(name, help=module.HELP, description=module.__doc__,
                                    formatter_class=argparse.RawDescriptionHelpFormatter)
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return parser


def main(argv: list[str] | None = None) -> int:
    try:
        arguments = build_parser().parse_args(argv)
        return arguments.run(arguments) or 0
    except ErgoError as error:
        print(f"tvm-ergo: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("tvm-ergo: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader (head, less) went away: not our error
        sys.stderr.close()
        return 0


def _version() -> str:
    from tvm_ergo import __version__

    return f"tvm-ergo {__version__}"


if __name__ == "__main__":
    sys.exit(main())
