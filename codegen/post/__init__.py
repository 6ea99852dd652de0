"""Post-processing behind a network: calls of the CPU's library in the Program's own memory."""

from tvm_ergo.codegen.post.attach import Call, Kept, Piece, Post, Rows, attached

__all__ = ["Call", "Kept", "Piece", "Post", "Rows", "attached"]
