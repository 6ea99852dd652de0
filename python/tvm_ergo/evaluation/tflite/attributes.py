"""Every option of every TFLite operator that is read, at other values than its default, against LiteRT: the page
docs/tflite_attributes.md.

``python -m tvm_ergo.evaluation.tflite.attributes`` writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import tvm_ergo
from tvm_ergo.evaluation.tflite.attribute_rows import ROWS, Row
from tvm_ergo.evaluation.tflite.reference import litert, steps_apart
from tvm_ergo.evaluation.tflite.situations import Network
from tvm_ergo.frontend import load
from tvm_ergo.frontend.tflite import flat
from tvm_ergo.frontend.tflite.registry import RULES
from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.target.errors import ErgoError

PAGE = "docs/tflite_attributes.md"
CLOSE = 2e-6
"""Relative difference of float results that count as the same: a few roundings."""


@dataclass(frozen=True)
class Result:
    """What became of one operator with one option at one value. kind: float32 or int8."""

    code: str
    attribute: str
    value: str
    kind: str
    result: str


def cases() -> Iterator[tuple[Row, str, object]]:
    """Rows with one option changed; an option's name begins with ``@`` where an input is meant."""
    for row in ROWS:
        yield row, "", None
        for attribute, values in row.tries.items():
            for value in values:
                yield row, attribute, value


def judged(row: Row, attribute: str, value, kind: str) -> str:
    """ "right", "within one step", "host: ...", "refused: ...", "LiteRT has none", or what is wrong."""
    network = Network([row.operator({attribute: value} if attribute else {})], seed=len(attribute))
    feeds = network.feeds(kind)
    try:
        data = network.data(kind)
        want = litert(data, feeds)
    except (RuntimeError, ValueError):
        want = None
    try:
        return _compared(data, feeds, want, kind) if want is not None else _without(network, kind)
    except ErgoError as error:
        return f"refused: {error.what}"


def _without(network: Network, kind: str) -> str:
    try:
        load(network.data(kind))
    except ErgoError as error:
        return f"refused, as LiteRT does: {error.what}"
    except (RuntimeError, ValueError):
        return "LiteRT has none"
    return "LiteRT has none; it is imported"


def _compared(data: bytes, feeds: dict, want: dict, kind: str) -> str:
    if kind == "float32":
        imported = load(data)
        given = [feeds[i.name] for i in imported.inputs] + [s.initial for s in imported.states]
        found = Interpreter(imported.mod).run(dict(zip(imported.parameters, given)))
        apart = steps_apart({o.name: v for o, v in zip(imported.outputs, found)}, want)
        return "right" if apart <= CLOSE else f"WRONG: {apart:.2g} of the range"
    compiled = tvm_ergo.compile(data)
    apart = steps_apart(compiled.run(feeds).outputs, want)
    said = "right" if apart == 0 else "within one step" if apart <= 1 else f"WRONG: {apart:.0f} steps"
    hosts = sorted({f.op for f in compiled.fallbacks})
    return f"{said}; host: {', '.join(hosts)}" if hosts else said


def results(only: Callable[[Row], bool] = lambda row: True) -> list[Result]:
    """All results, in the order of the table."""
    return [
        Result(row.code, attribute, "" if value is None else str(value), kind, judged(row, attribute, value, kind))
        for row, attribute, value in cases()
        if only(row)
        for kind in row.kinds
    ]


ELSEWHERE = ("VAR_HANDLE", "CALL_ONCE", "CALL", "IF")
"""Operators of more than one subgraph: tests/frontend/tflite/test_states.py runs them."""


def unlisted() -> list[str]:
    """Options that a rule handles and no row tries."""
    tried = {(row.code, attribute) for row in ROWS for attribute in row.tries} | {
        (code, option) for code in ELSEWHERE for option in RULES[code].handled
    }
    return [
        f"{code}.{option}" for code, rule in RULES.items() for option in rule.handled if (code, option) not in tried
    ]


_HEAD = """# TFLite operators and their options

Written by `python -m tvm_ergo.evaluation.tflite.attributes`; do not edit. Every operator of the importer is run with each of its options (and of the inputs that
work like options, marked `@`) at the values listed, as a float file and as an int8 file, against LiteRT's built-in kernels.

- **right**: the same numbers (float: but for rounding); **within one step**: of the int8 output; **host**: right or within one step, and the named part runs on the host CPU;
- **refused**: the compiler says so, with the operator, the option and its value; nothing is dropped: an option that no rule reads is refused unless it has its default;
- **LiteRT has none**: its kernels do not run this form.
"""


def page(found: list[Result]) -> str:
    """The Markdown of the page."""
    lines = [_HEAD, "| operator | option | value | float | int8 |", "|---|---|---|---|---|"]
    rows: dict[tuple, dict] = {}
    for r in found:
        rows.setdefault((r.code, r.attribute, r.value), {})[r.kind] = r.result
    for (code, attribute, value), by_kind in rows.items():
        cells = [by_kind.get(kind, "-").replace("|", "/") for kind in ("float32", "int8")]
        lines.append(f"| {code} | {attribute} | {value.replace('|', '/')} | {cells[0]} | {cells[1]} |")
    lines += ["", "## Options that change no result here", "", "| operator | option | why |", "|---|---|---|"]
    lines += [
        f"| {code} | {option} | {why} |" for code, rule in RULES.items() for option, why in rule.without_meaning.items()
    ]
    refused = [(code, option) for code, rule in RULES.items() for option in rule.refused]
    lines += [
        "",
        "## Options refused at any other value than their default",
        "",
        *(f"- {code}: {option}" for code, option in refused),
    ]
    lines += [
        "",
        "## Operators without options",
        "",
        ", ".join(c for c, r in RULES.items() if not r.options or not flat.default_options(r.options)) + ".",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    root = next(p for p in Path(__file__).resolve().parents if (p / PAGE).parent.is_dir() and (p / "setup.py").exists())
    (root / PAGE).write_text(page(results()))
