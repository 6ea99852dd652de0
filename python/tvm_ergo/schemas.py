"""JSON Schemas of the results: docs/schema/NAME.json, ``tvm-ergo schema NAME``.

``schema_version`` of a result grows when a field is taken away or means something else, not when one is added."""

from __future__ import annotations

import json
from importlib import import_module

RESULTS = {
    "report": ("tvm_ergo.report.model", "Report"),
    "card": ("tvm_ergo.card.model", "Card"),
    "compare": ("tvm_ergo.card.difference", "Difference"),
    "explore": ("tvm_ergo.report.front", "Front"),
    "tune": ("tvm_ergo.tuning.result", "TuningResult"),
    "compress": ("tvm_ergo.compressed.report", "CompressionReport"),
}
"""By command whose ``--json`` writes it (``compile --json`` and ``report --json`` write the same): where it is
defined."""


def result_class(name: str) -> type:
    """The pydantic class of a command's JSON. Errors: KeyError."""
    module, cls = RESULTS[name]
    return getattr(import_module(module), cls)


def schema_text(name: str) -> str:
    """The JSON Schema (2020-12) of a command's JSON, as text. Errors: KeyError."""
    schema = result_class(name).model_json_schema(mode="serialization")
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=1)
