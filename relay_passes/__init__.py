"""Passes over Relax modules (Relay's successor; the folder keeps the old name): macro, micro, compile."""

assert __name__ == "tvm_ergo.relay_passes", f"import this package as tvm_ergo.relay_passes, not {__name__}"
