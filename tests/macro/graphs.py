"""Small Relax modules for the macro tests."""

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.relax_utils import bindings_of, op_name


def module(build, *shapes, dtype: str = "float32"):
    """A module whose main takes inputs x0, x1, ... of these shapes and returns ``build(emit, *inputs)``."""
    bb = relax.BlockBuilder()
    params = [relax.Var(f"x{i}", relax.TensorType(s, dtype)) for i, s in enumerate(shapes)]
    with bb.function("main", params):
        with bb.dataflow():
            out = bb.emit_output(build(bb.emit, *params))
        bb.emit_func_output(out)
    return bb.get()


def ops(mod) -> list[str]:
    """Operator names of main in order, without the leading ``relax.``."""
    return [op_name(v).removeprefix("relax.") for _, v in bindings_of(mod["main"])]


def random_inputs(mod, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    inputs = {}
    for p in mod["main"].params:
        shape, dtype = [int(d) for d in p.ty.shape], str(p.ty.dtype)
        inputs[p.name] = (
            rng.normal(size=shape).astype(dtype)
            if dtype.startswith("float")
            else rng.integers(-128, 128, shape).astype(dtype)
        )
    return inputs


def assert_same(before, after, tolerance: float = 1e-4) -> None:
    """Both modules give the same outputs, to ``tolerance`` of the range."""
    inputs = random_inputs(before)
    for a, b in zip(evaluate(before, inputs), evaluate(after, inputs), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        assert np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0) <= tolerance * max(
            np.ptp(a.astype(np.float64)), 1e-3
        )
