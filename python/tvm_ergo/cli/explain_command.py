"""What an error means, what usually causes it, what to type. The code is the first word of the message.

tvm-ergo explain OutOfMemoryError
tvm-ergo explain                     all codes, and the exit codes
"""

from __future__ import annotations

HELP = "what an error means, and what to do"


def add_arguments(parser) -> None:
    parser.add_argument("code", nargs="?", metavar="CODE", help="for instance OutOfMemoryError; without, the list")
    parser.add_argument("--json", metavar="FILE", help="write it as JSON ('-' for standard output)")


def run(arguments) -> int:
    import json
    from dataclasses import asdict

    from tvm_ergo.cli.common import check_result_paths, console, write_text
    from tvm_ergo.explain import ENTRIES, EXIT_CODES, explanation

    check_result_paths(arguments)
    if arguments.code is None:
        chosen = ENTRIES
    else:
        cls, entry = explanation(arguments.code)
        chosen = {cls: entry}
    told = {
        "errors": [{"code": cls.__name__, **asdict(entry)} for cls, entry in chosen.items()],
        "exit_codes": {str(code): text for code, text in EXIT_CODES.items()},
    }
    write_text(arguments.json, json.dumps(told, indent=1))
    if arguments.code is None:
        _print_list(console(arguments, 80), chosen, EXIT_CODES)
    else:
        _print_entry(console(arguments, 80), cls.__name__, entry)
    return 0


def _print_list(screen, entries, exit_codes) -> None:
    for cls, entry in entries.items():
        screen.print(f"{cls.__name__}\n  {entry.means}")
    screen.print("\nexit codes")
    for code, text in exit_codes.items():
        screen.print(f"  {code}  {text}")


def _print_entry(screen, name: str, entry) -> None:
    screen.print(f"{name}\n{entry.means}\n")
    for cause in entry.causes:
        screen.print(f"- {cause}")
    screen.print("")
    for command in entry.commands:
        screen.print(f"  {command}", soft_wrap=True)
