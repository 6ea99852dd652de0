"""Files of other frameworks are refused with the way to one that is read."""

import pytest

from tvm_ergo.frontend import load
from tvm_ergo.target.errors import ModelError


@pytest.mark.parametrize(
    "name, remedy",
    [
        ("net.pt", "torch.export.save"),
        ("net.pth", "example_inputs"),
        ("net.h5", "from_keras_model"),
        ("net.keras", "from_keras_model"),
        ("frozen.pb", "tf2onnx"),
        ("net.safetensors", "module in Python"),
        ("net.engine", "ONNX"),
    ],
)
def test_the_remedy_says_how_to_export(tmp_path, name, remedy):
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(ModelError, match="not read") as caught:
        load(tmp_path / name)
    assert remedy in caught.value.remedy and caught.value.available


def test_a_saved_model_is_recognised(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ModelError, match="folder") as caught:
        load(tmp_path)
    assert "from_saved_model" in caught.value.remedy and "SavedModel" in caught.value.available
