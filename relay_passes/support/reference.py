"""Writes ``docs/supported_operators.md`` from the rules.

``python -m tvm_ergo.relay_passes.support.reference > docs/supported_operators.md``
"""

from __future__ import annotations

from tvm_ergo.relay_passes.support.rule import RULES, Rule

_HEAD = """# Supported operators

Written from the support rules by `python -m tvm_ergo.relay_passes.support.reference`; do not edit.

What the table below does not cover runs on the host CPU through TVM and is listed in the report with the reason and the
remedy; with `--strict` it is refused instead. Names are those of Relax, TVM's graph language; ONNX and TFLite operators reach
them through the importers. Convolutions and pooling over one axis (`conv1d`, `max_pool1d`, ...) run as those over two, of height 1. Groups carrying the quantization through have the scale of their input; all others get one of their own.

**16-bit activations** (TFLite int16x8, ONNX QDQ with QuantizeLinear to int16 or uint16): those operators run on the chip that have an
`ergo.*_16` in their line, and all data movement without interpolation; weights are int8, biases fit int32 (an int64 bias of TFLite is read). All others of 16 bits
run on the host, named with the reason.

"""


def sentence(text: str | None) -> str:
    return " ".join((text or "").split())


def describe(rule: type[Rule]) -> list[str]:
    """The section of one rule."""
    lines = [f"## {rule.__name__}", "", sentence(rule.__doc__), ""]
    lines.append(f"- Operators: {', '.join(f'`{op}`' for op in rule.ops)}")
    carries = "; quantization carried through" if rule.carries else ""
    lines.append(f"- On the chip: {', '.join(f'`ergo.{op}`' for op in rule.runs_as)}{carries}")
    own = [
        c for c in rule.constraints() if sentence(c.__doc__) not in {sentence(b.__doc__) for b in Rule.constraints()}
    ]
    lines += [f"- {sentence(c.__doc__)}" for c in own]
    lines.append(f"- Otherwise: {rule.remedy}.")
    return [*lines, ""]


def page() -> str:
    """The whole page."""
    lines = ["## All operators", "", *(f"- {sentence(c.__doc__)}" for c in Rule.constraints()), ""]
    for rule in RULES:
        lines += describe(rule)
    return _HEAD + "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    from tvm_ergo.relay_passes.support import groups  # noqa: F401  (registers the rules)

    print(page(), end="")
