"""What a network keeps from one run to the next: the values between runs, and calibration samples with the values that
precede them."""

from __future__ import annotations

import threading

import numpy as np

from tvm_ergo.frontend import Imported
from tvm_ergo.frontend.imported import StateInfo
from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.target.errors import CalibrationError, InputError


class Kept:
    """The current values of ``states`` by name. turn : held by the run that reads and writes them."""

    def __init__(self, states: tuple[StateInfo, ...]):
        self.states, self.turn = states, threading.RLock()
        self.reset()

    def reset(self) -> None:
        """As before the first run."""
        with self.turn:
            self.values = {s.name: np.array(s.initial) for s in self.states}

    def set(self, values: dict[str, np.ndarray]) -> None:
        """New values, of some or all. Errors: InputError for an unknown name, a wrong shape or dtype."""
        known = {s.name: s for s in self.states}
        unknown = [name for name in values if name not in known]
        if unknown:
            raise InputError(
                "a state is not one of the model's",
                where=", ".join(map(repr, unknown)),
                required=", ".join(map(str, self.states)) or "no states",
                remedy="give only states that model.states lists; model.state() returns all of them",
            )
        arrays = {name: np.asarray(value) for name, value in values.items()}
        for name, array in arrays.items():
            info = known[name]
            if array.shape != tuple(info.shape) or array.dtype != np.dtype(info.dtype):
                raise InputError(
                    "a state has the wrong shape or dtype",
                    where=f"state {name!r}",
                    required=info.content,
                    available=f"{array.dtype}{list(array.shape)}",
                    remedy="give an array of that shape and dtype, as model.state() returns it",
                )
        with self.turn:
            self.values.update({name: np.array(array, order="C") for name, array in arrays.items()})


def carried(calibration, imported: Imported):
    """Calibration samples (by the names of the function's parameters) with the states that precede each: they are run
    in order, in float."""
    if calibration is None or not imported.states:
        return calibration
    names, own = [i.name for i in imported.inputs], list(imported.parameters[len(imported.inputs) :])
    feeds, samples = _feeds(calibration, list(imported.parameters[: len(names)])), []
    interpreter, values = (
        Interpreter(imported.mod),
        {name: np.asarray(s.initial) for name, s in zip(own, imported.states)},
    )
    for feed in feeds:
        samples.append({**values, **feed})
        results = interpreter.run(samples[-1])
        values = dict(zip(own, results[len(imported.outputs) :]))
    return samples


def _feeds(calibration, names: list[str]) -> list[dict]:
    """One dict a sample. Errors: CalibrationError where the data do not say which input they are."""
    if isinstance(calibration, dict):
        count = len(next(iter(calibration.values()), ()))
        return [{name: np.asarray(array)[i : i + 1] for name, array in calibration.items()} for i in range(count)]
    feeds = []
    for sample in calibration:
        if not isinstance(sample, dict):
            if len(names) != 1:
                raise CalibrationError(
                    "the calibration data do not name their inputs",
                    required=", ".join(names),
                    remedy="give each sample as a dict {input name: array}, or an .npz whose arrays have these names",
                )
            sample = {names[0]: np.asarray(sample)}
        feeds.append(dict(sample))
    return feeds
