"""Options that are repeated stand in ``ergo.toml`` of the folder a command is typed in: a table a command, and
``[all]`` for every command that has the option. What is typed goes before the file.

    [all]
    target = "ergo/2"
    [compile]
    memory = "512KiB"
    strict = true
    input-shape = ["input=1,3,224,224"]

Where options come from a file, one line on standard error says so. A value is read as if it had been typed: the file
runs nothing."""

from __future__ import annotations

import argparse
import difflib
import sys
import tomllib
from pathlib import Path

FILE = "ergo.toml"
ALL = "all"
LARGEST_BYTES = 1 << 20


def configured(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """What was typed, completed from the file where there is one. Errors: InputError for a file that is no TOML, or
    names what no command has."""
    words = sys.argv[1:] if argv is None else list(argv)
    path = Path(FILE)
    if not path.is_file() or not words or words[0] not in (commands := parser._commands()):
        return parser.parse_args(words)
    tables = _tables(path, commands)
    command = commands[words[0]]
    compiled = any(
        word.endswith(".ergo") and not _takes_next(command, before) for before, word in zip(words, words[1:])
    )
    typed = {option for word in words[1:] for option in [_action(command, word)] if option is not None}
    extra, told = [], []
    for table in (ALL, words[0]):
        for name, value in tables.get(table, {}).items():
            action = _option(command, name)
            if action is None or action in typed or (compiled and _only_compiling(action)):
                continue
            extra += _typed(action, value, f"{FILE}, [{table}] {name}")
            told.append(name)
    if told:
        print(f"tvm-ergo: from {FILE}: {', '.join(dict.fromkeys(told))}", file=sys.stderr)
    return parser.parse_args([words[0], *extra, *words[1:]])


def _tables(path: Path, commands: dict) -> dict[str, dict]:
    from tvm_ergo.target.errors import InputError

    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise ValueError(f"it has more than {LARGEST_BYTES} bytes")
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{FILE} cannot be read: {error}", where=str(path), remedy=f"correct it, or take {FILE} out of this folder"
        ) from None
    for table, values in tables.items():
        if not isinstance(values, dict):
            raise InputError(f"{FILE} has an option outside of a table", where=table, remedy=f"put it below [{ALL}]")
        if table != ALL and table not in commands:
            raise _unknown(f"no command is called {table}", table, [ALL, *commands])
        those = [commands[table]] if table != ALL else list(commands.values())
        for name in values:
            if not any(_option(command, name) for command in those):
                options = [o[2:] for c in those for a in c._actions for o in a.option_strings if o.startswith("--")]
                raise _unknown(f"[{table}] has no option {name}", name, options)
    return tables


def _unknown(what: str, name: str, known: list[str]):
    from tvm_ergo.target.errors import InputError

    near = difflib.get_close_matches(name, known, 1, 0.5)
    remedy = f"did you mean {near[0]}? " if near else ""
    return InputError(what, where=FILE, remedy=f"{remedy}tvm-ergo COMMAND --help lists the options, without the dashes")


def _option(command: argparse.ArgumentParser, name: str) -> argparse.Action | None:
    action = command._option_string_actions.get(f"--{name}")
    return None if action is None or isinstance(action, (argparse._HelpAction, argparse._VersionAction)) else action


def _action(command: argparse.ArgumentParser, word: str) -> argparse.Action | None:
    """The option a typed word is."""
    return command._option_string_actions.get(word.partition("=")[0]) if word.startswith("-") else None


def _takes_next(command: argparse.ArgumentParser, word: str) -> bool:
    """Whether the word behind belongs to this one: an option with a value."""
    action = _action(command, word)
    return action is not None and action.nargs != 0 and "=" not in word


def _only_compiling(action: argparse.Action) -> bool:
    """Compiled models do not change any more: what a file says of compiling does not concern them."""
    from tvm_ergo.cli.models import COMPILE_OPTIONS

    return action.dest in COMPILE_OPTIONS


def _typed(action: argparse.Action, value, where: str) -> list[str]:
    """The words that would have been typed. Errors: InputError for a value of another kind than the option takes."""
    from tvm_ergo.target.errors import InputError

    option = max(action.option_strings, key=len)
    flag = action.nargs == 0
    values = value if isinstance(value, list) and not flag else [value]
    kinds = bool if flag else (str, int, float)
    if any(not isinstance(v, kinds) or (not flag and isinstance(v, bool)) for v in values):
        wanted = "true or false" if flag else "a text or a number"
        raise InputError(
            "a value of another kind than the option takes",
            where=where,
            required=wanted,
            available=str(value),
            remedy=f"{option.removeprefix('--')} = {'true' if flag else '...'}",
        )
    if flag:
        return [option] if value else []
    if len(values) > 1 and not isinstance(action, argparse._AppendAction) and action.nargs in (None, "?"):
        raise InputError("an option that takes one value has several", where=where, remedy="leave one of them")
    if isinstance(action, argparse._AppendAction) or action.nargs in (None, "?"):
        return [f"{option}={v}" for v in values]
    return [option, *map(str, values)]
