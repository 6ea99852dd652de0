"""The table of TFLite operators: which rule converts each, and what becomes of every one of its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tvm_ergo.frontend.tflite.flat import Operator, default_options


@dataclass(frozen=True)
class Rule:
    """How one operator is converted.

    convert(converter, node) : emits Relax and stores the node's outputs. options : the schema's table, "" where it has
    none.
    handled : options whose every value is carried out or refused by the rule itself. without_meaning : options that
    change no result here, and why.
    refused : options of which only the schema's default is taken. So is any option that stands in no list: none is ever
    dropped."""

    code: str
    convert: Callable
    options: str = ""
    handled: tuple[str, ...] = ()
    without_meaning: Mapping[str, str] = field(default_factory=dict)
    refused: tuple[str, ...] = ()


RULES: dict[str, Rule] = {}


def operator(
    *codes: str,
    options: str = "",
    handled: str = "",
    without_meaning: Mapping[str, str] | None = None,
    refused: str = "",
):
    """Decorator: enter ``function(converter, node)`` as the rule of ``codes``; ``handled`` and ``refused`` name
    options, separated by blanks."""

    def enter(function):
        for code in codes:
            RULES[code] = Rule(
                code, function, options, tuple(handled.split()), dict(without_meaning or {}), tuple(refused.split())
            )
        return function

    return enter


def unhandled(rule: Rule, op: Operator) -> dict:
    """The options of ``op`` that its rule says nothing about and that differ from the schema's default."""
    if op.options_name == "NONE":
        return {}
    defaults = default_options(op.options_name)
    known = (*rule.handled, *rule.without_meaning) if op.options_name == rule.options else ()
    return {name: value for name, value in op.options.items() if name not in known and value != defaults[name]}


def option_values(rule: Rule, op: Operator) -> dict:
    """The operator's options, defaults where the file has no table."""
    return {**(default_options(rule.options) if rule.options else {}), **op.options}
