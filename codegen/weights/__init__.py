"""Constant weights in coded form: which constants, with which codec, in which panels. The page of it all:
docs/weights.md."""
