"""Environment variables stand in one table, and nothing reads another."""

from __future__ import annotations

import ast
from pathlib import Path

from tvm_ergo.target import environment

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_what_the_table_says():
    page = (ROOT / "docs" / "environment.md").read_text(encoding="utf-8")
    assert page == environment.page(), "run: python -m tvm_ergo.target.environment > docs/environment.md"


def test_no_other_file_reads_the_environment():
    readers = []
    for folder in ("target", "relay_passes", "codegen", "python"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            names = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
            if names & {"environ", "getenv"}:
                readers.append(path.relative_to(ROOT).as_posix())
    assert readers == ["target/environment.py"], "add the variable to target/environment.py and read it there"


def test_names_are_said_once():
    names = [variable.name for variable in environment.TABLE]
    assert len(set(names)) == len(names)
    defined = {v.name for v in vars(environment).values() if isinstance(v, environment.Variable)}
    assert defined == set(names)
