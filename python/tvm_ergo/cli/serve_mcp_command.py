"""Offers compile, card, explore, compare, ops and explain to coding agents by the Model Context Protocol, on standard
input and output. Needs the extra: pip install 'tvm-ergo[mcp]'

{"mcpServers": {"tvm-ergo": {"command": "tvm-ergo", "args": ["serve-mcp"]}}}
"""

from __future__ import annotations

HELP = "offer the commands to coding agents (Model Context Protocol)"


def add_arguments(parser) -> None:
    pass


def run(arguments) -> int:
    from tvm_ergo.target.errors import UnsupportedError

    try:
        from tvm_ergo.mcp_server import server
    except ImportError as error:
        raise UnsupportedError(
            "the Model Context Protocol is not installed here",
            where="serve-mcp",
            available=str(error),
            remedy="pip install 'mcp>=2.3,<3'",
        ) from None
    server().run()
    return 0
