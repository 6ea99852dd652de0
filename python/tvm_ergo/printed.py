"""Text for people: names out of files may hold anything, a terminal's own commands among them."""

from __future__ import annotations

import html
import io
import re

from rich.console import Console
from rich.text import Text

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]")


class ClosedFile(io.TextIOBase):
    """In place of a standard file that was closed when the command began: takes everything, keeps nothing."""

    encoding = "utf-8"

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)


def printable(text: str) -> str:
    r"""``text`` with control characters as ``\x1b`` and the like, but for line ends and tabs; so are those that turn
    the direction of writing."""
    return _CONTROLS.sub(
        lambda found: f"\\x{ord(found[0]):02x}" if ord(found[0]) < 256 else f"\\u{ord(found[0]):04x}", text
    )


def plain(text: str) -> Text:
    """``text`` as it stands, on any console."""
    return Text(printable(text))


class SafeConsole(Console):
    """A console to which no name can say anything but itself: control characters are escaped, and square brackets are
    square brackets."""

    def __init__(self, **options):
        super().__init__(**{"highlight": False, "markup": False, "emoji": False, **options})

    def on_broken_pipe(self) -> None:
        """The reader went away: the command ends as with any other write to it, not with the code of a failure."""
        raise BrokenPipeError

    def render_str(self, text: str, **options) -> Text:
        return super().render_str(printable(text), **{**options, "markup": False, "emoji": False})


def html_text(text: str) -> str:
    """``text`` for a page: nothing of it is markup, and control characters are escaped."""
    return html.escape(printable(text))
