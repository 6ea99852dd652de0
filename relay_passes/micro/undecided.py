"""Scores that calibration saw decide one way only: a voice detector on sounds without voice, presence on pictures
without hands.

Their range is whole (0 to 1), but what the sigmoid reads would be clipped to the logits that were seen: a score never
seen above 0.6 could never rise above it on the chip. Where the end of a network is a sigmoid or tanh of which one side
was not seen, the range of its logits reaches to where that side is decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes.micro.observe import Range
from tvm_ergo.relay_passes.micro.wide_tail import leads_to, moved_out
from tvm_ergo.relay_passes.support import Analysis

SEEN = 0.75
"""A side counts as seen where a sigmoid reached three quarters (one quarter), a tanh as much of its own range."""
DECIDED = 5.5
"""Logit from which a sigmoid is within one step of 8 bits of its end: 1 - sigmoid(5.5) is 1/246."""
STEEPNESS = {"relax.sigmoid": 1.0, "relax.tanh": 2.0}
"""tanh(x) is 2 sigmoid(2x) - 1."""


def undecided(analysis: Analysis, range_of: Callable[[relax.Var], Range]) -> Mapping[str, Range]:
    """Ranges by name that the logits of such scores need beside what was seen, and what they are moved from.

    range_of(var) -> Range, as calibration saw it."""
    view, found = analysis.view, {}
    _, members = moved_out(view, analysis.groups)
    moved = {g.output: g for g in analysis.groups if g.carries_quantization and len(g.inputs) == 1}
    for group in analysis.groups:
        steepness = STEEPNESS.get(view.op(group.output))
        if steepness is None or len(group.members) != 1 or not leads_to(view, group.output, members):
            continue
        logits, threshold = group.inputs[0], np.log(SEEN / (1 - SEEN)) / steepness
        seen, end = range_of(logits), DECIDED / steepness
        needed = Range(-end if seen.lo > -threshold else 0.0, end if seen.hi < threshold else 0.0)
        while needed != Range(0.0, 0.0):
            found[str(logits.name)] = needed
            if logits not in moved:
                break
            logits = moved[logits].inputs[0]
    return found
