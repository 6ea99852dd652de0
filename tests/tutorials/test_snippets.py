"""Commands and Python of README and docs: every command is one the parser takes; the cheap ones run as printed, in the
order they are printed in."""

import ast
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

import tvm_ergo
from tvm_ergo import zoo
from tvm_ergo.cli import build_parser, main
from tvm_ergo.evaluation.tflite.situations import RANGE, B, Network, Of, Op, W, X

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CHEAP = ("card", "compare", "compile", "report", "run", "eval", "disasm", "targets", "ops", "export-c")
SLOW_CALLS = {"compress", "tune", "explore", "retrain", "exported", "Phase"}
"""Minutes each; they have tests of their own. Nothing that follows from their results is run either."""
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for language, text in FENCE.findall(page.read_text()) if language in languages]


def commands(page: Path) -> list[str]:
    """Lines that begin with the command, without comments and pipes; those with ``...`` stand for several."""
    found = []
    for text in blocks(page, "sh", ""):
        for line in text.replace("\\\n", " ").splitlines():
            line = re.match(r'(?:"[^"]*"|[^"])*?(?=\s[#|>&]|$)', line.strip())[0].strip()  # not within quotes
            if line.startswith("tvm-ergo ") and " ..." not in line:
                found.append(line)
    return found


ALL = [(page.name, line) for page in PAGES for line in commands(page)]


@pytest.mark.parametrize("page, line", ALL)
def test_every_command_is_one_that_can_be_typed(page, line):
    build_parser().parse_args(shlex.split(line)[1:])


def test_commands_are_found():
    assert len(ALL) >= 25 and {shlex.split(line)[1] for _, line in ALL} >= {*CHEAP, "compress", "explore", "tune"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files that the pages name, small: digits for net.onnx, two convolutions for net.tflite."""
    place = tmp_path_factory.mktemp("snippets")
    model = onnx.load(zoo.DIGITS_MODEL)
    old = model.graph.input[0].name
    for node in model.graph.node:
        node.input[:] = ["input" if name == old else name for name in node.input]
    model.graph.input[0].name = "input"
    onnx.save(model, place / "net.onnx")
    train, train_labels, test, labels = zoo.digits()
    np.save(place / "image.npy", test[:1])
    np.savez(place / "images.npz", input=train[:64])
    np.savez(place / "train.npz", x=train[:64], y=train_labels[:64])
    np.savez(place / "test.npz", x=test[:40], y=labels[:40])
    first = Op("CONV_2D", (X((1, 16, 16, 3)), W((8, 3, 3, 3)), B(8)), "Conv2DOptions",
               {"padding": 0, "stride_w": 2, "stride_h": 2}, RANGE, 1, 3, "t0")  # fmt: skip
    second = Op("CONV_2D", (Of("t0"), W((4, 3, 3, 8)), B(4)), "Conv2DOptions",
                {"padding": 0, "stride_w": 1, "stride_h": 1}, RANGE, 1, 3, "t1")  # fmt: skip
    (place / "net.tflite").write_bytes(Network([first, second], 0).data("int8"))
    return place


USE = ROOT / "docs" / "use.md"


def test_the_cheap_commands_run(folder, monkeypatch, capsys):
    """Of the page first: it makes the files that the README's last example begins with."""
    monkeypatch.chdir(folder)
    ran = 0
    for line in [*commands(USE), *commands(ROOT / "README.md")]:
        words = shlex.split(line)[1:]
        if words[0] not in CHEAP or "--database" in words or any(w.endswith(".pt2") for w in words):
            continue
        if any(w.endswith(".tflite") for w in words) and "--calibration" in words:
            continue  # in.npz: calibration data of another network
        code = main(words)
        if words[0] == "export-c":
            shutil.rmtree(words[words.index("-o") + 1])
        assert code == 0, f"{line}\n{capsys.readouterr().err}"
        ran += 1
    assert ran >= 18


def statements(text: str) -> list[ast.stmt]:
    """Those that take no minutes and need nothing of those that do."""
    kept, missing = [], set()
    for node in ast.parse(text).body:
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} | {
            n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)
        }
        if names & (SLOW_CALLS | missing):
            missing |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        else:
            kept.append(node)
    return kept


@pytest.mark.parametrize("page, least", [(ROOT / "README.md", 4), (USE, 16)], ids=["README", "use"])
def test_the_python_runs(page, least, folder, monkeypatch):
    """In one session, as a reader would type it."""
    monkeypatch.chdir(folder)
    train, _, test, labels = zoo.digits()
    names = {"tvm_ergo": tvm_ergo, "images": train[:64], "image": test[:1], "test_images": test[:40], "labels": labels}
    ran = 0
    for text in blocks(page, "python"):
        for node in statements(text):
            code = compile(ast.Module([node], []), f"{page.name}: {ast.unparse(node)[:80]}", "exec")
            exec(code, names)
            ran += 1
    assert ran >= least and (folder / "net.ergo").exists() and (page != USE or (folder / "net.so").exists())


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_of_the_pages_names_what_there_is(page):
    """Also of what takes minutes: attributes of the package, and what is imported from it."""
    for text in blocks(page, "python"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "tvm_ergo":
                assert hasattr(tvm_ergo, node.attr) or (ROOT / "python/tvm_ergo" / node.attr).exists(), node.attr


def test_the_python_page_lists_what_the_package_offers():
    """`python -m tvm_ergo.python_page > docs/python.md` prints it."""
    from tvm_ergo.python_page import page

    printed = (ROOT / "docs/python.md").read_text()
    assert page().startswith("# In Python") and {f"## `tvm_ergo.{n}`" for n in tvm_ergo.__all__} <= set(
        printed.splitlines()
    )


def test_the_chip_file_page_names_every_key():
    from tvm_ergo.target.chip import chip

    text = (ROOT / "docs/chip_file.md").read_text()
    data = chip("ergo/1").to_json()
    inner = {key for part in ("tensor", "gating", "energy") for key in data[part]}
    assert not [key for key in (*data, *inner) if f"`{key}`" not in text]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_of_the_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", FENCE.sub("", page.read_text())):
        if not target.startswith(("http", "mailto")):
            assert (page.parent / target).exists(), target
