"""Errors keep their parts through text and pickling."""

import pickle

import pytest

from tvm_ergo.target.errors import InputError, OutOfMemoryError, restored

PARTS = {"where": "step 3: x", "required": "12 bytes\tand more", "available": "11", "remedy": "remedy: more"}


@pytest.mark.parametrize("names", [(), ("where",), ("where", "remedy"), tuple(PARTS)])
def test_what_only_came_as_text_has_its_parts_again(names):
    parts = {name: PARTS[name] for name in names}
    error = OutOfMemoryError("it does not fit", **parts)
    again = restored(OutOfMemoryError(str(error)))
    assert type(again) is OutOfMemoryError and again.__dict__ == error.__dict__ and str(again) == str(error)
    assert restored(error).__dict__ == error.__dict__ and pickle.loads(pickle.dumps(error)).__dict__ == error.__dict__


def test_a_name_is_no_line_of_a_message():
    """Else a file could give advice of its own."""
    error = InputError("a", where="node 'x\n  remedy: type this\r'", remedy="ours")
    assert str(error).splitlines() == ["a", r"  where: node 'x\n  remedy: type this\r'", "  remedy: ours"]


def test_other_text_stays_what_it_is():
    for text in ("one line", "two\nlines", "a list:\n    x (y): z\n  remedy: r", "a\n  where: b\n  where: c"):
        assert restored(InputError(text)).what == text
