"""Order in time: which order of a graph's nodes needs the fewest live bytes, and how sure that is."""

from tvm_ergo.codegen.order.choose import Ordering, best_order, reordered

__all__ = ["Ordering", "best_order", "reordered"]
