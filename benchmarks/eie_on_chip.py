"""Part of `eie`: a layer on the emulated chip, as dense convolution (cost alone: most do not fit the memory) and as
SPMV (run)."""

from __future__ import annotations

import numpy as np

from tvm_ergo.target import numerics
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.isa import Conv, Halt, Spmv, contiguous
from tvm_ergo.target.isa.cost import Cost
from tvm_ergo.target.machine import Machine
from tvm_ergo.target.program import Port, Program
from tvm_ergo.target.sparse.form import stored

SHIFT = 38
REQUANT = dict(out_zp=-5, lo=-128, hi=127)


def dense_cost(outputs: int, inputs: int, chip: Chip) -> Cost:
    """Of the tensor engine's convolution with int8 weights."""
    vector = contiguous(0, "int32", (outputs,))
    return Conv(
        x=contiguous(0, "int8", (1, 1, 1, inputs)),
        w=contiguous(0, "int8", (outputs, 1, 1, inputs)),
        bias=vector,
        mult=vector,
        shift=contiguous(0, "int8", (outputs,)),
        out=contiguous(0, "int8", (1, 1, 1, outputs)),
        strides=(1, 1),
        padding=(0, 0, 0, 0),
        dilation=(1, 1),
        groups=1,
        in_zp=0,
        w_zp=0,
        **REQUANT,
    ).cost(chip)


def run_sparse(matrix: np.ndarray, active: np.ndarray, chip: Chip, seed: int):
    """The trace of the layer's SPMVs (one for as many outputs as the engine has sums) on random int8 inputs, nonzero
    where ``active``, whose outputs were checked."""
    rng, (outputs, inputs) = np.random.default_rng(seed), matrix.shape
    x = np.where(active, rng.choice(np.setdiff1d(np.arange(-128, 128), 0), inputs), 0).astype(np.int8)[None]
    bias, mult = (
        rng.integers(-1000, 1000, outputs).astype(np.int32),
        rng.integers(2**23, 2**24, outputs).astype(np.int32),
    )
    data, instructions, addr = [], [], 0

    def place(content: bytes) -> int:
        nonlocal addr
        data.append((addr, content))
        addr += -(-len(content) // 8) * 8
        return addr - -(-len(content) // 8) * 8

    most = chip.sparse.elements * chip.sparse.sums
    at, out_at = place(bytes(inputs)), place(bytes(outputs))
    for begin in range(0, outputs, most):
        end = min(outputs, begin + most)
        kept = stored(matrix[begin:end], chip.sparse.elements)
        instructions.append(
            Spmv(
                x=contiguous(at, "int8", (1, inputs)),
                w=contiguous(place(kept.data), "uint8", (len(kept.data),)),
                bias=contiguous(place(bias[begin:end].tobytes()), "int32", (end - begin,)),
                mult=contiguous(place(mult[begin:end].tobytes()), "int32", (end - begin,)),
                shift=contiguous(place(bytes([SHIFT] * (end - begin))), "int8", (end - begin,)),
                out=contiguous(out_at + begin, "int8", (1, end - begin)),
                in_zp=0,
                entries=kept.entries,
                entry_bits=kept.format.entry_bits,
                columns_per_word=kept.columns_per_word,
                expected=1000,
                **REQUANT,
            )
        )
    program = Program(
        chip_name=chip.name,
        instructions=[*instructions, Halt()],
        data=data[2:],
        inputs=[Port("x", contiguous(at, "int8", (1, inputs)))],
        outputs=[Port("y", contiguous(out_at, "int8", (1, outputs)))],
        memory_bytes=addr,
    )
    result = Machine(program, chip).run({"x": x})
    sums = matrix.astype(np.float64) @ x[0] + bias  # float64: exact, sums are far below 2**53
    if (
        result.outputs["y"][0]
        != numerics.requantize(
            sums.astype(np.int64), mult, SHIFT, **{"zero_point": REQUANT["out_zp"], "lo": -128, "hi": 127}
        )
    ).any():
        raise AssertionError("SPMV differs from the dense product")
    return result.trace
