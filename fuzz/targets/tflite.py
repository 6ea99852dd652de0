"""TFLite flatbuffers."""

from __future__ import annotations

from pathlib import Path

from fuzz import mutate
from fuzz.engine import Target
from tvm_ergo import frontend

CORPUS = Path(__file__).resolve().parent.parent / "corpus"
TARGET = Target(
    lambda: [path.read_bytes() for path in sorted(CORPUS.glob("*.tflite"))],
    mutate.some_bytes,
    lambda data: frontend.load(data),
)
