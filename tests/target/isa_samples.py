"""One small valid instruction of each kind, and the smallest memory that can execute it."""

import numpy as np

from tvm_ergo.target.codecs.eie import EieFormat, encode
from tvm_ergo.target.isa import (
    Accumulate,
    Add,
    Add16,
    AddWide,
    Binarize,
    BinaryPool,
    Codec,
    Conv,
    Conv16,
    ConvTranspose,
    Copy,
    CpuCall,
    CpuFunction,
    Decode,
    Depthwise,
    DType,
    Encode,
    ExpRows,
    Fill,
    Gather,
    Halt,
    MatMul,
    MaxMin,
    MaxMinKind,
    Mul,
    Mul16,
    Norm,
    Operand,
    Pool,
    PoolKind,
    PutRows,
    Receive,
    Reduce,
    ReduceKind,
    Requantize,
    Rescale,
    Rescale16,
    Resize,
    ResizeScaled,
    Rotate,
    ShiftRows,
    Softmax,
    Spmv,
    Table,
    Table16,
    TakeRows,
    WeightedMean,
    Xnor,
    XnorSum,
    contiguous,
)

MEMORY_BYTES = 1 << 16
SPARSE_DENSE = np.where(np.arange(1400).reshape(70, 20) * 7 % 23 < 3, 5 - 2 * (np.arange(20) % 4), 0).astype(np.int8)
SPARSE = np.frombuffer(encode(SPARSE_DENSE, EieFormat(64, 3, 2)).data, np.uint8)  # as it is stored


class TestMemory:
    """Bytes and views, nothing else: enough for ``Instruction.execute``."""

    __test__ = False

    def __init__(self, seed=0):
        self.bytes = np.random.default_rng(seed).integers(0, 256, MEMORY_BYTES, dtype=np.uint8)

    def view(self, operand):
        return np.ndarray(operand.shape, operand.dtype.numpy, self.bytes, operand.addr, operand.strides)

    def prepared(self, instruction, operands, factory):
        return factory()

    def tell(self, instruction, dropped):
        pass

    def received(self, port, source):
        stream = np.random.default_rng(port).integers(0, 256, MEMORY_BYTES, dtype=np.uint8)
        return np.ndarray(source.shape, source.dtype.numpy, stream, source.addr, source.strides)


