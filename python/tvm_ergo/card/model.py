"""What a card holds: plain, validated values, from which the screen, the JSON and the HTML page are made."""

from __future__ import annotations

from tvm_ergo.report.model import BatteryRow, HostRow, Row, SleepRow

SCHEMA = 1
"""Version of the JSON; it grows when a field changes its meaning or goes away."""


class MeasuredRow(Row):
    """One test over labelled samples, on the chip and, where it is known, in float."""

    test: str
    samples: int
    figure: str  # name of the test's main figure
    chip: float
    float_network: float | None
    drop: float | None  # in the figure's unit; positive: the chip is worse


class PeerRow(Row):
    """A figure that another device was measured at, on the same network."""

    device: str
    energy_uj: float


class PeersRow(Row):
    """Published figures of the MLPerf Tiny network that this one looks like."""

    network: str
    source: str
    note: str
    rows: list[PeerRow]


class Card(Row):
    """The five answers (whole, memory, latency, energy, accuracy), what falls off, and figures of others."""

    schema_version: int = SCHEMA
    model: str
    chip: str
    chip_memory_bytes: int
    fits: bool
    whole: bool  # no operator on the host CPU
    host: list[HostRow]
    memory_bytes: int
    constant_bytes: int
    activation_bytes: int
    macs: int
    cycles: int
    latency_us: float
    inferences_per_s: float
    energy_uj: float
    frames_per_s: float
    power_mw: float | None  # None: too slow for this rate
    gated_mw: float | None  # with idle parts switched off; None where the chip cannot
    sleep: SleepRow | None  # how the pauses are spent; None where the chip has no states
    battery: BatteryRow | None
    loss: float | None  # rms error of the worst output, relative to its deviation, on calibration data
    loss_samples: int | None
    measured: list[MeasuredRow] = []
    peers: PeersRow | None = None

    @property
    def drop(self) -> float | None:
        return max((row.drop for row in self.measured if row.drop is not None), default=None)

    @property
    def lowest_mw(self) -> float | None:
        """With all that the chip can switch off, pauses asleep."""
        if self.sleep is not None and self.sleep.average_mw is not None:
            return self.sleep.average_mw
        return self.power_mw if self.gated_mw is None else self.gated_mw

    def figures(self) -> dict[str, float | None]:
        """What conditions may ask for, in the units of `KINDS`."""
        return {
            "memory": self.memory_bytes,
            "constants": self.constant_bytes,
            "activations": self.activation_bytes,
            "macs": self.macs,
            "cycles": self.cycles,
            "latency": self.latency_us,
            "energy": self.energy_uj,
            "power": self.lowest_mw,
            "days": None if self.battery is None else self.battery.days,
            "host_ops": len(self.host),
            "loss": self.loss,
            "drop": self.drop,
        }


KINDS = {
    "memory": "bytes",
    "constants": "bytes",
    "activations": "bytes",
    "macs": "",
    "cycles": "",
    "latency": "us",
    "energy": "uj",
    "power": "mw",
    "days": "",
    "host_ops": "",
    "loss": "",
    "drop": "points",
}
"""Figure -> kind of its unit (`conditions.UNITS`)."""
