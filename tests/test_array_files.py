"""NumPy files that anybody may have written: our own error for each, and nothing allocated that is not in them."""

import io
import struct
import zipfile

import numpy as np
import pytest

from tvm_ergo.relay_passes.array_files import read_arrays
from tvm_ergo.target.errors import CalibrationError, InputError
from tvm_ergo.target.limits import model_bytes_limit

GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"


def npy(header: str | bytes, data: bytes = bytes(24), version=(1, 0), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else header.encode("latin1")
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + bytes(version) + size + text + data


HEADERS = [
    "",
    "(",
    "{",
    "{'descr'",
    "5",
    "[]",
    "'x",
    '"""',
    "{'descr': '<f4'}",
    GOOD.replace("(2, 3)", "(2, -3)"),
    GOOD.replace("(2, 3)", "(2.0, 3)"),
    GOOD.replace("(2, 3)", "(True, 3)"),
    GOOD.replace("(2, 3)", "(1 << 40,)"),
    GOOD.replace("(2, 3)", f"({1 << 40},)"),
    GOOD.replace("(2, 3)", f"({1 << 70},)"),
    GOOD.replace("(2, 3)", "'ab'"),
    GOOD.replace("'<f4'", "'|O'"),
    GOOD.replace("'<f4'", "'<f5'"),
    GOOD.replace("'<f4'", "[('a', '<f4')]"),
    GOOD.replace("'<f4'", "[('a', '|O')]"),
    GOOD.replace("'<f4'", "'<M8[s]'"),
    GOOD.replace("'<f4'", "'<c8'"),
    GOOD.replace("'<f4'", "'|V4'"),
    GOOD.replace("'<f4'", "5"),
    GOOD.replace("'<f4'", "None"),
    GOOD.replace("False", "2"),
    GOOD.replace("False", "'no'"),
    "{" * 5000,
    "(" * 3000,
    "[" * 200 + "]" * 200,
    "-" * 9000 + "1",
    "1" * 9000,
    "\\",
    "\x00",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), 'more': 1}",
    "f'{1}'",
    "__import__('os')",
    "    x\n  y",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), ",
    "\n\n\t(\n'''",
    "0x",
    "1_",
    "0_7",
    "{1: 2}",
    "{[]: 2}",
    "'\\N{x}'",
    "'\\x'",
    "'\\ud800'",
]


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("archive", [False, True], ids=["npy", "npz"])
def test_headers(tmp_path, header, archive):
    content = npy(header)
    if archive:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as made:
            made.writestr("x.npy", content)
        content = buffer.getvalue()
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(InputError):
        read_arrays(tmp_path / "a", InputError)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        npy(GOOD)[:20],
        npy(GOOD, bytes(23)),
        npy(GOOD, version=(3, 0)),
        npy(GOOD, version=(9, 9)),
        npy(GOOD, length=60000),
        npy(GOOD, version=(2, 0), length=1 << 31),
        b"PK\x03\x04",
        b"PK\x05\x06" + b"\xff" * 18,
        b"\x80\x04N.",
        bytes(100),
    ],
)
def test_damage(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(CalibrationError):
        read_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "array",
    [
        np.float32(3),
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
        np.zeros((0, 5), np.int8),
        np.array(["a", "bc"]),
        np.array([b"x"]),
        np.arange(3, dtype=np.uint64),
        np.array([True, False]),
    ],
    ids=lambda a: f"{a.dtype.str}{np.shape(a)}",
)
def test_plain_arrays_come_back(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "b.npz", one=array, other=array)
    np.savez_compressed(tmp_path / "c.npz", one=array)
    for found in (
        read_arrays(tmp_path / "a.npy")[""],
        *read_arrays(tmp_path / "b.npz").values(),
        read_arrays(tmp_path / "c.npz")["one"],
    ):
        assert found.dtype == np.asarray(array).dtype and found.shape == np.shape(array)
        np.testing.assert_array_equal(found, array)
    assert list(read_arrays(tmp_path / "b.npz")) == ["one", "other"]


def test_archives_are_added_up_before_they_are_opened(tmp_path):
    np.savez_compressed(tmp_path / "zeros.npz", a=np.zeros(1 << 20, np.uint8), b=np.zeros(1 << 20, np.uint8))
    read_arrays(tmp_path / "zeros.npz")
    with model_bytes_limit("1.5MB"), pytest.raises(CalibrationError, match="more memory than the limit"):
        read_arrays(tmp_path / "zeros.npz")
    lying = bytearray((tmp_path / "zeros.npz").read_bytes())
    start = lying.rindex(b"PK\x01\x02")
    lying[start + 24 : start + 28] = struct.pack("<I", 100)  # less than there is
    (tmp_path / "lying.npz").write_bytes(lying)
    with pytest.raises(CalibrationError):
        read_arrays(tmp_path / "lying.npz")
