"""PyTorch as a front door: modules, exported programs and archives give what the module gives; archives run nothing of
their own."""

import io
import json
import zipfile

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch models need the extra 'torch'")

from torch import nn  # noqa: E402

import tvm_ergo  # noqa: E402
from tvm_ergo import frontend  # noqa: E402
from tvm_ergo.cli import main  # noqa: E402
from tvm_ergo.relay_passes.interpreter import evaluate  # noqa: E402
from tvm_ergo.relay_passes.relax_utils import bindings_of, main_of  # noqa: E402
from tvm_ergo.target.errors import ModelError, UnsupportedError  # noqa: E402

RNG = np.random.default_rng(5)


class Pictures(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.deep, self.head = (
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 8, 3, groups=8, stride=2, padding=1),
            nn.Linear(8, 4),
        )

    def forward(self, x):
        return self.head(nn.functional.hardswish(self.deep(torch.relu(self.norm(self.stem(x))))).mean((2, 3)))


class Sound(nn.Module):
    def __init__(self):
        super().__init__()
        self.front, self.memory, self.head = (
            nn.Conv1d(4, 8, 5, padding=2),
            nn.GRU(8, 6, batch_first=True),
            nn.Linear(6, 3),
        )

    def forward(self, x):
        y, _ = self.memory(torch.relu(self.front(x)).transpose(1, 2))
        return self.head(y[:, -1])


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = (
            nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu"),
            nn.Linear(16, 3),
        )

    def forward(self, x):
        return self.head(self.layer(x).mean(1))


class Several(nn.Module):
    def forward(self, x, y):
        big = nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return {
            "both": torch.cat([big, nn.functional.pixel_shuffle(y, 2)], 1),
            "small": nn.functional.adaptive_avg_pool2d(big, (2, 2)),
            "best": big.argmax(1),
        }


def array(*shape):
    return RNG.normal(size=shape).astype(np.float32)


NETS = {"pictures": (Pictures, (1, 3, 16, 16)), "sound": (Sound, (1, 4, 12)), "text": (Text, (1, 7, 16))}


def given(name: str):
    torch.manual_seed(1)
    kind, shape = NETS[name]
    return kind().eval(), shape


@pytest.mark.parametrize("name", NETS)
def test_every_door_gives_the_same(name, tmp_path):
    module, shape = given(name)
    samples = array(32, *shape[1:])
    program = torch.export.export(module, (torch.zeros(shape),))
    torch.export.save(program, tmp_path / "net.pt2")
    doors = [
        tvm_ergo.compile(module, example_inputs=torch.zeros(shape), calibration=samples),
        tvm_ergo.compile(program, calibration=samples),
        tvm_ergo.compile(tmp_path / "net.pt2", calibration=samples),
    ]
    with torch.no_grad():
        want = module(torch.from_numpy(samples[:8])).numpy()
    results = [np.concatenate([door.run({"x": s[None]}).outputs["output"] for s in samples[:8]]) for door in doors]
    assert np.sqrt(np.mean((results[0] - want) ** 2)) < 0.04 * want.std()
    assert all(np.array_equal(results[0], other) for other in results[1:])
    assert all(len(door.programs) == len(doors[0].programs) for door in doors)


@pytest.mark.parametrize("name", ["pictures", "sound"])
def test_the_onnx_export_of_the_module_gives_the_same(name):
    onnx = pytest.importorskip("onnx")
    module, shape = given(name)
    file = io.BytesIO()
    torch.onnx.export(module, (torch.zeros(shape),), file, dynamo=False, input_names=["x"], output_names=["y"])
    samples = array(32, *shape[1:])
    mine = tvm_ergo.compile(module, example_inputs=(torch.zeros(shape),), calibration=samples, strict=True)
    theirs = tvm_ergo.compile(onnx.load_from_string(file.getvalue()), calibration=samples, strict=True)
    with torch.no_grad():
        want = module(torch.from_numpy(samples)).numpy()
    errors = [
        np.sqrt(
            np.mean((np.concatenate([next(iter(m.run({"x": s[None]}).outputs.values())) for s in samples]) - want) ** 2)
        )
        / want.std()
        for m in (mine, theirs)
    ]
    assert max(errors) < 0.02 and abs(errors[0] - errors[1]) < 0.005


