"""Slow measurements, run by hand: ``python -m benchmarks.NAME``."""
