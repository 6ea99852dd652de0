"""Models whose host work is only at their ports: files without code, the same outputs to the bit, and nothing believed
that a forged file says."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax

import tvm_ergo
from tvm_ergo import container, zoo
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.errors import ErgoError, ProgramError
from tvm_ergo.target.limits import model_bytes_limit

_spec = importlib.util.spec_from_file_location("small_models", Path(__file__).parents[1] / "doors" / "small_models.py")
models = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(models)


def function_of(shape, dtype, build) -> tvm.IRModule:
    builder, x = relax.BlockBuilder(), relax.Var("x", relax.TensorType(shape, dtype))
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(build(builder, x))
        builder.emit_func_output(result)
    return builder.get()


def two_outputs(builder, x):
    y = builder.emit(dialect.Maximum().call(x, x))
    return relax.Tuple(
        [builder.emit(dialect.Reshape(shape=(8, 4)).call(y)), builder.emit(relax.op.astype(y, "float32")), x]
    )


NETS = {
    "conv": lambda: tvm_ergo.compile(models.conv_net(), calibration=models.images(8)),
    "camera, streamed": lambda: tvm_ergo.compile(
        models.camera_net(), calibration=models.frames(8), stream=True, target="ergo/2"
    ),
    "digits": lambda: tvm_ergo.compile(str(zoo.DIGITS_MODEL), calibration=zoo.digits()[0][:32]),
    "integers": lambda: tvm_ergo.compile(
        function_of((4, 8), "int8", lambda b, x: dialect.Reshape(shape=(8, 4)).call(dialect.Maximum().call(x, x)))
    ),
    "tuple": lambda: tvm_ergo.compile(function_of((4, 8), "int8", two_outputs)),
}


def inputs_of(model, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    return {
        i.name: rng.integers(-128, 128, i.shape).astype(i.dtype)
        if i.dtype == "int8"
        else rng.normal(0, 2, i.shape).astype(i.dtype)
        for i in model.inputs
    }


@pytest.mark.parametrize("name", NETS)
def test_a_file_without_code_gives_the_same_to_the_bit(name, tmp_path, monkeypatch):
    model = NETS[name]()
    assert not model.is_code
    model.save(tmp_path / "net.ergo")
    monkeypatch.setattr(tvm.runtime, "load_module", None)  # nothing may load a library
    loaded = tvm_ergo.load(tmp_path / "net.ergo")
    assert loaded.module is None and not any("library" in section for section in container.read(tmp_path / "net.ergo"))
    for seed in range(4):
        x = inputs_of(model, seed)
        with tvm_ergo.record() as calls:
            mine, theirs = loaded.run(x), model.run(x)
        assert len(calls) == 2 * len(model.programs) and list(mine.outputs) == list(theirs.outputs)
        for key, value in theirs.outputs.items():
            assert (mine.outputs[key].shape, mine.outputs[key].dtype, mine.outputs[key].tobytes()) == (
                value.shape,
                value.dtype,
                value.tobytes(),
            )
        assert mine.compressed == theirs.compressed
    loaded.save(tmp_path / "again.ergo")
    assert (tmp_path / "again.ergo").read_bytes() == (tmp_path / "net.ergo").read_bytes()


@pytest.fixture(scope="module")
def hosted(tmp_path_factory):
    """A model with an operator on the host in its middle, and its file."""

    def build(builder, x):
        ordered = builder.emit(relax.op.flip(builder.emit(dialect.Maximum().call(x, x)), 1))
        return dialect.Reshape(shape=(8, 4)).call(builder.emit(dialect.Minimum().call(ordered, x)))

    model = tvm_ergo.compile(function_of((4, 8), "int8", build))
    assert model.is_code and len(model.programs) == 2
    path = tmp_path_factory.mktemp("hosted") / "net.ergo"
    model.save(path)
    return model, path


def test_programs_are_read_without_the_library(hosted, monkeypatch):
    model, path = hosted
    x = inputs_of(model, 3)
    np.testing.assert_array_equal(tvm_ergo.load(path).run(x).outputs["output"], model.run(x).outputs["output"])
    monkeypatch.setattr(tvm.runtime, "load_module", None)
    alone = tvm_ergo.load(path, programs_only=True)
    assert {k: p.to_bytes() for k, p in alone.programs.items()} == {
        k: p.to_bytes() for k, p in model.programs.items()
    } and alone.is_code
    with pytest.raises(ProgramError, match="Programs alone"):
        alone.run(x)


def test_files_of_the_first_version(hosted, tmp_path, monkeypatch):
    """They had a library and said nothing of where the Programs lie in it."""
    model, path = hosted
    old = {name: content for name, content in container.read(path).items() if name in ("meta", "library")}
    monkeypatch.setattr(container, "VERSION", 1)
    container.write(tmp_path / "old.ergo", old)
    monkeypatch.undo()
    alone = tvm_ergo.load(tmp_path / "old.ergo", programs_only=True)
    assert {k: p.to_bytes() for k, p in alone.programs.items()} == {k: p.to_bytes() for k, p in model.programs.items()}
    x = inputs_of(model, 4)
    np.testing.assert_array_equal(
        tvm_ergo.load(tmp_path / "old.ergo").run(x).outputs["output"], model.run(x).outputs["output"]
    )


def test_nothing_a_forged_chain_says_is_believed(tmp_path):
    NETS["conv"]().save(tmp_path / "net.ergo")
    sections = container.read(tmp_path / "net.ergo")
    chain = json.loads(sections["chain"])
    (symbol,) = (name for name in sections if name.startswith("program:"))
    op, operands, params = chain["steps"][0]
    wrong = [
        {},
        [],
        {**chain, "format": 2},
        {**chain, "outputs": [99]},
        {**chain, "outputs": [-1]},
        {**chain, "outputs": [0]},
        {**chain, "outputs": [True]},
        {**chain, "steps": [["eval", operands, params], *chain["steps"][1:]]},
        {**chain, "steps": [[op, [50], params], *chain["steps"][1:]]},
        {**chain, "steps": [[op, operands, []], *chain["steps"][1:]]},
        {**chain, "steps": 5},
        {**chain, "steps": [[op, operands]]},
        {**chain, "constants": []},
        {**chain, "constants": [["float32", [10**9], ""]] * len(chain["constants"])},
        {**chain, "constants": [["object", [], ""]] * len(chain["constants"])},
        {**chain, "steps": [["call", [0], {"symbol": "other", "shapes": [[1]]}]]},
        {**chain, "steps": [["call", [0], {"symbol": symbol[8:], "shapes": [[1]]}]]},
    ]
    for number, said in enumerate(wrong):
        container.write(tmp_path / f"{number}.ergo", {**sections, "chain": json.dumps(said).encode()})
        with pytest.raises(ProgramError, match="chain"):
            tvm_ergo.load(tmp_path / f"{number}.ergo")
    grown = {
        **chain,
        "steps": [
            ["reshape", [0], {"shape": [192, 1]}],
            ["reshape", [0], {"shape": [1, 192]}],
            ["add", [len(chain["constants"]) + 1, len(chain["constants"]) + 2], {}],
        ],
    }
    container.write(tmp_path / "grown.ergo", {**sections, "chain": json.dumps(grown).encode()})
    # what asks for little more than the limit is looked at to its end, where something else may be wrong with it
    with model_bytes_limit("50KB"), pytest.raises(ProgramError, match="more memory than the limit|no value before it"):
        tvm_ergo.load(tmp_path / "grown.ergo")


def test_nothing_a_forged_description_says_is_believed(tmp_path):
    NETS["conv"]().save(tmp_path / "net.ergo")
    sections = container.read(tmp_path / "net.ergo")
    meta = json.loads(sections["meta"])
    tensor = meta["inputs"][0]
    wrong = [
        [],
        None,
        {**meta, "chip": 5},
        {**meta, "chip": {}},
        {**meta, "source": 5},
        {**meta, "inputs": {}},
        {**meta, "inputs": [5]},
        {**meta, "more": 1},
        {**meta, "fallbacks": [{"node": 1}]},
        {**meta, "fallbacks": [{**dict.fromkeys(("node", "op", "reason", "remedy"), ""), "more": ""}]},
    ]
    for change in (
        {"name": 5},
        {"shape": 5},
        {"shape": [-1]},
        {"shape": [1.5]},
        {"shape": ["1"]},
        {"shape": [1 << 60]},
        {"dtype": "object"},
        {"dtype": None},
        {"scale": "x"},
        {"shape": [1] * 40},
        {"shape": [1 << 40]},
        {"zero_point": 0.5},
    ):
        wrong.append({**meta, "inputs": [{**tensor, **change}]})
    for number, said in enumerate(wrong):
        container.write(tmp_path / f"{number}.ergo", {**sections, "meta": json.dumps(said).encode()})
        with pytest.raises(ErgoError):
            tvm_ergo.load(tmp_path / f"{number}.ergo")
