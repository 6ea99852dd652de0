"""Retraining: phases reach what they say, a stopped run ends as one that was not, a checkpoint is never half a file or
another run's."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="retraining needs the extra 'retrain' (PyTorch)")

from tvm_ergo.retrain import Phase, finish, retrain, structures  # noqa: E402
from tvm_ergo.retrain.checkpoint import NAME  # noqa: E402
from tvm_ergo.target.errors import InputError  # noqa: E402

PHASES = (
    Phase(3, lr=1e-2),
    Phase(4, lr=1e-2, density={"0": 0.2, "2": 0.5}),
    Phase(3, lr=3e-3, values=4),
    Phase(2, lr=1e-3, bits=8, activation_bits={"2": 5}),
)


def test_phases_become_what_they_say_and_the_network_still_works(blobs, make_module):
    module, told = make_module(), []
    history = retrain(module, blobs, PHASES, evaluate=blobs.accuracy, progress=lambda *row: told.append(row))
    assert [row["phase"] for row in history.rows] == [0] * 3 + [1] * 4 + [2] * 3 + [3] * 2 and [
        row[1:] for row in told
    ] == [(i, 12) for i in range(1, 13)]
    assert (
        history.rows[2]["density"]
        == 1
        > history.rows[3]["density"]
        > history.rows[6]["density"]
        == history.rows[-1]["density"]
    )
    assert history.rows[-1]["score"] > 0.95 and "loss" in told[0][0]
    finish(module)
    for layer, density in ((module[0], 0.2), (module[2], 0.5)):
        w = layer.weight.detach().numpy()
        assert np.count_nonzero(w) == round(density * w.size) and len(np.unique(w)) <= 5
        steps = np.unique(w) / (np.abs(w).max() / 127)
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("after", [1, 3, 5, 8, 11])
def test_a_stopped_run_goes_on_to_the_same_result(blobs, make_module, tmp_path, after):
    teacher = make_module(7)
    whole = make_module()
    expected = retrain(whole, blobs, PHASES, teacher=teacher)
    stopped = make_module()

    def stop(text, done, total):
        if done == after:
            raise Stopped

    with pytest.raises(Stopped):
        retrain(stopped, blobs, PHASES, teacher=teacher, checkpoint=tmp_path, progress=stop)
    again = make_module(3)  # whatever it holds
    history = retrain(again, blobs, PHASES, teacher=teacher, checkpoint=tmp_path)
    assert history.rows == expected.rows
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0)
    assert (
        retrain(make_module(4), blobs, PHASES, teacher=teacher, checkpoint=tmp_path).rows == expected.rows
    )  # nothing left to do


def test_a_checkpoint_of_another_run_or_half_a_file_is_refused(blobs, make_module, tmp_path):
    retrain(make_module(), blobs, PHASES[:1], checkpoint=tmp_path)
    with pytest.raises(InputError, match="another run"):
        retrain(make_module(), blobs, PHASES, checkpoint=tmp_path)
    (tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes()[:500])
    with pytest.raises(InputError, match="cannot be read"):
        retrain(make_module(), blobs, PHASES[:1], checkpoint=tmp_path)


def test_a_teacher_is_followed(blobs, make_module):
    """Labels say nothing (all alike), the teacher everything."""
    teacher = make_module(5)
    retrain(teacher, blobs, [Phase(6, lr=1e-2)])

    class Mute:
        def __len__(self):
            return len(blobs)

        def __iter__(self):
            for x, y in blobs:
                yield x, torch.zeros_like(y)

    pupil = make_module()
    retrain(pupil, Mute(), [Phase(8, lr=1e-2)], teacher=teacher, taught=1.0)
    assert blobs.accuracy(pupil) > 0.95


@pytest.mark.parametrize(
    "wrong",
    [
        lambda m, b: retrain(m, b, []),
        lambda m, b: retrain(m, [], [Phase(1)]),
        lambda m, b: retrain(m, iter(b), [Phase(1)]),
        lambda m, b: retrain(m, b, [Phase(1, lr=1e30), Phase(1)]),
        lambda m, b: Phase(0),
        lambda m, b: Phase(1, density=1.5),
        lambda m, b: Phase(1, bits={"*": 99}),
    ],
)
def test_what_cannot_be_done_is_said(blobs, make_module, wrong):
    with pytest.raises(InputError):
        wrong(make_module(), blobs)


def test_layers_by_pattern():
    phase = Phase(1, density={"body.*": 0.1, "*": 0.5})
    assert (
        phase.of("density", "body.3") == 0.1
        and phase.of("density", "head") == 0.5
        and phase.of("values", "head") is None
    )
    assert phase.density_at("head", 0.0, 1.0) == 1.0 and phase.density_at("head", 0.9, 1.0) == 0.5
    assert not structures(torch.nn.Linear(2, 2))
