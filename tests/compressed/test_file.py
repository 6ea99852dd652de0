"""The file of a compressed network: what comes out is what went in, to the bit, and nothing else is taken for one."""

import hashlib
import json
import lzma

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st

import tvm_ergo
from tvm_ergo import compressed, frontend, zoo
from tvm_ergo.compressed.module_bytes import FILTERS, _packed, _unpacked, from_bytes, to_bytes
from tvm_ergo.compressed.tensors import DTYPES, Form, restore, store
from tvm_ergo.relay_passes.macro import normalize
from tvm_ergo.target.codecs.weights import Reader, varint
from tvm_ergo.target.errors import ErgoError, ModelError


@pytest.fixture(scope="module")
def digits():
    imported = frontend.load(str(zoo.DIGITS_MODEL))
    return imported, tvm_ergo.quantize(str(zoo.DIGITS_MODEL), zoo.digits()[0][:32])


def test_modules_come_back_equal(digits):
    imported, quantized = digits
    for mod in (imported.mod, normalize(imported.mod), quantized):
        contents = compressed.pack(mod, ["image"], ["logits"])
        again, inputs, outputs = compressed.unpack(contents.data)
        tvm.ir.assert_structural_equal(mod, again)
        assert (inputs, outputs) == (["image"], ["logits"])
        assert contents.graph_bytes + sum(len(s.data) for _, s in contents.constants) == len(contents.data)


def test_every_command_takes_the_file_in_place_of_the_network(digits, tmp_path):
    imported, quantized = digits
    path = tmp_path / "digits.ergoz"
    compressed.write(
        path, compressed.pack(quantized, [i.name for i in imported.inputs], [o.name for o in imported.outputs])
    )
    loaded = frontend.load(path)
    assert (loaded.inputs, loaded.outputs) == (imported.inputs, imported.outputs)
    images = zoo.digits()[2][:5]
    from_file, from_model = tvm_ergo.compile(path), tvm_ergo.compile(quantized)
    for image in images:
        one, other = from_file.run({"image": image[None]}).outputs, from_model.run(image[None]).outputs
        np.testing.assert_array_equal(next(iter(one.values())), next(iter(other.values())))


def test_damaged_and_foreign_files_are_refused(digits, tmp_path):
    _, quantized = digits
    data = compressed.pack(quantized, ["image"], ["logits"]).data
    rng = np.random.default_rng(0)
    wrong = [data[:n] for n in (0, 5, 6, 13, 14, 50, len(data) - 1)] + [data + b"x"]
    for place in rng.integers(0, len(data), 60):
        wrong.append(data[:place] + bytes([data[place] ^ (1 << int(rng.integers(8)))]) + data[place + 1 :])
    for bad in wrong:
        with pytest.raises(ModelError):
            compressed.unpack(bad)
    (tmp_path / "net.ergoz").write_bytes(zoo.DIGITS_MODEL.read_bytes())
    (tmp_path / "net.onnx").write_bytes(data)
    for name in ("net.ergoz", "net.onnx"):
        with pytest.raises(ModelError, match="not what its name says"):
            frontend.load(tmp_path / name)


def test_what_follows_a_right_checksum_is_not_trusted_either(digits):
    """Constants' bytes changed by hand, the checksum made anew: our own error, or a network of the same shapes."""
    _, quantized = digits
    data = bytearray(compressed.pack(quantized, ["image"], ["logits"]).data)
    rng = np.random.default_rng(1)
    start = 14 + compressed.pack(quantized, ["image"], ["logits"]).graph_bytes - 14
    for _ in range(60):
        changed = bytearray(data)
        changed[int(rng.integers(start, len(data)))] ^= 1 << int(rng.integers(8))
        changed[6:14] = hashlib.sha256(bytes(changed[14:])).digest()[:8]
        try:
            compressed.unpack(bytes(changed))
        except ModelError:
            pass


