"""Tuning: `tvm_ergo.tune`, its work directory, and what compilation takes from it (docs/tuning.md)."""