def test_float_values_names_and_several_outputs():
    module = Several().eval()
    inputs = (array(1, 3, 8, 8), array(1, 12, 8, 8))
    imported = frontend.load(module, example_inputs={"x": inputs[0], "y": inputs[1]})
    assert imported.format is frontend.SourceFormat.PYTORCH
    assert [i.name for i in imported.inputs] == ["x", "y"] and [o.name for o in imported.outputs] == [
        "both",
        "small",
        "best",
    ]
    want = module(*map(torch.from_numpy, inputs))
    for mine, theirs in zip(evaluate(imported.mod, dict(zip(imported.parameters, inputs))), want.values()):
        np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-5)


def test_layers_bear_the_names_they_have_in_the_module():
    module, shape = given("pictures")
    names = {v.name for v, _ in bindings_of(main_of(frontend.load(module, example_inputs=torch.zeros(shape)).mod))}
    assert {"stem", "deep", "head", "norm"} <= names


@pytest.mark.parametrize("kind", ["plain", "causal", "float", "bool", "scale", "groups"])
def test_attention(kind):
    options = {"plain": {}, "causal": {"is_causal": True}, "scale": {"scale": 0.3}, "groups": {"enable_gqa": True}}

    class Attention(nn.Module):
        def forward(self, q, k, v, m):
            more = options.get(kind) or (
                {"attn_mask": m if kind == "float" else m > 0} if kind in ("float", "bool") else {}
            )
            return nn.functional.scaled_dot_product_attention(q, k, v, **more)

    heads = 2 if kind == "groups" else 4
    inputs = (array(1, 4, 5, 8), array(1, heads, 7, 8), array(1, heads, 7, 8), np.abs(array(5, 7)) + 0.1)
    imported = frontend.load(Attention(), example_inputs=inputs)
    got = evaluate(imported.mod, dict(zip(imported.parameters, inputs)))[0]
    np.testing.assert_allclose(got, Attention()(*map(torch.from_numpy, inputs)).numpy(), atol=1e-5)


def test_free_dimensions_are_given():
    module, shape = given("sound")
    program = torch.export.export(
        module, (torch.zeros(2, 4, 12),), dynamic_shapes={"x": {0: torch.export.Dim("batch")}}
    )
    assert frontend.load(program).inputs[0].shape == (1, 4, 12)
    assert frontend.load(program, batch=3).inputs[0].shape == (3, 4, 12)


def test_training_mode_is_left_as_it_was():
    module, shape = given("pictures")
    module.train()
    imported = frontend.load(module, example_inputs=torch.zeros(shape))
    x = array(*shape)
    assert module.training
    np.testing.assert_allclose(
        evaluate(imported.mod, {"x": x})[0], module.eval()(torch.from_numpy(x)).detach().numpy(), atol=1e-5
    )


def test_what_is_missing_or_wrong_is_said():
    module, shape = given("pictures")
    with pytest.raises(ModelError, match="example of its inputs") as caught:
        tvm_ergo.compile(module)
    assert "example_inputs=" in caught.value.remedy
    with pytest.raises(ModelError, match="cannot export"):
        tvm_ergo.compile(module, example_inputs=torch.zeros(1, 5, 16, 16))
    with pytest.raises(ModelError, match="TorchScript"):
        frontend.load(torch.jit.script(nn.ReLU()), example_inputs=torch.zeros(1))

    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x):
            self.seen.add_(1)
            return x + self.seen

    with pytest.raises(UnsupportedError, match="changes its own state"):
        frontend.load(Counts(), example_inputs=torch.zeros(1, 2))


