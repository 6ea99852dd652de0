"""Compressing: targets are met and measured on what comes out, nothing is lost where nothing may be, wrong requests are
refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

import tvm_ergo
from tvm_ergo import compressed, frontend, zoo
from tvm_ergo.cli import main
from tvm_ergo.compressed.holdout import apart
from tvm_ergo.compressed.layers import _huffman_bits
from tvm_ergo.compressed.measured import as_on_chip
from tvm_ergo.compressed.report import Held, page, summary
from tvm_ergo.compressed.request import test_of as labelled
from tvm_ergo.evaluation.metrics import TopK
from tvm_ergo.evaluation.runner import evaluate
from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.relay_passes.macro import normalize
from tvm_ergo.relay_passes.micro.allocate import AllocateOptions
from tvm_ergo.relay_passes.micro.quantize import kept_in_float
from tvm_ergo.relay_passes.micro.reconstruct import Target
from tvm_ergo.target.errors import CalibrationError, CompressionError, InputError

QUICK = AllocateOptions(samples=48, compared=4, probes=1)


@pytest.fixture(scope="module")
def data():
    train, _, test, labels = zoo.digits()
    return train[:64], (test[:150], labels[:150])


@pytest.fixture(scope="module")
def within(data):
    told = []
    found = tvm_ergo.compress(
        str(zoo.DIGITS_MODEL),
        data[0],
        evaluation=data[1],
        max_drop=2.0,
        allocate=QUICK,
        progress=lambda *row: told.append(row),
    )
    return found, told


def top1(mod, images, labels) -> float:
    run = Interpreter(mod)
    return 100 * np.mean([int(np.argmax(run.run({run_name(mod): x[None]})[0])) == y for x, y in zip(images, labels)])


def run_name(mod) -> str:
    return mod["main"].params[0].name


def test_the_drop_is_met_by_what_comes_out(within, data):
    found, told = within
    report = found.report
    float_mod = normalize(frontend.load(str(zoo.DIGITS_MODEL)).mod)
    assert (
        report.before == pytest.approx(top1(float_mod, *data[1]))
        and report.before - report.after <= 2.0
        and report.samples == 150
    )
    assert report.file_bytes == found.size_bytes == len(found.contents.data) and report.ratio > 5
    assert min(a.size_bytes for a in report.attempts if report.before - a.figure <= 2.0) == report.file_bytes
    assert any("measure layers" in row[0] for row in told) and any("evaluate" in row[0] for row in told)


def test_rows_are_true(within):
    found, _ = within
    report = found.report
    assert sum(row.stored_bytes for row in report.layers) == report.weight_bytes < report.file_bytes
    assert sum(row.error or 0 for row in report.layers) == pytest.approx(1)
    arrays = {
        array.tobytes(): array for array, _ in found.contents.constants if array.dtype == np.int8 and array.ndim > 1
    }
    assert sorted(row.weights for row in report.layers) == sorted(a.size for a in arrays.values())
    for row in report.layers:
        assert (
            0 < row.density <= 1
            and row.weight_bits_coded <= row.weight_bits + 1
            and row.bits * row.weights == pytest.approx(8 * row.stored_bytes)
        )


def test_eval_of_the_file_says_what_was_stated(within, data, tmp_path):
    """Exactly, without calibration data: compress measures by the chip's integers, of which those of the emulator are
    compared to the bit here."""
    found, _ = within
    path = tmp_path / "digits.ergoz"
    found.save(path)
    assert path.stat().st_size == found.report.file_bytes
    np.savez(tmp_path / "test.npz", x=data[1][0], y=data[1][1])
    assert main(["eval", str(path), "--data", str(tmp_path / "test.npz"), "--json", str(tmp_path / "eval.json")]) == 0
    chip = json.loads((tmp_path / "eval.json").read_text())[0]
    assert chip["figures"]["top1"] == found.report.after and chip["samples"] == found.report.samples
    compiled, measured, qdq = tvm_ergo.compile(path), as_on_chip(found.contents.data), Interpreter(found.mod)
    feeds = [{"image": x[None]} for x in data[1][0][:20]]
    for feed in feeds:
        np.testing.assert_array_equal(measured(feed)[0], next(iter(compiled.run(feed).outputs.values())))
    assert any((measured(feed)[0] != qdq.run({run_name(found.mod): feed["image"]})[0]).any() for feed in feeds), (
        "the QDQ module would have done"
    )


def test_a_quantized_network_is_called_what_it_is(data):
    """Whatever may be lost, it is only coded: the texts say so and what to do, and speak of no float network that
    nobody gave."""
    quantized = tvm_ergo.quantize(str(zoo.DIGITS_MODEL), data[0])
    found = tvm_ergo.compress(quantized, evaluation=data[1], max_drop=2.0, holdout=0.4)
    lines = summary(found.report)
    assert json.loads(found.report.model_dump_json())["given"] == "quantized" and found.report.held.within
    assert any(
        "only coded" in line and "compress the float network" in line and "--calibration" in line for line in lines
    )
    assert not any("of the float network" in line or ", float " in line for line in lines) and any(
        "as of the network given" in line for line in lines
    )
    assert found.size_bytes == tvm_ergo.compress(quantized).size_bytes


def test_a_drop_beyond_the_limit_on_samples_kept_apart_is_remarked_on(within):
    report = within[0].report
    assert not any("beyond" in line for line in summary(report))
    for drop, said in ((2.5, True), (2.0, False)):
        held = Held(samples=40, before=95.0, after=95.0 - drop, drop=drop, within=drop <= report.max_drop)
        told = report.model_copy(update={"held": held})
        assert any("beyond the drop asked" in line and "2.50" in line for line in summary(told)) is said
        assert ("beyond the drop asked" in page(told)) is said and json.loads(told.model_dump_json())["held"][
            "within"
        ] is not said


def test_a_network_that_is_kept_in_float_is_measured_and_compiles(data):
    """The mark is in the file and outlives the normal form: nobody asks for calibration data again."""
    kept = kept_in_float(normalize(frontend.load(str(zoo.DIGITS_MODEL)).mod), 0.4)
    found = tvm_ergo.compress(kept, evaluation=data[1], limit=30)
    report = found.report
    assert report.int8_bytes is None and report.before == report.after == pytest.approx(
        top1(kept, data[1][0][:30], data[1][1][:30])
    )
    lines = " ".join(summary(report))
    assert "int8 loses 40 %" in lines and "quantized already" not in lines and "makes them int8" not in lines
    compiled = tvm_ergo.compile(frontend.load(found.contents.data))
    feed = {compiled.inputs[0].name: data[1][0][:1]}
    assert not compiled.programs and compiled.fallbacks
    np.testing.assert_array_equal(
        next(iter(compiled.run(feed).outputs.values())), as_on_chip(found.contents.data)(feed)[0]
    )


def test_sizes_are_compared_in_words_that_are_true(within):
    report = within[0].report
    for int8, text in (
        (4 * report.file_bytes, "4.0x smaller than int8"),
        (report.file_bytes * 100 // 96, "4 % smaller than int8"),
        (report.file_bytes * 100 // 125, "25 % larger than int8"),
    ):
        assert text in summary(report.model_copy(update={"int8_bytes": int8}))[0]
    assert "int8" not in summary(report.model_copy(update={"int8_bytes": None}))[0]


def test_figures_that_are_better_when_lower_are_stated_as_they_are(data):
    class Error(TopK):
        primary, higher_is_better = "wrong", False

        def result(self):
            return {"wrong": 100 - super().result()["top1"]}

    test = replace(labelled(data[1], frontend.load(str(zoo.DIGITS_MODEL))), metric=Error)
    report = tvm_ergo.compress(
        str(zoo.DIGITS_MODEL), data[0], evaluation=test, max_drop=3.0, allocate=QUICK, limit=100, holdout=0.3
    ).report
    assert 0 <= report.before <= report.after <= report.before + 3 and all(a.figure >= 0 for a in report.attempts)
    assert report.held.drop == pytest.approx(report.held.after - report.held.before)


def test_a_figure_kept_apart_is_of_the_chip_too(data):
    quantized = tvm_ergo.quantize(str(zoo.DIGITS_MODEL), data[0])
    found = tvm_ergo.compress(quantized, evaluation=data[1], holdout=0.4)
    _, held = apart(labelled(data[1], frontend.load(quantized)), 0.4)
    compiled = tvm_ergo.compile(frontend.load(found.contents.data))
    outcome = evaluate(held, lambda feeds: list(compiled.run(feeds).outputs.values()))
    assert (
        found.report.held.before == found.report.held.after == outcome.figures["top1"]
        and outcome.samples == found.report.held.samples == 60
    )


@pytest.mark.parametrize("size", [9500, "10KB"])
def test_a_size_is_kept(data, size):
    found = tvm_ergo.compress(str(zoo.DIGITS_MODEL), data[0], size=size, allocate=QUICK)
    limit = 10000 if size == "10KB" else size
    assert 0.85 * limit < found.size_bytes <= limit and found.report.asked_bytes == limit and found.report.after is None


def test_more_room_than_int8_needs_loses_nothing_else(data):
    plain = tvm_ergo.compress(tvm_ergo.quantize(str(zoo.DIGITS_MODEL), data[0]))
    found = tvm_ergo.compress(str(zoo.DIGITS_MODEL), data[0], size="1MB", evaluation=data[1], limit=40, allocate=QUICK)
    assert (
        found.report.weight_bytes == plain.report.weight_bytes
        and found.report.samples == 40
        and found.report.before is not None
    )
    coarse = AllocateOptions(ways=lambda layer: (Target(bits=2),), samples=16, compared=2, probes=1)
    within = tvm_ergo.compress(str(zoo.DIGITS_MODEL), data[0], max_drop=1.0, evaluation=data[1], allocate=coarse)
    assert within.report.weight_bytes == plain.report.weight_bytes and within.report.before - within.report.after <= 1.0


def test_nothing_is_lost_where_nothing_is_asked(data):
    quantized = tvm_ergo.quantize(str(zoo.DIGITS_MODEL), data[0])
    found = tvm_ergo.compress(quantized, evaluation=data[1])
    assert found.report.before == found.report.after and found.report.ratio > 1
    again = compressed.unpack(found.contents.data)[0]
    x = data[1][0][:1]
    np.testing.assert_array_equal(
        Interpreter(again).run({run_name(again): x})[0], Interpreter(quantized).run({run_name(quantized): x})[0]
    )
    in_float = tvm_ergo.compress(str(zoo.DIGITS_MODEL))
    mod = frontend.load(in_float.contents.data).mod
    np.testing.assert_allclose(
        Interpreter(mod).run({run_name(mod): x})[0],
        Interpreter(compressed.unpack(in_float.contents.data)[0]).run({run_name(mod): x})[0],
    )


@pytest.mark.parametrize(
    "error, options",
    [
        (InputError, {"size": 5000, "max_drop": 1.0}),
        (InputError, {"max_drop": 1.0}),
        (InputError, {"max_drop": -1.0}),
        (InputError, {"size": 0}),
        (InputError, {"size": True}),
        (CompressionError, {"size": 500}),
        (InputError, {"size": 9000, "evaluation": 7}),
        (InputError, {"size": 9000, "limit": 0}),
    ],
)
def test_wrong_requests(data, error, options):
    with pytest.raises(error):
        tvm_ergo.compress(str(zoo.DIGITS_MODEL), data[0], allocate=QUICK, **options)


def test_wrong_models(data):
    with pytest.raises(CalibrationError):
        tvm_ergo.compress(str(zoo.DIGITS_MODEL), size=9000)
    with pytest.raises(CompressionError, match="stay"):
        tvm_ergo.compress(tvm_ergo.quantize(str(zoo.DIGITS_MODEL), data[0]), size=3000)


def test_huffman_bits_are_those_of_a_huffman_code():
    import heapq

    symbols = np.random.default_rng(0).geometric(0.3, 500)
    heap = list(np.unique(symbols, return_counts=True)[1])
    total = 0
    heapq.heapify(heap)
    while len(heap) > 1:
        pair = heapq.heappop(heap) + heapq.heappop(heap)
        total += pair
        heapq.heappush(heap, pair)
    assert _huffman_bits(symbols) == total


def test_the_command(data, tmp_path, capsys):
    np.save(tmp_path / "calibration.npy", data[0])
    np.savez(tmp_path / "test.npz", x=data[1][0], y=data[1][1])
    common = ["compress", str(zoo.DIGITS_MODEL), "--calibration", str(tmp_path / "calibration.npy")]
    assert (
        main(
            [
                *common,
                "--data",
                str(tmp_path / "test.npz"),
                "--limit",
                "60",
                "--size",
                "10KB",
                "-o",
                str(tmp_path / "a.ergoz"),
                "--json",
                str(tmp_path / "a.json"),
                "--html",
                str(tmp_path / "a.html"),
            ]
        )
        == 0
    )
    written = json.loads((tmp_path / "a.json").read_text())
    assert (
        written["file_bytes"] == (tmp_path / "a.ergoz").stat().st_size <= 10000
        and written["samples"] == 60
        and "<h2>Layers</h2>" in (tmp_path / "a.html").read_text()
    )
    assert "x smaller than float" in capsys.readouterr().out
    for wrong in (
        ["--max-drop", "1", "--size", "1KB"],
        ["-o", str(tmp_path / "x.ergo")],
        ["--max-drop", "1"],
        ["--size", "100", "-o", str(tmp_path / "b.ergoz")],
    ):
        assert main([*common, *wrong]) == 2
    assert not (tmp_path / "b.ergoz").exists() and "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "spoil",
    [lambda x, y: (x * np.nan, y), lambda x, y: (x, y + 100), lambda x, y: (x, y - 1), lambda x, y: (x, y[:-1])],
)
def test_evaluation_data_that_say_nothing_are_refused(data, spoil):
    images, labels = data[1]
    with pytest.raises(InputError):
        tvm_ergo.compress(
            str(zoo.DIGITS_MODEL), data[0], evaluation=spoil(images[:30], labels[:30]), max_drop=1.0, allocate=QUICK
        )


def test_sizes_are_met_or_refused_with_one_that_is(data):
    """Whatever is asked for: a file of at most that size, or a size that can be had, which is then given."""
    reached = set()
    for size in (3000, 8000, 8600, 9300, 12000):
        try:
            found = tvm_ergo.compress(str(zoo.DIGITS_MODEL), data[0], size=size, allocate=QUICK)
            assert found.size_bytes <= size
            reached.add(found.size_bytes)
        except CompressionError as error:
            least = int(error.available.split()[0].replace(",", ""))
            assert least > size and all(size < other for other in reached)
            assert tvm_ergo.compress(str(zoo.DIGITS_MODEL), data[0], size=least, allocate=QUICK).size_bytes <= least
    assert reached


def test_samples_kept_apart_choose_nothing_and_are_measured(data):
    images, labels = data[1]
    kept = {
        int(n / 0.25) for n in range(20)
    }  # every fourth has a wrong label: if these chose anything, no drop of some points would be met
    test = (
        images[:80],
        np.array([(label + 1) % 10 if place in kept else label for place, label in enumerate(labels[:80])]),
    )
    found = tvm_ergo.compress(
        str(zoo.DIGITS_MODEL), data[0], evaluation=test, max_drop=4.0, holdout=0.25, allocate=QUICK
    )
    held = found.report.held
    assert (held.samples, found.report.samples) == (20, 60) and held.before < 20 < 80 < found.report.before
    assert any("20 samples kept apart" in line for line in summary(found.report))
    for share in (-0.1, 0.95, True, "half"):
        with pytest.raises(InputError, match="holdout"):
            tvm_ergo.compress(str(zoo.DIGITS_MODEL), data[0], evaluation=test, max_drop=4.0, holdout=share)
    with pytest.raises(InputError, match="too few"):
        tvm_ergo.compress(
            str(zoo.DIGITS_MODEL), data[0], evaluation=(images[:1], labels[:1]), max_drop=4.0, holdout=0.4
        )
