"""Products with a zero operand, against loops over every product; in runs of whole programs."""

import itertools
import random

import numpy as np
import pytest

import tvm_ergo
from tvm_ergo import zoo
from tvm_ergo.target.chip import chip
from tvm_ergo.target.isa import Conv, ConvTranspose, Depthwise, DType, Event, MatMul, contiguous
from tvm_ergo.target.isa.geometry import transposed_shape, window_shape
from tvm_ergo.target.machine import Machine, Memory
from tvm_ergo.target.machine.zeros import COUNTS, ZeroProducts

BIAS, W, X, OUT = 0, 4096, 16384, 32768


def vectors(channels):
    return {
        "bias": contiguous(BIAS, DType.I32, (channels,)),
        "mult": contiguous(BIAS + 1024, DType.I32, (channels,)),
        "shift": contiguous(BIAS + 2048, DType.I8, (channels,)),
    }


def memory_of(instruction, rng):
    memory = Memory(1 << 17)
    for operand in instruction.reads():
        if operand.dtype == DType.I8:
            memory.view(operand)[...] = np.array(
                [rng.choice([0, 0, 3, -2]) for _ in range(operand.elements)], np.int8
            ).reshape(operand.shape)
    return memory


def window(rng):
    return {
        "strides": (rng.randint(1, 3), rng.randint(1, 3)),
        "padding": tuple(rng.randint(0, 2) for _ in range(4)),
        "dilation": (rng.randint(1, 2), rng.randint(1, 2)),
    }


def convolution(rng, depthwise=False):
    groups = rng.choice([1, 1, 2])
    kernel, c, o = (rng.randint(1, 3), rng.randint(1, 3)), 2 * rng.randint(1, 2), 2 * rng.randint(1, 2)
    how, size = window(rng), (rng.randint(5, 7), rng.randint(5, 7))
    out = window_shape(size, kernel, how["strides"], how["padding"], how["dilation"])
    x = contiguous(X, DType.I8, (1, *size, c))
    common = {
        "in_zp": rng.choice([0, 3]),
        "w_zp": rng.choice([0, -2]),
        "out_zp": 0,
        "lo": -128,
        "hi": 127,
        "x": x,
        **how,
    }
    if depthwise:
        return Depthwise(
            w=contiguous(W, DType.I8, (*kernel, c)), out=contiguous(OUT, DType.I8, (1, *out, c)), **vectors(c), **common
        )
    return Conv(
        w=contiguous(W, DType.I8, (o, *kernel, c // groups)),
        out=contiguous(OUT, DType.I8, (1, *out, o)),
        groups=groups,
        **vectors(o),
        **common,
    )


def slow_convolution(i, memory):
    x, w, products, others = memory.view(i.x), memory.view(i.w), 0, 0
    depthwise = isinstance(i, Depthwise)
    kh, kw = i.w.shape[:2] if depthwise else i.w.shape[1:3]
    for row, column, o, a, b in itertools.product(*map(range, (*i.out.shape[1:], kh, kw))):
        y, z = (
            row * i.strides[0] - i.padding[0] + a * i.dilation[0],
            column * i.strides[1] - i.padding[1] + b * i.dilation[1],
        )
        inside = 0 <= y < x.shape[1] and 0 <= z < x.shape[2]
        cg = 1 if depthwise else i.w.shape[3]
        for c in range(cg):
            channel = o if depthwise else o // (i.out.shape[3] // i.groups) * cg + c
            weight = w[a, b, o] if depthwise else w[o, a, b, c]
            products += 1
            others += bool(inside and x[0, y, z, channel] != i.in_zp and weight != i.w_zp)
    return products, others


@pytest.mark.parametrize("depthwise", [False, True])
def test_convolutions_against_every_product(depthwise):
    rng = random.Random(5)
    for _ in range(25):
        instruction = convolution(rng, depthwise)
        memory = memory_of(instruction, rng)
        found = COUNTS[type(instruction)](instruction, memory)
        assert found == slow_convolution(instruction, memory)
        assert found[0] == instruction.cost(chip("ergo/1")).events[Event.MAC_8X8]


def test_transposed_convolutions_and_matrix_products():
    rng = random.Random(6)
    for _ in range(15):
        kernel, size, c, o = (rng.randint(1, 3), 2), (3, rng.randint(2, 4)), 3, 2
        out = transposed_shape(size, kernel, (2, 1), (0, 0, 0, 0), (0, 0), (1, 1))
        i = ConvTranspose(
            x=contiguous(X, DType.I8, (1, *size, c)),
            w=contiguous(W, DType.I8, (o, *kernel, c)),
            out=contiguous(OUT, DType.I8, (1, *out, o)),
            strides=(2, 1),
            padding=(0,) * 4,
            output_padding=(0, 0),
            dilation=(1, 1),
            in_zp=3,
            w_zp=0,
            out_zp=0,
            lo=-128,
            hi=127,
            **vectors(o),
        )
        memory = memory_of(i, rng)
        x, w = memory.view(i.x), memory.view(i.w)
        others = sum(
            bool(x[0, y, z, k] != 3 and w[n, a, b, k] != 0)
            for y, z, k, n, a, b in itertools.product(*map(range, (*size, c, o, *kernel)))
        )
        assert COUNTS[ConvTranspose](i, memory) == (i.cost(chip("ergo/1")).events[Event.MAC_8X8], others)
        m, k, n, turned, batch = (
            rng.randint(1, 3),
            rng.randint(1, 4),
            rng.randint(1, 3),
            rng.random() < 0.5,
            rng.choice([1, 2]),
        )
        i = MatMul(
            a=contiguous(X, DType.I8, (2, m, k)),
            b=contiguous(W, DType.I8, (batch, n, k) if turned else (batch, k, n)),
            out=contiguous(OUT, DType.I8, (2, m, n)),
            transpose_b=turned,
            a_zp=3,
            b_zp=0,
            mult=1,
            shift=0,
            out_zp=0,
            lo=-128,
            hi=127,
        )
        memory = memory_of(i, rng)
        a, b = memory.view(i.a), memory.view(i.b)
        others = sum(
            bool(a[g, y, t] != 3 and (b[g % batch, z, t] if turned else b[g % batch, t, z]) != 0)
            for g, y, z, t in itertools.product(range(2), range(m), range(n), range(k))
        )
        assert COUNTS[MatMul](i, memory) == (i.cost(chip("ergo/1")).events[Event.MAC_8X8], others)


@pytest.mark.parametrize("options", [{}, {"stream": True, "objective": "memory", "compression": "auto"}])
def test_a_run_counts_the_products_of_its_trace(options):
    images = zoo.digits()[0][:16]
    compiled = tvm_ergo.compile(zoo.DIGITS_MODEL, calibration=images, weights="coded", **options)
    (call,) = compiled.run(images[:1]).calls
    counted, machine = ZeroProducts(), Machine(call.program, compiled.chip)
    outputs = machine.run(call.inputs, watch=counted).outputs
    assert all(np.array_equal(outputs[name], value) for name, value in call.outputs.items())
    tensor = sum(e.events.get(Event.MAC_8X8, 0) for e in machine.trace.entries if e.engine.name == "TENSOR")
    assert (
        counted.products == tensor
        and 0 < counted.zeros < tensor
        and sum(counted.by_instruction.values()) == counted.zeros
    )
    share = counted.saved_pj(compiled.chip, "low") / machine.trace.dynamic_pj
    assert 0 < share < counted.share == counted.zeros / counted.products
    assert ZeroProducts().share == 0