def test_a_structure_that_anybody_could_have_written(digits):
    """A structure that runs out of values, kinds or nodes, packed and checksummed anew."""
    _, quantized = digits
    body = compressed.pack(quantized, ["image"], ["logits"]).data[14:]
    reader = Reader(body)
    names, structure = reader.take(reader.varint()), reader.take(reader.varint())
    packed = Reader(lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=FILTERS).decompress(structure))
    kinds, values, rest, count = json.loads(packed.take(packed.varint()))

    def file_of(*head) -> bytes:
        text = json.dumps(head).encode()
        structure = lzma.compress(
            varint(len(text)) + text + packed.data[packed.at :], format=lzma.FORMAT_RAW, filters=FILTERS
        )
        made = varint(len(names)) + names + varint(len(structure)) + structure + body[reader.at :]
        return b"ERGOZ\x01" + hashlib.sha256(made).digest()[:8] + made

    compressed.unpack(file_of(kinds, values, rest, count))
    for head in (
        (kinds, values[:-1], rest, count),
        (kinds, [], rest, count),
        (kinds, 5, rest, count),
        (kinds[:1], values, rest, count),
        (kinds, values, rest, 10**9),
        (kinds, values, [], count),
        (kinds, values, rest, "many"),
        (kinds, values),
        ({}, values, rest, count),
    ):
        with pytest.raises(ModelError, match="damaged"):
            compressed.unpack(file_of(*head))


def test_nodes_in_a_circle_are_refused(digits):
    """TVM's own reader would follow them until the stack ends."""
    structure, arrays = to_bytes(digits[1])
    graph = _unpacked(lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=FILTERS).decompress(structure))
    assert graph["nodes"][-1]["type"] == "ir.IRModule"
    array = next(node for node in graph["nodes"] if node["type"] == "ffi.Array" and node["data"])
    for part in (graph["nodes"].index(array), len(graph["nodes"]) - 1, -1):
        array["data"][0] = part
        with pytest.raises(ModelError, match="does not come before it"):
            from_bytes(lzma.compress(_packed(graph), format=lzma.FORMAT_RAW, filters=FILTERS), arrays)


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False))
def test_any_array_comes_back_to_the_bit(random):
    rng = np.random.default_rng(random.getrandbits(32))
    shape = tuple(rng.integers(0, 9, rng.integers(0, 5)))
    dtype = DTYPES[rng.integers(len(DTYPES))]
    values = (
        rng.choice(rng.normal(0, 10, rng.integers(1, 12)), shape) if rng.random() < 0.5 else rng.normal(0, 300, shape)
    )
    array = (
        (values > 0)
        if dtype == "bool"
        else np.abs(values).astype(dtype)
        if "uint" in dtype
        else np.asarray(values).astype(dtype)
    )
    array = np.where(rng.random(shape) < 0.6, np.zeros((), dtype), array).astype(dtype) if rng.random() < 0.5 else array
    stored = store(array)
    reader = Reader(stored.data)
    back = restore(reader)
    assert (
        back.dtype == array.dtype
        and back.shape == array.shape
        and back.tobytes() == array.tobytes()
        and not reader.rest()
    )
    for end in rng.integers(0, len(stored.data), 4):
        with pytest.raises(ErgoError):
            restore(Reader(stored.data[:end]))


def test_each_kind_of_constant_takes_its_smallest_form():
    rng = np.random.default_rng(0)
    sparse = np.where(
        rng.random((200, 100)) < 0.05, rng.choice(np.float32([-0.3, 0.11, 0.7]), (200, 100)), np.float32(0)
    )
    assert store(sparse).form in (Form.CODED, Form.CODED_TRANSPOSED) and len(store(sparse).data) < 1100
    assert store(np.float32(rng.normal(size=30).astype(np.float16))).form is Form.HALF
    assert store(rng.integers(-20000, 20000, 30).astype(np.int32)).form is Form.NARROW_16
    assert store(np.zeros(5000, np.int64)).form is Form.DEFLATED
    assert store(np.float32([np.nan, -0.0, np.inf])).form in (Form.PLAIN, Form.HALF)
