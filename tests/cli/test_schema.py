"""The published JSON Schemas are current, and what the commands write is what they say."""

import json
from pathlib import Path

import jsonschema
import pytest

from tvm_ergo import zoo
from tvm_ergo.cli import main
from tvm_ergo.schemas import RESULTS, result_class, schema_text

FOLDER = Path(__file__).parents[2] / "docs" / "schema"


@pytest.mark.parametrize("name", RESULTS)
def test_published_schemas_are_current(name, capsys):
    published = (FOLDER / f"{name}.json").read_text()
    assert published == schema_text(name) + "\n", f"run: tvm-ergo schema {name} > docs/schema/{name}.json"
    jsonschema.Draft202012Validator.check_schema(json.loads(published))
    assert main(["schema", name]) == 0 and capsys.readouterr().out == published
    assert "schema_version" in result_class(name).model_fields


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    import numpy as np

    folder = tmp_path_factory.mktemp("schema")
    train, _, _, _ = zoo.digits()
    np.save(folder / "samples.npy", train[:16])
    return folder, [str(zoo.DIGITS_MODEL), "--calibration", str(folder / "samples.npy")]


@pytest.mark.parametrize(
    "name, words",
    [
        ("report", ["report", "MODEL"]),
        ("report", ["compile", "MODEL"]),
        ("card", ["card", "MODEL", "--battery", "CR2032"]),
        ("compare", ["compare", "MODEL", str(zoo.DIGITS_MODEL), "--target-b", "ergo/2"]),
        ("explore", ["explore", "MODEL", "--points", "2"]),
    ],
)
def test_results_are_what_the_schema_says(name, words, model, capsys, monkeypatch):
    folder, given = model
    monkeypatch.chdir(folder)
    typed = [w for word in words for w in (given if word == "MODEL" else [word])]
    assert main([*typed, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator(json.loads((FOLDER / f"{name}.json").read_text())).validate(found)
    assert found["schema_version"] == 1
