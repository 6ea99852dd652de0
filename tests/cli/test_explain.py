"""Every error of the product is explained, and what is to be typed are commands that there are."""

import json
import re
import shlex
from pathlib import Path

import pytest

from tvm_ergo.cli import build_parser, main
from tvm_ergo.explain import ENTRIES, EXIT_CODES
from tvm_ergo.explain.page import page
from tvm_ergo.target import errors

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


def test_every_error_is_explained():
    raised = {c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.ErgoError)}
    assert set(ENTRIES) == raised - {errors.ErgoError}, "python/tvm_ergo/explain/entries.py holds an entry for each"
    for entry in ENTRIES.values():
        assert entry.means.endswith(".") and entry.causes and entry.commands


@pytest.mark.parametrize("command", sorted({c for e in ENTRIES.values() for c in e.commands}))
def test_commands_are_commands(command):
    program, *words = shlex.split(command)
    assert program == "tvm-ergo"
    build_parser().parse_args(words)


def test_options_that_causes_name_exist():
    helps = "".join(p.format_help() for p in build_parser()._commands().values())
    for entry in ENTRIES.values():
        for option in re.findall(r"--[a-z-]+[a-z]", " ".join(entry.causes)):
            assert option in helps, option


@pytest.mark.parametrize("code", ["OutOfMemoryError", "outofmemory", "OUTOFMEMORYERROR"])
def test_a_code_is_found_however_it_is_written(code, capsys):
    assert main(["explain", code]) == 0
    out = capsys.readouterr().out
    assert out.startswith("OutOfMemoryError\n") and "  tvm-ergo explore net.tflite --stream\n" in out
    assert max(map(len, (line for line in out.splitlines() if not line.startswith("  tvm-ergo")))) <= 80


def test_the_list_names_all_and_the_exit_codes(capsys):
    assert main(["explain", "--json", "-"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [e["code"] for e in told["errors"]] == [c.__name__ for c in ENTRIES]
    assert told["exit_codes"] == {str(code): text for code, text in EXIT_CODES.items()}


def test_an_unknown_code_names_the_nearest(capsys):
    assert main(["explain", "Memry"]) == 2
    assert "remedy: tvm-ergo explain OutOfMemoryError" in capsys.readouterr().err
    assert main(["explain", "xyzzy"]) == 2
    assert "remedy: tvm-ergo explain\n" in capsys.readouterr().err


def test_the_page_is_current():
    assert PAGE.read_text() == page(), "run: python -m tvm_ergo.explain.page > docs/errors.md"
