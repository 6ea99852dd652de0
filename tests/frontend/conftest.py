"""The shared models (read only, outside the repository) and real inputs for each of them."""

import io
import lzma
import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # helper modules beside the tests; pytest imports by path

REPO = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("ERGO_SHARED", REPO.parent / "shared"))

MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared models and data; skips where there is none."""
    if not (SHARED / "models").is_dir():
        pytest.skip(f"no shared models at {SHARED} (set ERGO_SHARED)")
    return SHARED


@pytest.fixture(scope="session")
def onnx_bytes(shared):
    """name below models/ -> bytes of the plain ONNX file."""

    def read(name: str) -> bytes:
        data = (shared / "models" / name).read_bytes()
        return lzma.decompress(data) if name.endswith(".xz") else data

    return read


def _jpeg(path: Path, index: int) -> np.ndarray:
    from PIL import Image

    z = np.load(path)
    data = z["jpeg"][z["offsets"][index] : z["offsets"][index + 1]].tobytes()
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _nchw(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image.astype(np.float32).transpose(2, 0, 1)[None])


def _imagenet(data: Path, i: int) -> np.ndarray:
    return _jpeg(data / "imagenet_nips17_224_jpeg1000.npz", i)


def _torch_style(image: np.ndarray) -> np.ndarray:
    return _nchw((image.astype(np.float32) / 255 - MEAN) / STD)


@pytest.fixture(scope="session")
def real_input(shared):
    """(model name, index) -> {input name: array}: one real sample, preprocessed as the manifest says."""
    data = shared / "data"

    def make(name: str, i: int) -> dict[str, np.ndarray]:
        return _SAMPLES[next(key for key in _SAMPLES if key in name)](data, i)

    return make


def _cifar(data: Path, i: int) -> np.ndarray:
    return np.load(data / "cifar10_test1000.npz")["images"][i]


def _mnist(data: Path, i: int) -> np.ndarray:
    return np.load(data / "mnist_test10000.npz")["images"][i]


def _small(data: Path, i: int) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(_imagenet(data, i)).resize((128, 128), Image.BILINEAR))


def _bnn_cifar(data: Path, i: int) -> np.ndarray:
    return _nchw(np.clip(np.floor((_cifar(data, i) / 255 * 2 - 1) * 128) / 128, -1, 127 / 128))


def _kws(data: Path, i: int) -> np.ndarray:
    return (
        (np.load(data / "kws_speechcommands_mfcc1000.npz")["mfcc_int8"][i].astype(np.float32) - 83)
        * np.float32(0.5847029)
    )[None, None]


def _text(data: Path, i: int) -> dict[str, np.ndarray]:
    z = np.load(data / "text_minilm_tokens.npz")
    key = next(k for k in z.files if z[k].ndim == 2 and z[k].shape[1] == 64)
    ids = z[key][i : i + 1].astype(np.int64)
    return {"input_ids": ids, "attention_mask": (z["token_id_original"][ids] != 0).astype(np.float32)}


def _log_mel(data: Path, i: int) -> np.ndarray:
    """No audio data is shared: 640 values in the range of log-mel energies in decibels."""
    return np.random.default_rng(i).normal(-30, 12, (1, 640)).astype(np.float32)


_SAMPLES = {
    "bnn_cnv": lambda d, i: {"input": _bnn_cifar(d, i)},
    "bnn_lfc": lambda d, i: {"input": np.where(_mnist(d, i).reshape(1, 784) >= 128, 1, -1).astype(np.float32)},
    "tfc_1w1a": lambda d, i: {"input": (_mnist(d, i).reshape(1, 784) / 255).astype(np.float32)},
    "mnist_lstm": lambda d, i: {"input": (_mnist(d, i)[None] / 255).astype(np.float32)},
    "ic_resnet8": lambda d, i: {"input": _nchw(_cifar(d, i))},
    "_cifar10": lambda d, i: {"input": _torch_style(_cifar(d, i))},
    "mobilenet_v1": lambda d, i: {"input": _nchw((_small(d, i).astype(np.float32) - 128) / 128)},
    "squeezenet": lambda d, i: {"input": _nchw(_imagenet(d, i)[..., ::-1] - np.array([104, 117, 123], np.float32))},
    "imagenet/": lambda d, i: {"input": _torch_style(_imagenet(d, i))},
    "yolox": lambda d, i: {"images": _nchw(_jpeg(d / "coco128_letterbox416.npz", i)[..., ::-1])},
    "kws": lambda d, i: {"input": _kws(d, i)},
    "vww": lambda d, i: {"input": _nchw(np.load(d / "vww_coco128_96.npz")["images"][i] / 255)},
    "ad01": lambda d, i: {"input": _log_mel(d, i)},
    "minilm": _text,
    "stories": lambda d, i: {
        "input_ids": np.load(d / "tinystories_val_tok512.npz")["tokens"][i : i + 1].astype(np.int64)
    },
    "espcn": lambda d, i: {
        "input": (np.load(d / "superres_x3_luma30.npz")["lr"][i][None, None] / 255).astype(np.float32)
    },
}


@pytest.fixture(scope="session")
def quantized_input(shared):
    """(TFLite model name, index) -> {input name: array} of a real sample in the model's integers; None where no data is
    shared."""
    data = shared / "data"

    def make(name: str, i: int) -> dict[str, np.ndarray] | None:
        rule = _QUANTIZED.get(name)
        if rule is None:
            return None
        input_name, array = rule(data, i)
        return {input_name: array}

    return make


def _person(data: Path, i: int) -> np.ndarray:
    return np.load(data / "vww_coco128_96.npz")["images"][i : i + 1]


_QUANTIZED = {
    "pretrainedResnet_quant": lambda d, i: (
        "input_1_int8",
        (_cifar(d, i)[None].astype(np.int16) - 128).astype(np.int8),
    ),
    "vww_96_int8": lambda d, i: ("input_1_int8", (_person(d, i).astype(np.int16) - 128).astype(np.int8)),
    "kws_ref_model": lambda d, i: (
        "input_1",
        np.load(d / "kws_speechcommands_mfcc1000.npz")["mfcc_int8"][i][None, ..., None],
    ),
    "mcunetv2_large": lambda d, i: (
        "input_0_f.1",
        (_imagenet(d, i)[None].astype(np.float32) - 127.5) / np.float32(127.5),
    ),
    "vww": lambda d, i: ("input_0_f.1", (_person(d, i)[:, 8:88, 8:88].astype(np.float32) - 127.5) / np.float32(127.5)),
    "tf2_mobilenet_v2_1.0_224_ptq": lambda d, i: ("input", _imagenet(d, i)[None]),
}
