"""Tuning folders that anybody may have written: our own error, whatever a part of them says. The digest of the plans is
made anew: it is no signature."""

import json
import shutil

import pytest

import tvm_ergo
from tvm_ergo.target.errors import ErgoError
from tvm_ergo.tuning.store import digest_of

MEMORY = 10 * 1024
HARMLESS = {"memory_bytes": (5, -1), "format": (True,)}  # less than the chip has; equal to 1
VALUES = (None, 5, -1, 1.5, "x", [], {}, [[]], True, 1 << 80)


def compiled(folder, make_net):
    return tvm_ergo.compile(make_net(), memory=MEMORY, database=folder)


def places(value, path=()):
    """Every place of a JSON value, as keys."""
    yield path
    for key, part in (
        value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    ):
        yield from places(part, (*path, key))


def changed(value, path, new):
    if not path:
        return new
    made = dict(value) if isinstance(value, dict) else list(value)
    made[path[0]] = changed(value[path[0]], path[1:], new)
    return made


@pytest.fixture(scope="module")
def tuned(make_net, tmp_path_factory):
    made = tmp_path_factory.mktemp("tuned") / "a"
    tvm_ergo.tune(make_net(), out=made, memory=MEMORY, trials=8)
    return made


@pytest.fixture
def folder(tuned, tmp_path):
    return shutil.copytree(tuned, tmp_path / "forged")


def test_manifests_without_a_part(folder, make_net):
    whole = json.loads((folder / "manifest.json").read_text())
    for key in ("version", "chip", "chip_digest", "memory_bytes", "format"):
        for wrong in (
            {k: v for k, v in whole.items() if k != key},
            *({**whole, key: value} for value in VALUES if value not in HARMLESS.get(key, ())),
        ):
            (folder / "manifest.json").write_text(json.dumps(wrong))
            with pytest.raises(ErgoError):
                compiled(folder, make_net)
    for text in (
        "[" * 100_000,
        "{" * 3,
        "[]",
        "null",
        '{"a": NaN}',
        "",
        "\ud800".encode("utf-8", "surrogatepass").decode("latin1"),
    ):
        (folder / "manifest.json").write_text(text)
        with pytest.raises(ErgoError):
            compiled(folder, make_net)


def test_plans_with_other_parts(folder, make_net):
    """Each place of the record takes other values: an error of ours, or a Program that passed all checks."""
    best = json.loads((folder / "best.json").read_text())
    for path in list(places(best["functions"]))[::3]:
        for value in VALUES[::3]:
            functions = changed(best["functions"], path, value)
            (folder / "best.json").write_text(
                json.dumps({**best, "functions": functions, "digest": digest_of(functions)})
            )
            try:
                compiled(folder, make_net)
            except ErgoError:
                pass


def test_a_plan_of_nothing_says_so(folder, make_net):
    best = json.loads((folder / "best.json").read_text())
    ((key, record),) = best["functions"].items()
    for wrong in (
        {},
        {**record, "plan": []},
        {**record, "plan": {}},
        {**record, "codings": {"x": ["NONE", 1]}},
        {**record, "codings": 5},
        {**record, "waiting": {"x": {"y": 1}}},
    ):
        functions = {key: wrong}
        (folder / "best.json").write_text(json.dumps({**best, "functions": functions, "digest": digest_of(functions)}))
        with pytest.raises(ErgoError):
            compiled(folder, make_net)


def test_trials_of_another_kind(folder):
    from tvm_ergo.codegen.tuning.log import Log

    lines = (folder / "trials.jsonl").read_text().splitlines()
    trial = json.loads(lines[0])
    assert Log(folder / "trials.jsonl", resume=True).known
    for wrong in (
        {"task": []},
        {"way": {}},
        {"values": 5},
        {"values": ["x"]},
        {"values": [1.5]},
        {"figures": []},
        {"figures": {"cycles": []}},
    ):
        (folder / "trials.jsonl").write_text(json.dumps({**trial, **wrong}) + "\n")
        try:
            Log(folder / "trials.jsonl", resume=True)
        except ErgoError:
            continue
        assert wrong == {"figures": []}  # as good as none: a way that could not be carried out
