"""The card and the comparison, as a user gets them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.doors.small_models import conv_net, images
from tvm_ergo.card.build import MACS_APART, build_card, peers_of
from tvm_ergo.card.model import Card
from tvm_ergo.card.page import card_page
from tvm_ergo.cli import main
from tvm_ergo.report.model import PortRow, Report
from tvm_ergo.report.units import byte_text, energy_text, power_text, time_text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A float network, calibration images, labelled ones, and the compiled form with its report."""
    made = tmp_path_factory.mktemp("card")
    (made / "net.onnx").write_bytes(conv_net().SerializeToString())
    np.save(made / "images.npy", images(8))
    np.savez(made / "test.npz", x=images(12, seed=5), y=np.arange(12) % 5)
    calibrated = [str(made / "net.onnx"), "--calibration", str(made / "images.npy")]
    assert main(["compile", *calibrated, "-o", str(made / "net.ergo")]) == 0
    assert main(["report", str(made / "net.ergo"), "--json", str(made / "net.json")]) == 0
    return made


def card_of(folder, *options) -> tuple[int, Card]:
    out = folder / "card.json"
    code = main(
        ["card", str(folder / "net.onnx"), "--calibration", str(folder / "images.npy"), "--json", str(out), *options]
    )
    return code, Card.model_validate_json(out.read_text())


def test_five_answers_are_those_of_the_report(folder, capsys):
    code, card = card_of(folder, "--fps", "5")
    said = capsys.readouterr().out
    report = Report.model_validate_json((folder / "net.json").read_text())
    assert code == 0 and card.whole and card.fits and card.frames_per_s == 5
    assert (card.memory_bytes, card.cycles, card.energy_uj) == (report.memory_bytes, report.cycles, report.energy_uj)
    assert card.loss is not None and card.measured == []
    for question in ("runs whole", "memory?", "latency?", "energy?", "accuracy?"):
        assert question in said
    summary = next(line for line in said.splitlines() if line.startswith("summary "))
    values = dict(part.split("=") for part in summary.split()[1:])
    assert int(values["memory_bytes"]) == card.memory_bytes and int(values["cycles"]) == card.cycles
    assert values["whole"] == "yes" and "drop" not in values
    assert all(len(line) <= 80 for line in said.splitlines() if not line.startswith(("summary", "compiled")))


def test_accuracy_is_measured_on_labelled_data(folder, capsys):
    code, card = card_of(folder, "--data", str(folder / "test.npz"))
    row = card.measured[0]
    assert code == 0 and row.samples == 12 and row.float_network is not None
    assert row.drop == pytest.approx(row.float_network - row.chip) and card.drop == row.drop
    assert "drop=" in capsys.readouterr().out


def test_exit_codes_for_scripts(folder, capsys):
    assert card_of(folder, "--fail-if", "memory > 1MiB or host_ops > 0")[0] == 0
    assert card_of(folder, "--fail-if", "memory > 1B")[0] == 1
    assert "failed: memory > 1B (memory is" in capsys.readouterr().out
    model = str(folder / "net.ergo")
    assert main(["card", model, "--fail-if", "drop > 1"]) == 2
    assert "not measured" in capsys.readouterr().err
    assert main(["card", model, "--fail-if", "nothing > 1"]) == 2


def test_host_operators_are_named_with_their_remedies(folder, capsys):
    net = folder / "hardmax.onnx"
    net.write_bytes(conv_net(extra="Hardmax").SerializeToString())
    assert main(["card", str(net), "--calibration", str(folder / "images.npy"), "--json", str(folder / "h.json")]) == 0
    card = Card.model_validate_json((folder / "h.json").read_text())
    said = capsys.readouterr().out
    assert [row.op for row in card.host] == ["one_hot"] and not card.whole and card.figures()["host_ops"] == 1
    assert "what falls off" in said and card.host[0].reason in " ".join(said.split()) and "whole=no" in said
    assert card.host[0].reason in card_page(card)


def test_bad_data_are_refused_before_the_compile(folder, capsys, monkeypatch):
    monkeypatch.setattr("tvm_ergo.cli.models.open_model", lambda arguments: pytest.fail("it was compiled"))
    np.savez(folder / "bad.npz", x=images(3), y=np.zeros(2, int))
    assert main(["card", str(folder / "net.onnx"), "--data", str(folder / "bad.npz")]) == 2
    assert "does not fit together" in capsys.readouterr().err


