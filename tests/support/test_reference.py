"""docs/supported_operators.md is what the rules say."""

from pathlib import Path

from tvm_ergo.relay_passes.dialect import OPS
from tvm_ergo.relay_passes.micro import lower_quantized  # noqa: F401  (registers the lowering rules)
from tvm_ergo.relay_passes.micro.lower_context import LOWERINGS
from tvm_ergo.relay_passes.support import RULES
from tvm_ergo.relay_passes.support.reference import page, sentence

ROWS = {"conv2d_wide", "exp_rows", "gather_rows", "matmul_wide", "put_rows", "rescale", "take_rows", "weighted_mean"}
"""What the lowering of attention makes, from patterns of its own."""

WINDOWS = {"shift_rows"}
"""What ``compile.step_window`` makes of networks over a moving window."""

SIGNS = {name for name in OPS if name.startswith("binar")}
"""What ``micro.binarize`` makes of lowered layers."""

PAGE = Path(__file__).parents[2] / "docs" / "supported_operators.md"


def test_page_is_current():
    assert PAGE.read_text() == page(), (
        "run: python -m tvm_ergo.relay_passes.support.reference > docs/supported_operators.md"
    )


def test_every_rule_is_documented_and_lowered():
    assert set(RULES) == set(LOWERINGS)
    for rule in RULES:
        assert sentence(rule.__doc__) and rule.ops and rule.remedy
        assert all(sentence(c.__doc__) for c in rule.constraints())
        assert set(rule.runs_as) <= set(OPS)


def test_every_dialect_operator_is_reached_by_a_rule():
    assert {name for rule in RULES for name in rule.runs_as} == {
        name for name, op in OPS.items() if op.in_models
    } - ROWS - SIGNS - WINDOWS
