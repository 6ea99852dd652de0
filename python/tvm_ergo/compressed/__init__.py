"""Compressed networks: their file, and what compressing does."""

from tvm_ergo.compressed.file import SUFFIX, Contents, is_compressed, pack, unpack, write

__all__ = ["SUFFIX", "Contents", "is_compressed", "pack", "unpack", "write"]
