"""target < relay_passes < codegen < python/tvm_ergo: each imports only from what stands to its left, by absolute
names."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = {
    "target": "tvm_ergo.target",
    "relay_passes": "tvm_ergo.relay_passes",
    "codegen": "tvm_ergo.codegen",
    "python/tvm_ergo": "tvm_ergo",
}
ORDER = list(LAYERS)
TARGET_MAY_IMPORT_TVM = {"tags.py"}
"""The file of ``target`` that registers TVM target tags; the rest of it needs numpy only."""


def files() -> list[tuple[str, Path]]:
    return [(layer, path) for layer in ORDER for path in sorted((ROOT / layer).rglob("*.py"))]


def imported_names(tree: ast.AST) -> list[tuple[int, int, str]]:
    """(line, level, module) of every import of a module, wherever it stands, also of ``from package import
    submodule``."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, 0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.lineno, node.level, node.module or ""))
            found += [
                (node.lineno, node.level, f"{node.module}.{alias.name}")
                for alias in node.names
                if node.module == "tvm_ergo"
            ]
    return found


def layer_of(module: str) -> str | None:
    """The layer a module of ours belongs to; None for other packages and the bare package name."""
    if module != "tvm_ergo" and not module.startswith("tvm_ergo."):
        return None
    for layer in ORDER[:-1]:
        name = LAYERS[layer]
        if module == name or module.startswith(name + "."):
            return layer
    return ORDER[-1]


def test_there_is_something_to_check():
    assert {layer for layer, _ in files()} == set(ORDER) and len(files()) > 50


@pytest.mark.parametrize("layer", ORDER)
def test_imports_point_one_way(layer):
    wrong = []
    for owner, path in files():
        if owner != layer:
            continue
        for line, level, module in imported_names(ast.parse(path.read_text(encoding="utf-8"))):
            other = layer_of(module)
            # ``from tvm_ergo import x`` names the package first and x as a second entry
            if level or (other is not None and module != "tvm_ergo" and ORDER.index(other) > ORDER.index(layer)):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {'.' * level}{module}")
    assert wrong == []


def test_the_machine_needs_no_compiler():
    wrong = []
    for owner, path in files():
        if owner == "target" and path.name not in TARGET_MAY_IMPORT_TVM:
            wrong += [
                f"{path.relative_to(ROOT)}:{line}: {module}"
                for line, _, module in imported_names(ast.parse(path.read_text(encoding="utf-8")))
                if module.split(".")[0] in ("tvm", "tvm_ffi", "onnx")
            ]
    assert wrong == []


def test_a_wrong_import_would_be_seen():
    tree = ast.parse(
        "from tvm_ergo import codegen\nfrom tvm_ergo.frontend import load\nfrom . import x\nimport tvm_ergo.target.isa"
    )
    names = imported_names(tree)
    seen = {layer_of(m) for _, level, m in names if not level and m != "tvm_ergo"}
    assert seen == {"codegen", "python/tvm_ergo", "target"}
    assert any(level == 1 for _, level, _ in names)


def test_what_is_imported_of_ours_is_there():
    """Also inside functions, in benchmarks and in modules that no other test imports."""
    wrong = []
    for path in [*(path for _, path in files()), *sorted((ROOT / "benchmarks").glob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.ImportFrom)
                and (node.module or "").split(".")[0] == "tvm_ergo"
                and ".retrain" not in node.module
            ):  # an extra
                if node.module.rpartition(".")[2].startswith("torch_") and not importlib.util.find_spec("torch"):
                    continue  # the extra ``torch`` is not installed
                module = importlib.import_module(node.module)
                wrong += [
                    f"{path.relative_to(ROOT)}:{node.lineno}: {node.module}.{alias.name}"
                    for alias in node.names
                    if not hasattr(module, alias.name)
                    and importlib.util.find_spec(f"{node.module}.{alias.name}") is None
                ]
    assert wrong == []