# ---- quantized exports ----------------------------------------------------------------------------------------------
class Quantized(nn.Module):
    """What pt2e writes: per-tensor activations, per-channel weights, biases in float."""

    def __init__(self, low: int = -128, zero: int = -128):
        super().__init__()
        import torch.ao.quantization.fx._decomposed  # noqa: F401  registers the operators

        self.low, self.zero = low, zero
        for name, shape in (("first", (8, 3, 3, 3)), ("second", (8, 1, 3, 3)), ("last", (5, 8))):
            self.register_buffer(f"{name}_weight", torch.from_numpy(RNG.integers(-127, 128, shape).astype(np.int8)))
            self.register_buffer(f"{name}_scale", torch.linspace(0.004, 0.01, shape[0]))
            self.register_buffer(f"{name}_zero", torch.zeros(shape[0], dtype=torch.int64))
            self.register_buffer(f"{name}_bias", torch.from_numpy(array(shape[0])))

    def activation(self, x, scale, zero, low=-128):
        ops = torch.ops.quantized_decomposed
        return ops.dequantize_per_tensor(
            ops.quantize_per_tensor(x, scale, zero, low, 127, torch.int8), scale, zero, low, 127, torch.int8
        )

    def weight(self, name):
        parts = (getattr(self, f"{name}_{part}") for part in ("weight", "scale", "zero"))
        return torch.ops.quantized_decomposed.dequantize_per_channel(*parts, 0, -127, 127, torch.int8), getattr(
            self, f"{name}_bias"
        )

    def forward(self, x):
        y = self.activation(x, 0.03, 7, self.low)
        y = self.activation(torch.relu(nn.functional.conv2d(y, *self.weight("first"), padding=1)), 0.02, self.zero)
        y = self.activation(
            nn.functional.hardtanh(nn.functional.conv2d(y, *self.weight("second"), stride=2, groups=8), 0, 6),
            6 / 255,
            -128,
        )
        y = self.activation(y.mean((2, 3)), 0.02, -128)
        return self.activation(nn.functional.linear(y, *self.weight("last")), 0.04, 3)


@pytest.mark.parametrize("low, zero", [(-128, -128), (-127, -128), (-100, -90)])
def test_quantized_exports_run_whole_on_the_chip(low, zero, tmp_path):
    module = Quantized(low, zero).eval()
    program = torch.export.export(module, (torch.zeros(1, 3, 12, 12),))
    torch.export.save(program, tmp_path / "net.pt2")
    compiled = tvm_ergo.compile(tmp_path / "net.pt2", strict=True)
    for x in array(6, 1, 3, 12, 12) * 2:
        got, want = compiled.run({"x": x}).outputs["output"], module(torch.from_numpy(x)).numpy()
        assert np.abs(got - want).max() < 0.0401


def test_dynamic_quantization_is_refused():
    class Dynamic(Quantized):
        def forward(self, x):
            ops = torch.ops.quantized_decomposed
            scale, zero = ops.choose_qparams(x, -128, 127, 1e-5, torch.int8)
            return ops.dequantize_per_tensor(
                ops.quantize_per_tensor(x, scale, zero, -128, 127, torch.int8), scale, zero, -128, 127, torch.int8
            )

    with pytest.raises(UnsupportedError):
        frontend.load(Dynamic(), example_inputs=torch.zeros(1, 4))


# ---- archives -------------------------------------------------------------------------------------------------------
@pytest.fixture(name="archive", scope="module")
def _archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "net.pt2"
    torch.export.save(torch.export.export(nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval(), (torch.zeros(1, 4),)), path)
    return path


