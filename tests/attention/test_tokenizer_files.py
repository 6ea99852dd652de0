"""Vocabularies out of files: read within their bytes, refused with a remedy."""

from __future__ import annotations

import struct
import zipfile

import numpy as np
import pytest

from tvm_ergo.target.errors import InputError
from tvm_ergo.target.limits import model_bytes_limit
from tvm_ergo.tokenizer import MAX_BYTES, Tokenizer

PIECES = [b"<unk>", b"<s>", b"</s>", *(bytes([i]) for i in range(256)), b" a", b"ab"]
SCORES = np.arange(len(PIECES), dtype=np.float32)


def test_both_forms_read_the_same(tmp_path):
    np.savez(tmp_path / "v.npz", vocab=np.array(PIECES), vocab_scores=SCORES)
    parts = [struct.pack("<fi", s, len(p)) + p for s, p in zip(SCORES.tolist(), PIECES)]
    (tmp_path / "v.bin").write_bytes(struct.pack("<I", 8) + b"".join(parts))
    archive, binary = Tokenizer.read(tmp_path / "v.npz"), Tokenizer.read(tmp_path / "v.bin")
    # NumPy's texts of bytes end at their last byte that is not 0
    assert archive.scores == binary.scores and archive.pieces[4:] == binary.pieces[4:]
    assert binary.decode(binary.encode("abba")) == "abba"


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04 not an archive"),
        lambda path: np.savez(path, vocab=np.array(PIECES)),
        lambda path: np.savez(path, vocab=np.array(PIECES[:9]), vocab_scores=SCORES[:9]),
        lambda path: np.savez(path, vocab=np.array(PIECES, object), vocab_scores=SCORES),  # a pickle
        lambda path: np.savez(path, vocab=np.array(PIECES), vocab_scores=np.array(["x"] * len(PIECES))),
    ],
)
def test_what_is_none_is_refused(make, tmp_path):
    make(tmp_path / "v.npz")
    with pytest.raises(InputError):
        Tokenizer.read(tmp_path / "v.npz")


def test_an_archive_that_opens_to_more_than_allowed_is_refused_unopened(tmp_path):
    with zipfile.ZipFile(tmp_path / "v.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("vocab.npy", b"\0" * (4 << 20))
    with model_bytes_limit(1 << 20), pytest.raises(InputError):
        Tokenizer.read(tmp_path / "v.npz")


def test_a_file_that_never_ends_is_not_read_to_its_end(tmp_path):
    with open(tmp_path / "v.bin", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(InputError, match="more than"):
        Tokenizer.read(tmp_path / "v.bin")
    with pytest.raises(InputError) as error:
        Tokenizer.read(tmp_path / "missing.bin")
    assert error.value.remedy
