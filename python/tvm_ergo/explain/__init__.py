"""What each error of the product means, what usually causes it and what to type: ``tvm-ergo explain CODE`` and
docs/errors.md. The code of an error is its class's name, which every message begins with."""

from tvm_ergo.explain.entries import ENTRIES as ENTRIES
from tvm_ergo.explain.entries import EXIT_CODES as EXIT_CODES
from tvm_ergo.explain.entries import Explanation as Explanation
from tvm_ergo.explain.entries import explanation as explanation
