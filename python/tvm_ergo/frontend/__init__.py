"""Frontends: ONNX, TFLite and Relax models as one :class:`Imported`."""

from tvm_ergo.frontend.imported import Imported, SourceFormat, TensorInfo
from tvm_ergo.frontend.load import load

assert __name__ == "tvm_ergo.frontend", "import it as tvm_ergo.frontend"
__all__ = ["Imported", "SourceFormat", "TensorInfo", "load"]
