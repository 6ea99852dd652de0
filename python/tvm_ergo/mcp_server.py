"""The product's commands as tools of the Model Context Protocol. Each call is a process of its own, as if it had been
typed with ``--json -``: what it prints cannot get into the protocol, and a crash ends that call alone."""

from __future__ import annotations

import json
import subprocess
import sys

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

INSTRUCTIONS = (
    "Answers whether a trained network (.onnx, .tflite, .pt2, .ergoz) runs inside the memory and the power of an "
    "Ergo-like edge chip, which is assumed and emulated, and what to change so that it does. Start with card. Float "
    "networks need calibration: an .npz of example inputs. Errors hold a remedy; explain has more."
)
TIMEOUT_S = 1800


def server() -> MCPServer:
    """With all tools. Errors of a tool carry the command's message."""
    found = MCPServer("tvm-ergo", instructions=INSTRUCTIONS, log_level="WARNING")
    for tool in (card, compile, explore, compare, ops, explain):
        found.tool()(tool)
    return found


def card(model: str, target: str = "ergo", memory: str = "", calibration: str = "", stream: bool = False) -> dict:
    """Five answers about a network on a chip: whole, memory, latency, energy, accuracy; and what falls off, with
    remedies. memory: a limit, e.g. "512KiB". calibration: .npz of inputs, for float networks. stream: the picture comes
    row by row."""
    return _json("card", model, **_chosen(target, memory, calibration), stream=stream)


def compile(  # the tool is called as the command is
    model: str, output: str, target: str = "ergo", memory: str = "", calibration: str = "", stream: bool = False
) -> dict:
    """Compiles a network for a chip into a file (.ergo) and returns its report: layers, memory map, energy, power, host
    operators."""
    return _json("compile", model, **_chosen(target, memory, calibration), stream=stream, output=output)


def explore(model: str, target: str = "ergo", calibration: str = "", stream: bool = False, points: int = 8) -> dict:
    """What each size of memory buys in time and energy: the Pareto front of one network."""
    return _json("explore", model, **_chosen(target, "", calibration), stream=stream, points=str(points))


def compare(a: str, b: str, target: str = "ergo", target_b: str = "", calibration: str = "") -> dict:
    """What becomes better or worse from A to B (networks, compiled models or reports' JSON), layer by layer."""
    return _json("compare", a, b, **_chosen(target, "", calibration), target_b=target_b)


def ops(operator: str = "") -> list[dict]:
    """The operators that run on the chip with their constraints; one of them by name."""
    return _json("ops", *([operator] if operator else []))


def explain(code: str = "") -> dict:
    """What an error (the first word of a message) means, its causes, and what to type; without code, all of them."""
    return _json("explain", *([code] if code else []))


def _chosen(target: str, memory: str, calibration: str) -> dict[str, str]:
    return {"target": "" if target == "ergo" else target, "memory": memory, "calibration": calibration}


def _json(command: str, *files: str, **options: str | bool):
    """What the command writes with ``--json -``. Values are joined to their options, files stand behind ``--``: none
    is taken for another option. Errors: ToolError with the command's message."""
    words = [f"--{name.replace('_', '-')}" + (f"={v}" if v is not True else "") for name, v in options.items() if v]
    typed = [sys.executable, "-P", "-m", "tvm_ergo.cli", command, "--json=-", *words, "--", *files]
    try:
        done = subprocess.run(typed, capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise ToolError(f"{command} took more than {TIMEOUT_S} s") from None
    if done.returncode:
        raise ToolError(done.stderr.strip()[-4000:] or f"{command} ended with code {done.returncode}")
    return json.loads(done.stdout)
