"""Energies are equal on every version of Python: nothing sums them with the built-in, which rounds otherwise from 3.12
on."""

import ast
from pathlib import Path

import tvm_ergo.codegen
import tvm_ergo.target
from tvm_ergo.target.sums import added

FIGURES = ("_pj", "energy", "_mw", ".pj", "leak", "price")


def test_values_are_added_one_after_another():
    assert (
        added([1e16, 1.0, -1e16]) == 0.0 and added([0.1] * 10) == 0.9999999999999999
    )  # 1.0 if rounding were compensated
    assert added([]) == 0 and added([1, 2]) == 3 and isinstance(added([1, 2]), int)


def test_no_energies_are_summed_by_the_built_in():
    found = []
    for root in (Path(tvm_ergo.target.__file__).parent, Path(tvm_ergo.codegen.__file__).parent):
        for file in root.rglob("*.py"):
            source = file.read_text()
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "sum":
                    text = ast.get_source_segment(source, node)
                    if any(word in text for word in FIGURES) and "round(" not in text:  # whole numbers are exact
                        found.append(f"{file.name}: {text}")
    assert not found
