"""The tools that coding agents see, called through the protocol's own client."""

import json
import sys

import numpy as np
import pytest

from tvm_ergo import zoo
from tvm_ergo.cli import main


def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys):
    for name in ("mcp", "mcp.server", "mcp.server.mcpserver", "tvm_ergo.mcp_server"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["serve-mcp"]) == 2
    assert "remedy: pip install 'mcp>=2.3,<3'" in capsys.readouterr().err


@pytest.fixture
def call():
    """``call(tool, **arguments)``: ``(whether it failed, text)``."""
    pytest.importorskip("mcp.server.mcpserver", reason="pip install 'mcp>=2.3,<3'")
    import anyio
    from mcp import Client

    from tvm_ergo.mcp_server import server

    def calls(tool: str, **arguments):
        async def talk():
            async with Client(server()) as client:
                names = {t.name for t in (await client.list_tools()).tools}
                assert names == {"card", "compile", "explore", "compare", "ops", "explain"}
                found = await client.call_tool(tool, arguments)
                return found.is_error, "".join(part.text for part in found.content)

        return anyio.run(talk)

    return calls


@pytest.fixture
def samples(tmp_path):
    np.save(tmp_path / "samples.npy", zoo.digits()[0][:16])
    return str(tmp_path / "samples.npy")


def test_a_card_through_the_protocol(call, samples):
    failed, text = call("card", model=str(zoo.DIGITS_MODEL), calibration=samples)
    assert not failed and json.loads(text)["model"].endswith("digits_cnn.onnx")


def test_an_error_carries_the_remedy(call):
    failed, text = call("card", model="nowhere.onnx")
    assert failed and "there is no such model file" in text and "remedy" in text


def test_no_value_is_taken_for_an_option(call, samples, tmp_path):
    failed, text = call("card", model=f"--html={tmp_path / 'page.html'}")
    assert failed and not (tmp_path / "page.html").exists()
    chosen = {"calibration": samples, "memory": "1MiB", "output": str(tmp_path / "net.ergo")}
    failed, text = call("compile", model=str(zoo.DIGITS_MODEL), **chosen)
    assert not failed and (tmp_path / "net.ergo").exists()
