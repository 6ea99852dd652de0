"""The table of tasks: every net of the manifest, loaders that give what the nets take, and float figures reproduced."""

import threading
import time

import numpy as np
import pytest

from tvm_ergo.evaluation import TASKS, Source, Test, evaluate, has_shared, metrics, model_bytes, preprocess, shared_root
from tvm_ergo.evaluation.datasets import Samples, gaussian
from tvm_ergo.target.errors import InputError, ModelError

needs_shared = pytest.mark.skipif(not has_shared(), reason="ERGO_SHARED (models and data) is not here")


def counting_source(size, **options):
    return Source(
        lambda: Samples("toy", size, lambda i: (np.full((2, 2, 3), i, np.uint8), i % 3)),
        preprocess.Affine("x"),
        **options,
    )


def test_source_indices_start_count_and_spread():
    assert counting_source(10, start=2, count=3).indices() == [2, 3, 4]
    assert counting_source(10, count=3, spread=True).indices() == [0, 4, 9]
    assert counting_source(4).indices(limit=2) == [0, 1]


def test_affine_scales_reverses_and_transposes():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    feed = preprocess.Affine("x", (1.0, 2.0, 3.0), (1.0, 0.5, 0.25), bgr=True)(image)[0]["x"]
    assert feed.shape == (1, 3, 2, 2) and feed.dtype == np.float32
    assert np.allclose(feed[0, 0], image[..., 2] - 1.0) and np.allclose(feed[0, 2], (image[..., 0] - 3.0) * 0.25)


@pytest.mark.parametrize("batch", [1, 3])
def test_evaluate_is_independent_of_the_batch(batch):
    def run(feeds):
        values = feeds["x"][:, 0, 0, 0].astype(int)
        return [np.eye(3, dtype=np.float32)[values % 3 * (values < 5)]]  # right below 5, class 0 from there on

    seen = []
    test = Test("toy", counting_source(7), metrics.TopK, {"top1": 100.0})
    outcome = evaluate(test, run, batch=batch, progress=lambda d, t: seen.append((d, t)))
    assert outcome.samples == 7 and outcome.figures["top1"] == pytest.approx(100 * 6 / 7)
    assert outcome.loss == pytest.approx(100 / 7) and seen[-1] == (7, 7)


def test_gaussian_is_repeatable():
    assert np.array_equal(gaussian((4,), 0.0, 1.0)[3][0], gaussian((4,), 0.0, 1.0)[3][0])
    with pytest.raises(IndexError):
        gaussian((4,), 0.0, 1.0, count=2)[2]


def test_missing_folder_and_model_are_our_errors(tmp_path, monkeypatch):
    monkeypatch.setenv("ERGO_SHARED", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="ERGO_SHARED"):
        shared_root()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "broken.onnx.xz").write_bytes(b"not xz")
    monkeypatch.setenv("ERGO_SHARED", str(tmp_path))
    for name in ("absent.onnx", "broken.onnx.xz"):
        with pytest.raises(ModelError, match=name):
            model_bytes(name)


def session(stem):
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return runtime.InferenceSession(model_bytes(TASKS[stem].path), options)


@needs_shared
def test_every_onnx_of_the_manifest_has_a_task():
    files = {
        p.relative_to(shared_root() / "models").as_posix()
        for p in (shared_root() / "models").glob("*/*.onnx*")
        if p.parent.name != "registry"
    }  # no labelled data
    assert files == {task.path for task in TASKS.values()}


@needs_shared
@pytest.mark.parametrize("stem", sorted(TASKS))
def test_test_and_calibration_inputs_fit_the_net(stem):
    task = TASKS[stem]
    inputs = {i.name: i for i in session(stem).get_inputs()}
    for source in [t.source for t in task.tests] + ([task.calibration] if task.calibration else []):
        feeds = next(iter(source.inputs(1)))
        assert set(feeds) == set(inputs)
        for name, value in feeds.items():
            fixed = [
                (have, want)
                for have, want in zip(value.shape, inputs[name].shape, strict=True)
                if isinstance(want, int)
            ]
            assert all(have == want for have, want in fixed) and np.isfinite(value).all()


@needs_shared
@pytest.mark.parametrize(
    "stem",
    [
        "ic_resnet8_fp32",
        "kws_dscnn_fp32",
        "vww96_fp32",
        "bnn_lfc_w1a1_mnist",
        "tfc_1w1a_mnist",
        "espcn_x3_superres",
        "stories260k_s256",
        "mnist_lstm20",
    ],
)
def test_float_figures_of_the_manifest_are_reproduced(stem):
    net = session(stem)
    for test in TASKS[stem].tests:
        outcome = evaluate(test, lambda feeds: net.run(None, feeds), batch=25)
        for figure, value in test.figures.items():
            assert outcome.figures[figure] == pytest.approx(value, abs=0.006), figure


def test_images_over_threads_reach_the_metric_in_their_order():
    """The slowest answers first; as many calls at a time as threads; an error of one call is the caller's."""
    seen, running, most, lock = [], set(), [0], threading.Lock()

    class Order(metrics.Metric):
        primary, higher_is_better = "n", True

        def update(self, outputs, label):
            self.count += 1
            seen.append((int(outputs[0][0][0]), label))

        def result(self):
            return {"n": float(self.count)}

    def run(feeds):
        number = int(feeds["x"][0])
        with lock:
            running.add(number)
            most[0] = max(most[0], len(running))
        time.sleep(0.02 if number % 3 == 0 else 0.001)
        with lock:
            running.discard(number)
        if number == broken:
            raise ValueError(f"sample {number}")
        return [feeds["x"]]

    samples = [(np.array([i]), i) for i in range(20)]
    source = Source(lambda: samples, lambda raw: [{"x": raw}])
    for threads in (1, 3):
        seen.clear()
        most[0], broken = 0, None
        assert evaluate(Test("order", source, Order), run, threads=threads).samples == 20
        assert seen == [(i, i) for i in range(20)] and most[0] <= threads
        broken = 7
        with pytest.raises(ValueError, match="sample 7"):
            evaluate(Test("order", source, Order), run, threads=threads)
        assert not running
