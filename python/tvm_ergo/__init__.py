"""tvm_ergo: trained networks inside the memory and the power of an edge chip."""

__version__ = "0.1.0"


def _autoload() -> None:
    """Entry point ``tvm.backends``: called by ``import tvm``; must be quick and must not raise."""
