"""Every tutorial runs from top to bottom. The committed notebooks hold no outputs, but for those that need a board's
packages or networks that are not here: their outputs show what comes, pictures as PNG or SVG."""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tvm_ergo.evaluation import has_shared

BOARD = {
    "make": "make",
    "arm-none-eabi-gcc": "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "qemu-system-arm": "qemu-system-arm",
}
EXECUTED = ("05_text_on_the_chip", "06_firmware")
NOTEBOOKS = sorted((Path(__file__).parents[2] / "tutorials").glob("*.ipynb"))


def test_there_are_tutorials():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    if path.stem in EXECUTED:
        counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
        assert counts == list(range(1, len(counts) + 1)), "commit this notebook as it ran, from top to bottom"
        assert {o.output_type for o in outputs} == {"stream", "execute_result"}, "no errors"
        assert all({"image/png", "image/svg+xml"} & set(o.data) for o in outputs if "data" in o), "static pictures"
    else:
        assert not outputs, "commit notebooks without outputs"
    if any("import torch" in cell.source for cell in notebook.cells):
        pytest.importorskip("torch", reason="this tutorial needs the extra 'retrain' (PyTorch)")
    if any("shared_root" in cell.source for cell in notebook.cells) and not has_shared():
        pytest.skip("this tutorial needs the shared networks and data")
    for tool, packages in BOARD.items():
        if any(f'"{tool}"' in cell.source for cell in notebook.cells) and shutil.which(tool) is None:
            pytest.skip(f"apt-get install {packages}")
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
