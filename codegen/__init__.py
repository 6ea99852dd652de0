"""The road from a subproblem to a Program: lowering, memory planning, validation, the native runtime module."""

assert __name__ == "tvm_ergo.codegen", f"import this package as tvm_ergo.codegen, not {__name__}"
