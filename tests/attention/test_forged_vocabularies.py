"""Vocabularies of strangers: whatever is wrong with one is said in our own words, and costs no more than is there."""

import io
import json
import zipfile

import numpy as np
import pytest

import tvm_ergo
from tvm_ergo import container, zoo
from tvm_ergo.compiled import CompiledModel
from tvm_ergo.target.errors import InputError, ProgramError
from tvm_ergo.target.limits import model_bytes_limit
from tvm_ergo.tokenizer import BYTES_FROM, Tokenizer

PIECES = (b"<unk>", b"<s>", b"</s>", *(b"<0x%02X>" % n for n in range(256)), b" ", b"a", b" a")
GOOD = Tokenizer(PIECES, (0.0,) * len(PIECES))


def _npz(vocab=np.array(PIECES), scores=np.zeros(len(PIECES)), **more) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, vocab=vocab, vocab_scores=scores, **more)
    return buffer.getvalue()


def _npy(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _broken_stream() -> bytes:
    data = bytearray(_npz())
    at = data.find(b"vocab.npy") + 14
    data[at : at + 40] = b"\xff" * 40
    return bytes(data)


def _open_bracket() -> bytes:
    head = b"{'descr': '|S8', 'fortran_order': False, 'shape': (300,".ljust(117) + b"\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("vocab.npy", b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)
    return buffer.getvalue()


WRONG = {
    "no archive": b"PK\x03\x04 nothing",
    "one array": _npy(np.arange(300)),
    "a broken stream": _broken_stream(),
    "a header that does not end": _open_bracket(),
    "no scores": _npz(scores=np.array(["a"] * len(PIECES))),
    "scores that are no numbers": _npz(scores=np.full(len(PIECES), np.nan)),
    "complex scores": _npz(scores=np.zeros(len(PIECES), complex)),
    "half a pair of surrogates": _npz(vocab=np.array(["\ud800"] * len(PIECES))),
    "too few": _npz(np.array(PIECES[:20]), np.zeros(20)),
}


def test_a_good_one(tmp_path):
    (tmp_path / "v.npz").write_bytes(_npz())
    assert Tokenizer.read(tmp_path / "v.npz") == GOOD


@pytest.mark.parametrize("name", WRONG)
def test_wrong_ones(tmp_path, name):
    path = tmp_path / "v.npz"
    path.write_bytes(WRONG[name])
    with pytest.raises(InputError):
        Tokenizer.read(path)


def test_what_it_opens_to_is_limited(tmp_path):
    (tmp_path / "v.npz").write_bytes(_npz(more=np.zeros(1 << 20, np.int8)))
    (tmp_path / "v.bin").symlink_to("/dev/zero")
    with model_bytes_limit(1 << 18), pytest.raises(InputError, match="limit"):
        Tokenizer.read(tmp_path / "v.npz")
    with pytest.raises(InputError, match="more than 67,108,864 bytes"):
        Tokenizer.read(tmp_path / "v.bin")


def test_in_a_compiled_file(tmp_path):
    """Numbers that JSON can hold and a float cannot."""
    train, *_ = zoo.digits()
    sections = container.unpacked(tvm_ergo.compile(zoo.DIGITS_MODEL, calibration=train[:4]).to_bytes(), "a file")
    for scores in ([10**400] * len(PIECES), [1e308 * 10] * len(PIECES), ["x"] * len(PIECES), None):
        told = {"pieces": json.loads(GOOD.to_bytes())["pieces"], "scores": scores}
        with pytest.raises(ProgramError):
            CompiledModel._of({**sections, "tokenizer": json.dumps(told).encode()}, "a file", True)


def test_texts_that_are_no_unicode():
    """What Python makes of a command line that is no UTF-8 are its bytes; half a pair of surrogates has none."""
    assert GOOD.encode("a\udcff")[-1] == BYTES_FROM + 0xFF
    with pytest.raises(InputError, match="Unicode"):
        GOOD.encode("\ud800")
