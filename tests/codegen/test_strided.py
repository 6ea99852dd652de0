"""Strided views and overlap against sets of bytes."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.codegen.strided import View, collapse, operands_overlap
from tvm_ergo.target.isa import DType

SETTINGS = settings(max_examples=400, deadline=None)


def addresses(view):
    """Byte address of every element in row-major order."""
    return [
        view.offset + sum(i * s for i, s in zip(index, view.strides, strict=True))
        for index in itertools.product(*map(range, view.shape))
    ]


@st.composite
def sub_views(draw, base):
    """A strided box of ``base``, perhaps permuted, perhaps another dense tensor at the same place."""
    region = [sorted(draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in base.shape]
    view = base.box(tuple(map(tuple, region)), tuple(draw(st.sampled_from([1, 1, 2])) for _ in base.shape))
    if draw(st.booleans()):
        view = view.permute(draw(st.permutations(range(len(base.shape)))))
    return View.dense(view.root, view.shape, view.itemsize, view.offset) if draw(st.integers(0, 4)) == 0 else view


@st.composite
def bases(draw):
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    return View.dense(-1, shape, draw(st.sampled_from([1, 4])), 4 * draw(st.integers(0, 3)))


@SETTINGS
@given(st.data())
def test_overlap_is_exact(data):
    base = data.draw(bases())
    views = [data.draw(sub_views(base)) for _ in range(2)]
    touched = [{a + i for a in addresses(v) for i in range(v.itemsize)} for v in views]
    a, b = (v.operand(DType.I8 if base.itemsize == 1 else DType.I32) for v in views)
    assert operands_overlap(a, b) == bool(touched[0] & touched[1])


@SETTINGS
@given(st.data())
def test_reshape_keeps_the_elements_or_refuses_rightly(data):
    """A reshape exists exactly if some strides visit the same addresses in the same order."""
    view = data.draw(bases().flatmap(sub_views))
    merged = list(view.shape)
    if len(merged) > 1:
        at = data.draw(st.integers(0, len(merged) - 2))
        merged[at : at + 2] = [merged[at] * merged[at + 1]]
    shape = data.draw(st.sampled_from([tuple(merged), (1, *view.shape), (*view.shape[::-1],), (len(addresses(view)),)]))
    reshaped, wanted = view.reshape(shape), addresses(view)
    strides = []
    for axis in range(len(shape)):
        step = 1
        for extent in shape[axis + 1 :]:
            step *= extent
        strides.append(wanted[step] - wanted[0] if shape[axis] > 1 else 0)
    possible = addresses(View(-1, view.offset, shape, tuple(strides), view.itemsize)) == wanted
    assert (reshaped is not None) == possible
    if reshaped is not None:
        assert reshaped.shape == shape and addresses(reshaped) == wanted


@SETTINGS
@given(st.data())
def test_collapse_keeps_the_elements_of_all(data):
    base = data.draw(bases())
    first = data.draw(sub_views(base))
    second = View.dense(-1, first.shape, first.itemsize)
    for before, after in zip((first, second), collapse([first, second]), strict=True):
        assert addresses(after) == addresses(before)


def test_broadcast_repeats_with_stride_zero():
    view = View.dense(0, (3, 1), 1).broadcast((2, 3, 4))
    assert view.strides == (0, 1, 0) and view.shape == (2, 3, 4)


def test_same_place_ignores_strides_of_unit_axes():
    a, b = View(0, 4, (1, 3), (99, 1), 1), View(0, 4, (1, 3), (3, 1), 1)
    assert a.same_place(b) and a.operand(DType.I8) == b.operand(DType.I8)
