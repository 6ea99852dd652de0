"""What a wrong option or command is answered: one short message with the nearest right one, exit code 2."""

from __future__ import annotations

import argparse
import difflib
import re
import sys


class OverviewFormatter(argparse.RawDescriptionHelpFormatter):
    """Without argparse's own list of commands: the description behind has them in groups."""

    def _iter_indented_subactions(self, action):
        return iter(()) if isinstance(action, argparse._SubParsersAction) else super()._iter_indented_subactions(action)


class Parser(argparse.ArgumentParser):
    """argparse's parser with the product's own messages in place of its page of usage."""

    def error(self, message: str):
        sys.stderr.write(f"tvm-ergo: InputError: {message}\n{self._where()}  remedy: {self._remedy(message)}\n")
        sys.exit(2)

    def parse_args(self, args=None, namespace=None):
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            self._commands()[found.command].unknown(rest)
        return found

    def unknown(self, rest: list[str]):
        """Ends with what ``rest`` might have meant; rest : arguments that belong to no option."""
        options = [o for action in self._actions for o in action.option_strings]
        first = next((word.partition("=")[0] for word in rest if word.startswith("-")), None)
        if first is None:
            self.error(f"too many arguments: {' '.join(rest)}")
        near = difflib.get_close_matches(first, options, 1, 0.6)
        meant = f"did you mean {near[0]}? " if near else ""
        sys.stderr.write(
            f"tvm-ergo: InputError: there is no option {first}\n{self._where()}"
            f"  remedy: {meant}{self.prog} --help lists all options\n"
        )
        sys.exit(2)

    def _where(self) -> str:
        return f"  where: {self.prog}\n" if self.prog != "tvm-ergo" else ""

    def _remedy(self, message: str) -> str:
        chosen = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        near = difflib.get_close_matches(chosen[1], re.findall(r"'([^']*)'", chosen[2]), 1, 0.5) if chosen else []
        return (f"did you mean {near[0]}? " if near else "") + f"{self.prog} --help lists what there is"

    def _commands(self) -> dict[str, Parser]:
        return next(a.choices for a in self._actions if isinstance(a, argparse._SubParsersAction))
