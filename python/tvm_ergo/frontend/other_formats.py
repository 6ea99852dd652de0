"""Files of other frameworks: what they are and how the model in them becomes one that is read."""

from __future__ import annotations

from pathlib import Path

from tvm_ergo.target.errors import ModelError

PYTORCH_SUFFIX = ".pt2"
_TORCH = (
    "load the module in Python, then tvm_ergo.compile(module, example_inputs=(x,), calibration=...), or "
    "torch.export.save(torch.export.export(module.eval(), (x,)), 'net.pt2')"
)
_KERAS = (
    "tf.lite.TFLiteConverter.from_keras_model(tf.keras.models.load_model(FILE)).convert() gives a .tflite file, "
    "model.export(FILE, format='onnx') of Keras 3 an "
    ".onnx file"
)
_SAVED = (
    "tf.lite.TFLiteConverter.from_saved_model(FOLDER).convert() gives a .tflite file, python -m tf2onnx.convert "
    "--saved-model FOLDER --output net.onnx an .onnx file"
)
_WEIGHTS = "weights alone are no network: load them into their module in Python and export that"
_FORMATS = {
    (".pt", ".pth", ".ckpt", ".torchscript"): (
        "a pickled PyTorch or TorchScript file, which would run code of its own when it is read",
        _TORCH,
    ),
    (".ptl", ".pte"): ("a PyTorch file made for another runtime", _TORCH),
    (".h5", ".hdf5", ".keras"): ("a Keras file", _KERAS),
    (".pb", ".pbtxt"): ("a TensorFlow graph", _SAVED),
    (".safetensors", ".npz", ".npy", ".bin"): ("arrays without a network", _WEIGHTS),
    (".mlmodel", ".mlpackage"): ("a Core ML file", "export the model to ONNX from the framework it was trained in"),
    (".engine", ".plan", ".xml", ".param", ".caffemodel", ".prototxt", ".cfg", ".weights", ".pdmodel", ".nb", ".mnn"): (
        "a file of another framework",
        "export the model to ONNX (opset 11 or newer) from the framework it was trained in",
    ),
}


def refuse_other_formats(path: Path) -> None:
    """Errors: ModelError for what is known to be no model of ours, with the way to one."""
    if path.is_dir():
        saved = (path / "saved_model.pb").exists()
        raise ModelError(
            "this is a folder, not a model file",
            where=str(path),
            available="a TensorFlow SavedModel" if saved else "a folder",
            remedy=_SAVED if saved else "give the file in it: .onnx, .tflite, .pt2 or .ergoz",
        )
    for suffixes, (what, remedy) in _FORMATS.items():
        if path.suffix.lower() in suffixes:
            raise ModelError(
                "models of this format are not read",
                where=str(path),
                available=what,
                required="an .onnx, .tflite or .pt2 file",
                remedy=remedy,
            )
