"""The machine: what an instruction means and what it costs. Knows bytes, cycles and joules, and no graph."""

assert __name__ == "tvm_ergo.target", f"import this package as tvm_ergo.target, not {__name__}"