def changed(archive, path, change):
    """The archive with ``change(name, bytes) -> bytes, or None to leave the member out``."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for name in source.namelist():
            data = change(name, source.read(name))
            if data is not None:
                target.writestr(name, data)
    return path


def with_graph(change):
    def of(name, data):
        if not name.endswith("models/model.json"):
            return data
        content = json.loads(data)
        change(content)
        return json.dumps(content).encode()

    return of


def _operator(content):
    content["graph_module"]["graph"]["nodes"][0]["target"] = "torch.serialization.get_default_load_endianness"


def _expression(content):
    tensor = next(iter(content["graph_module"]["graph"]["tensor_values"].values()))
    tensor["sizes"][0] = {"as_expr": {"expr_str": "len('ab')", "hint": {"as_int": 1}}}


def _container(content):
    spec = [1, {"type": "collections.defaultdict", "context": "[]", "children_spec": []}]
    content["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = json.dumps(spec)


def _pickled(name, data):
    return data.replace(b'"use_pickle": false', b'"use_pickle": true') if name.endswith("weights_config.json") else data


@pytest.mark.parametrize(
    "change, message",
    [
        (with_graph(_operator), "not one of ATen"),
        (with_graph(_expression), "no size"),
        (with_graph(_container), "container"),
        (_pickled, "pickled"),
    ],
)
def test_what_could_run_code_is_refused(archive, tmp_path, change, message):
    with pytest.raises(ModelError, match=message) as caught:
        frontend.load(changed(archive, tmp_path / "net.pt2", change))
    assert "torch.export" in caught.value.remedy


def test_sample_inputs_are_never_read(archive, tmp_path):
    path = changed(
        archive, tmp_path / "net.pt2", lambda name, data: b"not a pickle at all" if "sample_inputs" in name else data
    )
    assert frontend.load(path).inputs[0].shape == (1, 4)


def test_damaged_archives(archive, tmp_path):
    data = archive.read_bytes()
    for cut in (0, 30, len(data) // 2, len(data) - 10):
        (tmp_path / "cut.pt2").write_bytes(data[:cut])
        with pytest.raises(ModelError):
            frontend.load(tmp_path / "cut.pt2")
    with pytest.raises(ModelError):
        frontend.load(
            changed(archive, tmp_path / "short.pt2", lambda name, d: None if name.endswith("model.json") else d)
        )
    with pytest.raises(ModelError, match="cannot be read"):
        frontend.load(tmp_path / "absent.pt2")


def test_from_the_command_line(archive, tmp_path, capsys):
    np.save(tmp_path / "in.npy", array(32, 4))
    assert main(
        [
            "compile",
            str(archive),
            "--calibration",
            str(tmp_path / "in.npy"),
            "-o",
            str(tmp_path / "net.ergo"),
            "--strict",
        ]
    ) in (0, None)
    assert tvm_ergo.load(tmp_path / "net.ergo").inputs[0].shape == (1, 4)


# ---- float16 --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype, outside", [(torch.float16, np.float16), (torch.bfloat16, np.float32)])
def test_half_modules_are_compiled_as_float_ones(dtype, outside):
    module, shape = given("pictures")
    module = module.to(dtype)
    samples = array(32, *shape[1:]).astype(outside)
    compiled = tvm_ergo.compile(
        module, example_inputs=torch.zeros(shape, dtype=dtype), calibration=samples, strict=True
    )
    assert module.stem.weight.dtype == dtype
    with torch.no_grad():
        want = module.float()(torch.from_numpy(samples.astype(np.float32))).numpy()
    got = np.concatenate([compiled.run({"x": s[None]}).outputs["output"] for s in samples])
    assert got.dtype == outside
    assert np.sqrt(np.mean((got - want) ** 2)) < 0.02 * want.std()


def test_an_archive_whose_members_have_no_name_is_refused(archive, tmp_path):
    """Python's zipfile raises an IndexError of such."""
    data = archive.read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        name = source.namelist()[0].encode()
    (tmp_path / "net.pt2").write_bytes(data.replace(name, b"/" * len(name)))
    with pytest.raises(ModelError):
        frontend.load(tmp_path / "net.pt2")
