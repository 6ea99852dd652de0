"""Macro stage: large-scale structure of the network; everything up to the normal form."""

from tvm_ergo.relay_passes.macro.pipeline import normalize, passes
from tvm_ergo.relay_passes.macro.verify import verify_normal_form

assert __name__ == "tvm_ergo.relay_passes.macro", "import it as tvm_ergo.relay_passes.macro"
__all__ = ["normalize", "passes", "verify_normal_form"]
