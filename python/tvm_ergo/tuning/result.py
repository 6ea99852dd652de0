"""What a tuning run found, as plain values: printed, written as JSON, plotted."""

from __future__ import annotations

from pydantic import BaseModel


class Cost(BaseModel):
    """One inference of the whole network at an operating point. power_mw : average, at the frame rate; None where the
    rate is not reached. peak_mw : in the worst window. gated_mw : the average with power gating, as reports state it;
    None also where the chip file has no gating. With gating as an option all figures are with it."""

    cycles: int
    seconds: float
    energy_pj: float
    constant_bytes: int
    activation_bytes: int
    memory_bytes: int
    point: str
    power_mw: float | None
    peak_mw: float
    gated_mw: float | None
    meets_budget: bool


class TaskRow(BaseModel):
    """One task. weight : how often it occurs. choices, space_size : decisions and their combinations. best, first :
    scores (what is made least) of the best schedule and of the one compilation would choose."""

    task: str
    layers: list[str]
    weight: int
    choices: int
    space_size: float
    trials: int
    first: float
    best: float


class SampleRow(BaseModel):
    """A trial. share : of the score of its task's first schedule."""

    task: str
    seconds: float
    share: float
    predicted_share: float | None


class TuningResult(BaseModel):
    """A run of the tuner. rejected : different schedules that were over a budget, by cause, which cost no trial.
    rank_correlation : Spearman's, of predictions with what was measured afterwards; counts_correlation : of the
    estimates from counts alone, without trees, for the same schedules. how : "tuned", or "default" where nothing better
    was found. met : whether the tuned network meets the budgets. stopped : why the search ended."""

    schema_version: int = 1
    name: str
    chip: str
    objective: str
    memory_bytes: int
    power_mw: float | None
    frames_per_s: float | None
    peak_mw: float | None
    window_s: float
    gating: bool
    seed: int
    strategy: str
    trials: int
    seconds: float
    trials_per_s: float
    stopped: str
    rejected: dict[str, int]
    rank_correlation: float | None
    counts_correlation: float | None
    how: str
    met: bool
    default: Cost
    tuned: Cost
    tasks: list[TaskRow]
    samples: list[SampleRow]
    folder: str

    @property
    def gain(self) -> float:
        """What the tuned network takes, as a share of what the default takes, of the objective."""

        def value(cost: Cost) -> float:
            return {
                "latency": cost.seconds,
                "energy": cost.energy_pj,
                "edp": cost.energy_pj * cost.seconds,
                "memory": float(cost.memory_bytes),
            }[self.objective]

        return value(self.tuned) / value(self.default) if value(self.default) else 1.0
