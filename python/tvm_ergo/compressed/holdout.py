"""Samples kept apart: what a network is chosen by says too much good of it, as the luckiest of several tries is
taken."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

from tvm_ergo.evaluation.tasks import Source, Test
from tvm_ergo.target.errors import InputError


@dataclass(frozen=True)
class Part(Source):
    """Some samples of a source, by number."""

    kept: tuple[int, ...] = field(default=(), repr=False)

    def indices(self, limit: int | None = None) -> list[int]:
        return list(self.kept[:limit])


def apart(test: Test, share: float, limit: int | None = None) -> tuple[Test, Test | None]:
    """``(samples to choose by, samples kept apart)``, the latter evenly spread among the first ``limit``; None for a
    share of 0.

    Errors: InputError for a share outside 0 to 0.9, or where a part would be empty.
    """
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 0.9:
        raise InputError(
            f"holdout cannot be {share!r}",
            required="a share of the samples, 0 to 0.9",
            remedy="leave it out, or give a share such as 0.2",
        )
    if not share:
        return test, None
    every = test.source.indices(limit)
    held = {int(n / share) for n in range(int(round(share * len(every))))}
    parts = [tuple(index for place, index in enumerate(every) if (place in held) == kept) for kept in (False, True)]
    if not all(parts):
        raise InputError(
            "too few samples to keep some apart",
            available=f"{len(every)} samples, of which {len(parts[1])} would be apart",
            remedy="more samples, or no holdout",
        )
    given = {f.name: getattr(test.source, f.name) for f in fields(Source)}
    return tuple(replace(test, source=Part(**given, kept=part)) for part in parts)
