"""Looking into a compile, stage by stage."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tvm

import tvm_ergo
from tests.doors.small_models import conv_net, images
from tvm_ergo.cli import main
from tvm_ergo.pipeline import STAGES, PipelineOptions, run_stages
from tvm_ergo.target.environment import DEBUG
from tvm_ergo.target.errors import ErgoError, InputError, ModelError, OutOfMemoryError
from tvm_ergo.target.tags import chip_of_target

NAMES = [stage.name for stage in STAGES]


def compiled():
    return tvm_ergo.compile(conv_net().SerializeToString(), calibration=images(4))


@pytest.mark.parametrize("stage", NAMES)
def test_it_ends_after_the_stage_asked_for(stage):
    with tvm_ergo.watch_stages(stop_after=stage) as watch:
        compiled()
        raise AssertionError("the compile went on")
    ran = [name for name in watch.seconds if name in NAMES]
    assert ran == NAMES[: NAMES.index(stage) + 1] and isinstance(watch.module, tvm.IRModule)


def test_what_was_stopped_goes_on_from_its_module():
    with tvm_ergo.watch_stages(stop_after="partition") as watch:
        compiled()
    again = run_stages(watch.module, PipelineOptions(chip_of_target("ergo")), start="tuned", until="codegen")
    with tvm_ergo.watch_stages(stop_after="codegen") as whole:
        compiled()
    assert again.script() == whole.module.script()


def test_levels_say_more_each(capsys):
    said = []
    for level in range(5):
        with tvm_ergo.watch_stages(level=level):
            compiled()
        said.append(capsys.readouterr().err)
    assert said[0] == ""
    assert re.findall(r"^(\w+): [0-9.]+ s$", said[1], re.M) == ["import", *NAMES, "build", "measure_accuracy"]
    assert re.search(
        r"^lower_quantized left 1 function; calls: .*relax\.ergo\.conv2d 1.*bytes of constants$", said[2], re.M
    )
    assert "# after partition" in said[3] and "# after" not in said[2] and len(said[4]) >= len(said[3]) * 0.9


def test_print_after_prints_that_module_alone(capsys):
    with tvm_ergo.watch_stages(print_after=["partition"]):
        compiled()
    err = capsys.readouterr().err
    assert err.count("# after") == 1 and 'R.func_attr({"Codegen": "ergo"' in err


def test_a_stages_own_trials_are_not_seen(monkeypatch):
    """Stages may walk the list themselves to try something out."""

    def trial(mod, options):
        return run_stages(mod, options, until="normalize")

    monkeypatch.setattr("tvm_ergo.pipeline.STAGES", (*STAGES[:1], type(STAGES[1])("outer", "", trial)))
    with tvm_ergo.watch_stages(stop_after="outer") as watch:
        imported = tvm_ergo.frontend.load(conv_net().SerializeToString())
        run_stages(imported.mod, PipelineOptions(chip_of_target("ergo")), until="outer")
    assert list(watch.seconds) == ["import", "normalize", "outer"]


def test_the_environment_says_the_level(monkeypatch, capsys):
    for value, said in (("1", True), ("0", False), ("99", True), ("x", False), ("-1", False), ("", False)):
        monkeypatch.setenv(DEBUG.name, value)
        with tvm_ergo.watch_stages(stop_after="normalize"):
            compiled()
        assert ("normalize: " in capsys.readouterr().err) is said, value


def test_instruments_of_tvm_see_every_stage():
    seen = []

    @tvm.instrument.pass_instrument
    class Names:
        def run_before_pass(self, mod, info):
            seen.append(info.name)

    with tvm.transform.PassContext(instruments=[Names()]):
        compiled()
    assert [name for name in seen if name.removeprefix("ergo.") in NAMES] == [f"ergo.{name}" for name in NAMES]


def test_errors_keep_their_parts_through_tvms_passes():
    net = conv_net().SerializeToString()
    with pytest.raises(OutOfMemoryError) as error:
        tvm_ergo.compile(net, calibration=images(4), memory=64)
    assert error.value.required and error.value.available and error.value.remedy


def test_a_module_that_is_not_well_formed_is_said(monkeypatch):
    def broken(mod, options):
        x = tvm.relax.Var("x", tvm.relax.TensorType([2], "float32"))
        return tvm.IRModule({"main": tvm.relax.Function([], x, tvm.relax.TensorType([2], "float32"))})

    monkeypatch.setattr("tvm_ergo.pipeline.STAGES", (type(STAGES[0])("broken", "", broken),))
    with pytest.raises(ModelError) as error, tvm_ergo.watch_stages(level=4):
        run_stages(tvm.IRModule(), PipelineOptions(chip_of_target("ergo")), start="broken", until="broken")
    assert "broken" in error.value.what and error.value.available


@pytest.mark.parametrize(
    "options", [{"stop_after": "nowhere"}, {"print_after": ["partition", "x"]}, {"level": 5}, {"level": True}]
)
def test_names_that_are_none_are_refused(options):
    with pytest.raises(InputError) as error, tvm_ergo.watch_stages(**options):
        pass
    assert isinstance(error.value, ErgoError) and error.value.available


def test_the_command_line(capsys, tmp_path):
    model = tmp_path / "net.onnx"
    model.write_bytes(conv_net().SerializeToString())
    calibration = tmp_path / "images.npy"
    np.save(calibration, images(4))
    common = ["compile", str(model), "--calibration", str(calibration)]
    output = tmp_path / "net.ergo"
    assert main([*common, "--stop-after", "partition", "-o", str(output)]) == 0
    assert 'Codegen": "ergo"' in capsys.readouterr().out and not output.exists()
    assert main([*common, "--time-stages", "--print-after", "normalize"]) == 0
    err = capsys.readouterr().err
    assert "codegen: " in err and err.count("# after") == 1
    assert main([*common, "--stop-after", "nowhere"]) == 2
    assert "available: normalize, quantize" in capsys.readouterr().err
