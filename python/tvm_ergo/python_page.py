"""The page docs/python.md, from the docstrings: ``python -m tvm_ergo.python_page > docs/python.md``."""

from __future__ import annotations

import inspect
import re

import tvm_ergo

HEAD = """# In Python

Printed by `python -m tvm_ergo.python_page` from the docstrings of what `import tvm_ergo` offers.
Errors are subclasses of `tvm_ergo.ErgoError`, whose text says what is wrong, where, what is required,
what is there, and what helps.
"""
WIDTH = 120
METHODS = {"CompiledModel": ("run", "run_float", "save", "load"), "CompressedNetwork": ("save",)}
"""Methods that are listed; all others of a class are for the product's own parts."""


def page() -> str:
    """Text of the whole page."""
    parts = [HEAD]
    for name in sorted(tvm_ergo.__all__, key=str.lower):
        item = getattr(tvm_ergo, name)
        parts.append(_entry(f"tvm_ergo.{name}", item))
        parts += [_entry(f"{name}.{m}", getattr(item, m), 3) for m in METHODS.get(name, ())]
    return "\n".join(parts)


def _entry(name: str, item, depth: int = 2) -> str:
    text = _described(inspect.getdoc(item) or "")
    return f"{'#' * depth} `{name}`\n\n```text\n{name}{_signature(item)}\n```\n\n{text}\n"


def _described(text: str) -> str:
    """A docstring as Markdown: names in backticks, parameters one a line, angle brackets escaped."""
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    text = re.sub(r"\n?(Parameters|Returns)\n-+\n", r"\n\1:\n\n", text)
    text = re.sub(r"^(\w[\w, *]*) : ", r"- **\1**: ", text, flags=re.M)
    return re.sub(r"\n{3,}", "\n\n", text.replace("<", "&lt;"))


def _signature(item) -> str:
    try:
        text = str(inspect.signature(item))
    except (TypeError, ValueError):
        return ""
    text = re.sub(r"<[^>]*object at 0x[0-9a-f]+>", "...", text)
    text = re.sub(r"tvm_ergo\.[\w.]*\.(\w+)", r"\1", text)
    lines = [""]
    for word in text.split(", "):
        lines[-1] += word + ", "
        if len(lines[-1]) > WIDTH - 40:
            lines.append("    ")
    return "\n".join(line.rstrip() for line in lines).rstrip(", ")


if __name__ == "__main__":
    print(page(), end="")
