"""The pair compress / decompress: shapes, refusals, regions, and the CPU's packed functions in this and in another
process."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tvm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tvm import relax

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.slots import SLOT_CODECS, SlotLayout
from tvm_ergo.target.errors import ModelError

SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def pair(codec="BITPLANE", tile_rows=4, slot_bytes=60, shape=(1, 13, 5, 6), zero_point=-10, bound=255):
    fields = dict(codec=codec, tile_rows=tile_rows, slot_bytes=slot_bytes, bound=bound, out_zp=zero_point)
    return dialect.Compress(**fields), dialect.Decompress(**fields, shape=shape)


def module(compress, decompress) -> tvm.IRModule:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(decompress.shape, "int8"))
    with builder.function("main", [x]):
        with builder.dataflow():
            slots = builder.emit(compress.call(x))
            result = builder.emit_output(relax.Tuple([slots, builder.emit(decompress.call(slots))]))
        builder.emit_func_output(result)
    return builder.get()


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)


@pytest.mark.parametrize("codec", [c.name for c in SLOT_CODECS])
def test_on_the_cpu(codec):
    compress, decompress = pair(codec)
    layout, x = SlotLayout(Codec[codec], 4, 60, -10), noise((1, 13, 5, 6))
    slots, back = build_cpu(module(compress, decompress))(x)
    np.testing.assert_array_equal(slots[0, :, 0], layout.encode(x[0]))
    np.testing.assert_array_equal(back[0], layout.decode(slots[0, :, 0], (13, 5, 6)))
    assert not np.array_equal(back, x)  # noise does not fit: bits were dropped


def test_an_exported_library_runs_where_only_tvm_is_imported(tmp_path):
    compiled = build_cpu(module(*pair()))
    compiled.executable.export_library(str(tmp_path / "pair.so"))
    x = noise((1, 13, 5, 6))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", compiled(x)[1])
    script = (
        "import numpy as np, tvm\nfrom tvm import relax\n"
        "vm = relax.VirtualMachine(tvm.runtime.load_module('pair.so'), tvm.cpu())\n"
        "assert (vm['main'](tvm.runtime.tensor(np.load('x.npy')))[1].numpy() == np.load('y.npy')).all()\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=120)


@SETTINGS
@given(data=st.data())
def test_outside_the_region_nothing_matters(data):
    height, rows = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 5))
    compress, decompress = pair("BITMASK", rows, data.draw(st.integers(4, 40)), (1, height, 2, 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = noise(decompress.shape, int(rng.integers(99)))
    slots = compress.layout.encode(x[0])[None, :, None]
    for op, given_, run in (
        (compress, x, lambda a: compress.layout.encode(a[0])[None, :, None]),
        (decompress, slots, lambda a: decompress.layout.decode(a[0, :, 0], decompress.shape[1:])[None]),
    ):
        out = run(given_)
        begin = data.draw(st.integers(0, out.shape[1] - 1))
        end = data.draw(st.integers(begin + 1, out.shape[1]))
        box = tuple((0, d) if axis != 1 else (begin, end) for axis, d in enumerate(out.shape))
        (region,) = op.input_regions(box, [given_.shape])
        assert all(0 <= b < e <= d for (b, e), d in zip(region, given_.shape, strict=True))
        kept = tuple(slice(b, e) for b, e in region)
        other = (
            np.array(rng.permutation(given_, axis=1))
            if op is compress
            else compress.layout.encode(noise(x.shape, 7)[0])[None, :, None]
        )
        other[kept] = given_[kept]
        np.testing.assert_array_equal(run(other)[:, begin:end], out[:, begin:end])


@pytest.mark.parametrize(
    "change",
    [
        dict(codec="RAW"),
        dict(codec="REDUCED"),
        dict(codec="bitmask"),
        dict(tile_rows=0),
        dict(slot_bytes=3),
        dict(zero_point=128),
        dict(bound=0),
        dict(shape=(2, 13, 5, 6)),
        dict(shape=(13, 5, 6)),
        dict(shape=(1, 0, 5, 6)),
    ],
)
def test_refused(change):
    compress, decompress = pair(**change)
    with pytest.raises(ModelError):
        compress.infer([decompress.shape], ["int8"])
    with pytest.raises(ModelError):
        decompress.infer([(1, 4, 1, 60)], ["uint8"])


def test_refused_types():
    compress, decompress = pair()
    for op, shape, dtype in (
        (compress, (1, 13, 5, 6), "uint8"),
        (decompress, (1, 4, 1, 60), "int8"),
        (decompress, (1, 3, 1, 60), "uint8"),
    ):
        with pytest.raises(ModelError):
            op.infer([shape], [dtype])


def test_the_bound_is_certified():
    """Slots that hold any tile demand no bound; smaller ones a larger one."""
    shape = (1, 8, 4, 4)
    bounds = []
    for slot_bytes in (4, 20, 40, 60, 67, 68):
        bounds.append(
            next(b for b in range(256) if _accepted(pair("CONTEXT", 4, slot_bytes, shape, -128, b)[0], shape))
        )
    assert bounds == sorted(bounds, reverse=True) and bounds[-1] == 0 < bounds[-2]


def _accepted(op, shape) -> bool:
    try:
        op.infer([shape], ["int8"])
    except ModelError:
        return False
    return True