class Placer:
    """Hands out places in memory: dense, or as a channel slice of a wider buffer."""

    def __init__(self):
        self.next = 64

    def __call__(self, shape, dtype="int8", wider=0):
        dtype = DType.of(dtype)
        dense = contiguous(self.next, dtype, (*shape[:-1], shape[-1] + wider))
        self.next += (dense.size_bytes + 15) // 16 * 16
        return Operand(dense.addr + wider // 2 * dtype.itemsize, dtype, tuple(shape), dense.strides)


REQUANT = dict(out_zp=3, lo=-100, hi=120)
SCALAR = dict(mult=9_000_000, shift=28, **REQUANT)


def per_channel(place, channels):
    return dict(bias=place((channels,), "int32"), mult=place((channels,), "int32"), shift=place((channels,)))


def samples() -> dict:
    """{name: instruction}; channel slices on inputs and outputs throughout."""
    p = Placer()
    window = dict(strides=(2, 1), padding=(1, 0, 1, 2), dilation=(1, 2))
    zps = dict(in_zp=-5, w_zp=2)
    return {
        "conv": Conv(
            x=p((1, 6, 7, 4), wider=2),
            w=p((6, 3, 2, 2)),
            **per_channel(p, 6),
            out=p((1, 3, 7, 6), wider=4),
            groups=2,
            **window,
            **zps,
            **REQUANT,
        ),
        "depthwise": Depthwise(
            x=p((2, 6, 7, 4), wider=2),
            w=p((3, 2, 4)),
            **per_channel(p, 4),
            out=p((2, 3, 7, 4), wider=4),
            **window,
            **zps,
            **REQUANT,
        ),
        "conv_transpose": ConvTranspose(
            x=p((1, 3, 4, 5)),
            w=p((6, 3, 2, 5)),
            **per_channel(p, 6),
            out=p((1, 6, 4, 6), wider=1),
            strides=(2, 1),
            padding=(1, 0, 1, 1),
            output_padding=(1, 0),
            dilation=(1, 1),
            **zps,
            **REQUANT,
        ),
        "matmul": MatMul(
            a=p((2, 1, 4, 5)), b=p((3, 6, 5)), out=p((2, 3, 4, 6), wider=1), transpose_b=True, a_zp=1, b_zp=-2, **SCALAR
        ),
        "add": Add(
            a=p((1, 3, 4, 5), wider=2),
            b=p((5,)),
            out=p((1, 3, 4, 5)),
            a_zp=4,
            b_zp=-3,
            a_mult=2_000_000,
            b_mult=-1_000_000,
            shift=21,
            **REQUANT,
        ),
        "mul": Mul(a=p((1, 3, 4, 5)), b=p((1, 3, 1, 1)), out=p((1, 3, 4, 5), wider=2), a_zp=4, b_zp=-3, **SCALAR),
        "maximum": MaxMin(a=p((3, 4)), b=p((3, 1)), out=p((3, 4)), kind=MaxMinKind.MAX),
        "minimum": MaxMin(a=p((3, 4)), b=p((3, 4)), out=p((3, 4)), kind=MaxMinKind.MIN),
        "table": Table(x=p((3, 4)), lut=p((4, 256), "uint8"), out=p((3, 4), "uint8")),
        "max_pool": Pool(
            x=p((1, 6, 7, 4)),
            out=p((1, 3, 6, 4), wider=2),
            kind=PoolKind.MAX,
            pool=(3, 2),
            strides=(2, 1),
            padding=(1, 0, 1, 1),
            dilation=(1, 2),
            count_include_pad=False,
            in_zp=0,
            **SCALAR,
        ),
        "avg_pool": Pool(
            x=p((1, 6, 7, 4)),
            out=p((1, 3, 7, 4)),
            kind=PoolKind.AVG,
            pool=(3, 2),
            strides=(2, 1),
            padding=(1, 0, 1, 1),
            dilation=(1, 1),
            count_include_pad=False,
            in_zp=-7,
            mult=9_000_000,
            shift=23,
            **REQUANT,
        ),
        "mean": Reduce(
            x=p((1, 4, 4, 5)), out=p((1, 5)), kind=ReduceKind.SUM, axes=(1, 2), keepdims=False, in_zp=2, **SCALAR
        ),
        "reduce_max": Reduce(
            x=p((3, 5)), out=p((1, 1)), kind=ReduceKind.MAX, axes=(0, 1), keepdims=True, in_zp=0, **SCALAR
        ),
        "reduce_min": Reduce(
            x=p((3, 5)), out=p((1,)), kind=ReduceKind.MIN, axes=(0, 1), keepdims=False, in_zp=0, **SCALAR
        ),
        "softmax": Softmax(
            x=p((3, 10)), lut=p((256,), "int32"), out=p((3, 10)), mult=2**23, shift=15, out_zp=-128, lo=-128, hi=127
        ),
        "resize": Resize(
            x=p((1, 3, 4, 5)), rows=p((6, 3), "int32"), cols=p((5, 3), "int32"), out=p((1, 6, 5, 5), wider=3)
        ),
        "resize scaled": ResizeScaled(
            x=p((1, 3, 4, 5)),
            rows=p((6, 3), "int32"),
            cols=p((5, 3), "int32"),
            out=p((1, 6, 5, 5), wider=3),
            in_zp=-7,
            mult=2**23 + 5,
            shift=22,
            out_zp=11,
            lo=-100,
            hi=120,
        ),
        "copy": Copy(src=_permuted(p((4, 6, 5), "int16")), out=p((5, 4, 6), "int16", wider=2)),
        "fill": Fill(out=p((3, 4), "int32", wider=1), value=-70000),
        "encode": Encode(
            x=p((5, 3, 4), wider=2), out=p((3, 20), "uint8", wider=6), codec=Codec.BITPLANE, tile_rows=2, zero_point=-3
        ),
        "decode": Decode(
            x=p((2, 20), "uint8", wider=6),
            out=p((2, 3, 4), wider=2),
            codec=Codec.BITMASK,
            tile_rows=2,
            last_rows=1,
            skip=1,
            zero_point=-3,
        ),
        "accumulate": Accumulate(
            x=p((2, 3, 4, 5), wider=2), acc=p((2, 1, 1, 5), "int32", wider=1), first=False, in_zp=-7
        ),
        "accumulate first": Accumulate(x=p((1, 3, 4, 5)), acc=p((1, 1, 1, 5), "int32"), first=True, in_zp=9),
        "requantize": Requantize(
            x=p((3, 5), "int32", wider=1), out=p((3, 5), wider=2), mult=9_000_000, shift=53, **REQUANT
        ),
        "spmv": Spmv(
            x=p((2, 20), wider=3),
            w=p((SPARSE.size,), "uint8"),
            **per_channel(p, 70),
            out=p((2, 70), wider=5),
            in_zp=-5,
            entries=210,
            entry_bits=5,
            columns_per_word=0,
            expected=400,
            **REQUANT,
        ),
        "binarize": Binarize(x=p((2, 3, 11), wider=2), low=p((11,)), high=p((11,)), out=p((2, 3, 2), "uint8", wider=1)),
        "binary_pool": BinaryPool(
            x=p((1, 6, 7, 2), "uint8", wider=1),
            out=p((1, 3, 8, 2), "uint8", wider=1),
            pool=(3, 2),
            strides=(2, 1),
            padding=(1, 1, 1, 1),
            dilation=(1, 1),
        ),
        "xnor": Xnor(
            x=p((1, 6, 7, 2), "uint8", wider=1),
            w=p((11, 3, 2, 2), "uint8"),
            low=p((11,), "int16"),
            high=p((11,), "int16"),
            out=p((1, 3, 7, 2), "uint8", wider=1),
            channels=13,
            pad_value=1,
            **window,
        ),
        "xnor_sum": XnorSum(
            x=p((1, 6, 7, 2), "uint8", wider=1),
            w=p((6, 3, 2, 2), "uint8"),
            scale=p((6,), "int16"),
            **per_channel(p, 6),
            out=p((1, 3, 7, 6), wider=1),
            channels=13,
            pad_value=0,
            **window,
            **REQUANT,
        ),
        "receive": Receive(port=0, offset=5, steps=(300, 1, 100, 0, 0, 0), out=p((3, 4, 5), wider=2)),
        "top_rows": CpuCall(
            function=CpuFunction.TOP_ROWS, inputs=[p((3, 10), wider=2)], outputs=[p((3, 4), "int32")], params=()
        ),
        "log_softmax": CpuCall(
            function=CpuFunction.LOG_SOFTMAX,
            inputs=[p((3, 10)), p((256,), "int32")],
            outputs=[p((3, 10))],
            params=(2**26, 700, 26, 127, -128, 127),
        ),
        "argmax": CpuCall(function=CpuFunction.ARGMAX, inputs=[p((3, 10))], outputs=[p((3,), "int32")], params=()),
        "gather_rows": CpuCall(
            function=CpuFunction.GATHER_ROWS, inputs=[p((7, 4)), p((2, 3), "int32")], outputs=[p((2, 3, 4))], params=()
        ),
        "conv_16": Conv16(
            x=p((1, 6, 7, 4), "int16", wider=2),
            w=p((6, 3, 2, 2)),
            **per_channel(p, 6),
            out=p((1, 3, 6, 6), "int16", wider=3),
            strides=(2, 1),
            padding=(1, 0, 1, 0),
            dilation=(1, 1),
            groups=2,
            in_zp=-300,
            w_zp=2,
            out_zp=1000,
            lo=-30000,
            hi=32000,
        ),
        "add_16": Add16(
            a=p((1, 3, 4, 5), "int16", wider=2),
            b=p((5,)),
            out=p((1, 3, 4, 5), "int16"),
            a_zp=500,
            b_zp=-3,
            a_mult=1_000_000,
            b_mult=-2_000_000,
            shift=20,
            out_zp=-700,
            lo=-32000,
            hi=32767,
        ),
        "mul_16": Mul16(
            a=p((1, 3, 4, 5), "int16", wider=2),
            b=p((5,), "int16"),
            out=p((1, 3, 4, 5), "int16"),
            a_zp=500,
            b_zp=-3,
            mult=9_000_000,
            shift=38,
            out_zp=-700,
            lo=-32000,
            hi=32767,
        ),
        "rescale_16": Rescale16(
            x=p((3, 5), "int16", wider=1), out=p((3, 5), wider=2), in_zp=-200, mult=9_000_000, shift=31, **REQUANT
        ),
        "table_16": Table16(x=p((3, 5), "int16", wider=1), lut=p((513,), "int16"), out=p((3, 5), "int16"), step=7),
        "add_wide": AddWide(
            a=p((1, 3, 4, 5), "int16", wider=2),
            b=p((5,)),
            out=p((1, 3, 4, 5), "int16"),
            a_zp=0,
            b_zp=-3,
            a_mult=1_000_000,
            b_mult=-2_000_000,
            shift=20,
        ),
        "rescale": Rescale(
            x=p((3, 5), "int16", wider=1), out=p((3, 5), wider=2), in_zp=0, mult=9_000_000, shift=31, **REQUANT
        ),
        "norm": Norm(
            x=p((3, 5), "int16", wider=2),
            gamma=p((5,), "int16"),
            beta=p((5,), "int32"),
            out=p((3, 5), "int16", wider=1),
            centre=True,
            in_zp=0,
            eps=7,
            eps_shift=3,
            beta_shift=2,
            shift=16,
            **REQUANT,
        ),
        "exp_rows": ExpRows(
            x=p((2, 3, 6), "int16", wider=1),
            lut=p((256,), "int32"),
            mask=[p((6,))],
            out=p((2, 3, 6), "uint8", wider=2),
            causal=True,
            offset=2,
        ),
        "weighted_mean": WeightedMean(
            a=p((2, 1, 4, 5), "uint8"),
            b=p((3, 5, 6)),
            out=p((2, 3, 4, 6), "int16", wider=1),
            b_zp=-2,
            mult=9_000_000,
            shift=22,
            **REQUANT,
        ),
        "rotate": Rotate(
            x=p((3, 6), "int16"),
            cos=p((1, 6), "int16"),
            sin=p((6,), "int16"),
            out=p((3, 6), wider=2),
            interleaved=True,
            mult=9_000_000,
            shift=46,
            **REQUANT,
        ),
        "gather": Gather(
            table=p((7, 4), wider=2),
            mult=p((7,), "int32"),
            ids=p((2, 3), "int32"),
            out=p((2, 3, 4), "int16", wider=2),
            shift=16,
        ),
        "take_rows": TakeRows(
            src=p((2, 7, 3), "int16", wider=1), position=p((1,), "int32"), out=p((2, 2, 3), "int16", wider=2)
        ),
        "put_rows": PutRows(src=p((2, 2, 3), wider=2), position=p((1,), "int32"), out=p((2, 7, 3), wider=1)),
        "shift_rows": ShiftRows(src=p((2, 2, 3), wider=2), out=p((2, 7, 3), wider=1), axis=1),
        "halt": Halt(),
    }


def _permuted(operand):
    """Axes (0, 1, 2) seen as (2, 0, 1)."""
    order = (2, 0, 1)
    return Operand(
        operand.addr, operand.dtype, tuple(operand.shape[a] for a in order), tuple(operand.strides[a] for a in order)
    )


def fill_parameters(ins, memory, seed=0):
    """Valid contents where random bytes would not do: multipliers, shifts, tables, indices."""
    rng = np.random.default_rng(seed)
    if hasattr(ins, "bias"):
        memory.view(ins.bias)[...] = rng.integers(-3000, 3000, ins.bias.shape)
        memory.view(ins.mult)[...] = rng.integers(2**23, 2**24, ins.mult.shape)
        memory.view(ins.shift)[...] = rng.integers(30, 34, ins.shift.shape)
    if isinstance(ins, Softmax):
        memory.view(ins.lut)[...] = (np.exp(-np.arange(256) / 16) * 2**22).astype(np.int32)
    if isinstance(ins, CpuCall) and ins.function is CpuFunction.LOG_SOFTMAX:
        memory.view(ins.inputs[1])[...] = (np.exp(-np.arange(256) / 16) * 2**22).astype(np.int32)
    if isinstance(ins, Resize):
        for taps, size in ((ins.rows, ins.x.shape[1]), (ins.cols, ins.x.shape[2])):
            memory.view(taps)[...] = np.stack(
                [rng.integers(0, size, taps.shape[0]) for _ in range(2)] + [rng.integers(0, 2049, taps.shape[0])], 1
            )
    if isinstance(ins, ExpRows):
        memory.view(ins.lut)[...] = np.rint(2**15 * 2.0 ** (-np.arange(256) / 256))
        memory.view(ins.x)[...] = rng.integers(-900, 900, ins.x.shape)
        memory.view(ins.mask[0])[...] = [1, -1, 0, 5, 1, 1]
    if isinstance(ins, Norm):
        memory.view(ins.beta)[...] = rng.integers(-(2**22), 2**22, ins.beta.shape)
    if isinstance(ins, (TakeRows, PutRows)):
        memory.view(ins.position)[...] = 4
    if isinstance(ins, Gather):
        memory.view(ins.mult)[...] = rng.integers(2**23, 2**24, ins.mult.shape)
        memory.view(ins.ids)[...] = [[-1, 2, 6], [0, 99, -99]]
    if isinstance(ins, Xnor):
        memory.view(ins.low)[...] = rng.integers(-20, 10, ins.low.shape)
        memory.view(ins.high)[...] = rng.integers(0, 40, ins.high.shape)
    if isinstance(ins, Spmv):
        memory.view(ins.w)[...] = SPARSE
    if isinstance(ins, Decode):
        plain = rng.integers(-128, 128, (ins.rows, *ins.out.shape[1:])).astype(np.int8)
        memory.view(ins.x)[...] = ins.layout.encode(plain)
    if isinstance(ins, CpuCall) and ins.function == CpuFunction.GATHER_ROWS:
        memory.view(ins.inputs[1])[...] = rng.integers(0, ins.inputs[0].shape[0], ins.inputs[1].shape)