def test_the_page_says_the_same_and_holds_no_script(folder):
    card = card_of(folder)[1].model_copy(update={"model": "<script>alert(1)</script>"})
    page = card_page(card)
    assert "<script" not in page and "&lt;script&gt;" in page and f"{card.cycles:,} cycles" in page


def test_reference_networks_are_known_by_their_shape(folder):
    report = Report.model_validate_json((folder / "net.json").read_text())

    def like(inputs, outputs, macs):
        ports = [
            PortRow(name="x", direction="input", dtype="int8", shape=(1, inputs), scale=None, zero_point=None),
            PortRow(name="y", direction="output", dtype="int8", shape=(1, outputs), scale=None, zero_point=None),
        ]
        return report.model_copy(update={"ports": ports, "macs": macs})

    assert peers_of(report) is None
    assert peers_of(like(490, 12, 2656768)).network.startswith("keyword")
    assert (
        peers_of(like(490, 12, int(2656768 * (1 + MACS_APART)) + 2)) is None and peers_of(like(490, 2, 2656768)) is None
    )
    card = build_card(like(640, 640, 264192))
    assert {row.device for row in card.peers.rows} == {"GAP9", "STM32U385"} and "GAP9" in card_page(card)


def test_comparison_of_builds_and_chips(folder, capsys):
    a, b = str(folder / "net.json"), str(folder / "net.ergo")
    assert main(["compare", a, b, "--fail-if", "cycles > 0% or memory > 0% or energy > 0%"]) == 0
    assert "every layer costs the same" in capsys.readouterr().out
    network = [str(folder / "net.onnx")] * 2
    options = ["--calibration", str(folder / "images.npy"), "--target", "ergo/1", "--target-b", "ergo/2"]
    out = str(folder / "difference.json")
    assert main(["compare", *network, *options, "--json", out, "--fail-if", "leakage > 1%"]) == 1
    found = json.loads((folder / "difference.json").read_text())
    cycles = next(row for row in found["figures"] if row["name"] == "cycles")
    assert cycles["change_percent"] == pytest.approx(100 * (cycles["b"] - cycles["a"]) / cycles["a"])
    sums = [sum(row[side] or 0 for row in found["layers"]) for side in ("a_cycles", "b_cycles")]
    assert sums[0] != sums[1] and found["schema_version"] == 1


def test_comparison_of_what_cannot_be_compared(folder, capsys):
    ergo = str(folder / "net.ergo")
    (folder / "other.json").write_text('{"a": 1}')
    assert main(["compare", ergo, str(folder / "other.json")]) == 2
    assert "no report of this version" in capsys.readouterr().err
    assert main(["compare", ergo, str(folder / "missing.json")]) == 2
    assert main(["compare", ergo, ergo, "--memory", "64KiB"]) == 2
    assert "--memory would have no effect" in capsys.readouterr().err
    assert main(["compare", ergo, ergo, "--json", str(folder / "net.json")]) == 0
    assert main(["compare", ergo, str(folder / "net.onnx"), "--json", str(folder / "net.onnx")]) == 2


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (byte_text(490), "490 bytes"),
        (byte_text(44332), "43.3 KiB"),
        (byte_text(8 << 20), "8 MiB"),
        (time_text(4.36), "4.36 us"),
        (time_text(2100), "2.1 ms"),
        (energy_text(2.7e-5), "27 pJ"),
        (energy_text(0.99), "990 nJ"),
        (energy_text(3400), "3.4 mJ"),
        (energy_text(0), "0 pJ"),
        (power_text(0.393), "393 uW"),
        (power_text(1.54), "1.54 mW"),
    ],
)
def test_units_fit_the_size(text, wanted):
    assert text == wanted


def test_how_long_a_battery_lasts(folder, capsys):
    code, card = card_of(folder, "--fps", "1", "--battery", "CR2032", "--fail-if", "days < 30")
    assert code == 0 and card.sleep.chosen and card.sleep.average_mw < card.gated_mw
    assert card.battery.days == pytest.approx(225 * 3.6 * 3 * 1e3 / card.sleep.mj_per_day)
    assert "CR2032 lasts" in " ".join(capsys.readouterr().out.split())
    assert main(["report", str(folder / "net.ergo"), "--fps", "1", "--battery", "100mAh@3V"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "100 mAh at 3 V:" in said and "how pauses can be spent" in said and "deep sleep" in said
    with pytest.raises(SystemExit) as stop:
        main(["report", str(folder / "net.ergo"), "--battery", "potato"])
    assert stop.value.code == 2 and "CR2032" in capsys.readouterr().err
