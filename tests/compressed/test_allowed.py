"""A compressed network's file can name tensors and plain operators, and nothing that would run code or is not as large
as it says."""

import hashlib
import json
import lzma

import numpy as np
import pytest
import tvm
from tvm import relax, te, topi

from tvm_ergo import compressed, frontend, zoo
from tvm_ergo.compressed.allowed import MAX_NODES, OPERATORS
from tvm_ergo.compressed.module_bytes import FILTERS, TENSOR, _packed
from tvm_ergo.compressed.tensors import Form, store
from tvm_ergo.relay_passes.macro import normalize
from tvm_ergo.target.codecs.weights import varint
from tvm_ergo.target.errors import InputError, ModelError
from tvm_ergo.target.limits import model_bytes_limit

X = relax.TensorType((1, 4), "float32")


def module_of(build, attrs=None) -> tvm.IRModule:
    builder, x = relax.BlockBuilder(), relax.Var("x", X)
    with builder.function("main", [x], attrs):
        with builder.dataflow():
            result = builder.emit_output(build(builder, x))
        builder.emit_func_output(result)
    return builder.get()


def file_of(graph: dict, arrays=(), names=(["x"], ["y"])) -> bytes:
    """The file of a structure that anybody could have written."""
    structure = lzma.compress(_packed(graph), format=lzma.FORMAT_RAW, filters=FILTERS)
    header = json.dumps(names).encode()
    body = varint(len(header)) + header + varint(len(structure)) + structure + b"".join(store(a).data for a in arrays)
    return b"ERGOZ\x01" + hashlib.sha256(body).digest()[:8] + body


def forged(mod: tvm.IRModule, change=lambda graph: None) -> bytes:
    graph = json.loads(tvm.ir.save_json(mod))
    constants = []
    for node in graph["nodes"]:
        if node["type"] == TENSOR:
            constants.append(tvm.ir.load_json(json.dumps({"root_index": 0, "nodes": [node]})).numpy())
            node["data"] = None
    change(graph)
    return file_of(graph, constants)


def relu(builder, x):
    return relax.op.nn.relu(x)


def tir(builder, x):
    return builder.emit_te(topi.nn.relu, x)


CODE = {
    "a packed function": lambda b, x: relax.op.call_dps_packed("tests.never_called", [x], X),
    "a pure packed function": lambda b, x: relax.op.call_pure_packed("tests.never_called", x, ty_args=X),
    "a loop": tir,
    "an external function": lambda b, x: relax.Call(relax.ExternFunc("tests.never_called"), [x], ty_args=[X]),
    "raw memory": lambda b, x: relax.op.memory.view(x),
}


@pytest.mark.parametrize("name", CODE)
def test_files_name_no_code(name):
    called = []
    tvm.register_global_func("tests.never_called", lambda *args: called.append(args), override=True)
    mod = module_of(CODE[name])
    with pytest.raises(ModelError, match="damaged|structure"):
        compressed.unpack(forged(mod))
    with pytest.raises(InputError, match="cannot be kept"):
        compressed.pack(mod, ["x"], ["y"])
    assert not called


def test_no_operator_of_the_list_runs_code():
    """Each one is in TVM's registry, pure, and none has to do with calls, memory, devices or the virtual machine."""
    registered = set(tvm.ir.Op.list_op_names())
    for name in OPERATORS:
        assert name in registered and not any(
            word in name
            for word in (
                "call",
                "packed",
                "vm.",
                "memory",
                "builtin",
                "dist.",
                "ccl",
                "closure",
                "print",
                "assert",
                "inspect",
                "grad",
            )
        )


def change_first(kind: str, **fields):
    def change(graph: dict) -> None:
        node = next(n for n in graph["nodes"] if n["type"] == kind)
        node["data"] = {**node["data"], **fields} if isinstance(node["data"], dict) else fields["data"]

    return change


def renamed_operator(graph: dict) -> None:
    next(n for n in graph["nodes"] if n["type"] == "ir.Op")["data"] = "relax.call_py_func"


def other_attributes(graph: dict) -> None:
    node = next(n for n in graph["nodes"] if n["type"] == "relax.attrs.SoftmaxAttrs")
    node["type"], node["data"] = "relax.attrs.ConcatAttrs", {"axis": 1}


def larger(graph: dict) -> None:
    """Every dimension of 4 becomes 400, also where the operator's result is said to be."""
    for node in graph["nodes"]:
        if node["type"] == "ir.IntImm" and node["data"]["value"] == 4:
            node["data"]["value"] = 400


FORGED = {
    "operator": renamed_operator,
    "attributes": other_attributes,
    "sizes": larger,
    "type": change_first("relax.TensorType", ndim=3),
    "root": lambda g: g.update(root_index=0),
    "no root": lambda g: g.pop("root_index"),
    "root far": lambda g: g.update(root_index=1 << 40),
    "constant": change_first("ir.GenericConst", value=0),
    "dtype": change_first("relax.TensorType", dtype="float8_e4m3fn"),
    "dtype text": change_first("relax.TensorType", dtype="x" * 99),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_structure_that_disagrees_with_itself_is_refused(name):
    weights = relax.const(np.ones((4, 4), np.float32))
    mod = module_of(lambda b, x: relax.op.nn.softmax(b.emit(relax.op.matmul(x, weights)), 1))
    compressed.unpack(forged(mod))
    with pytest.raises(ModelError):
        compressed.unpack(forged(mod, FORGED[name]))


@pytest.mark.parametrize(
    "attrs",
    [
        {"Codegen": "tests"},
        {"global_symbol": "main", "relax.force_pure": True},
        {"num_input": "x"},
        {"ergo_calibrated": "x"},
        {"ergo_calibrated": "[]"},
        {"ergo_calibrated": '{"wide": [1]}'},
        {"ergo_calibrated": '{"wide": {}, "more": 1}'},
        {"ergo_float_parts": '{"tensors": {"a": "b"}, "before": 1, "after": 1}'},
    ],
)
def test_functions_carry_no_other_attributes(attrs):
    with pytest.raises(ModelError):
        compressed.unpack(forged(module_of(relu, attrs)))


@pytest.mark.parametrize(
    "attrs",
    [
        {"ergo_calibrated": '{"wide": {"y": 0.5}}'},
        {"ergo_float_parts": '{"tensors": {"a": 0.5}, "before": 1.5, "after": 0.1}'},
    ],
)
def test_what_quantizing_tells_is_kept(attrs):
    mod, *_ = compressed.unpack(forged(module_of(relu, attrs)))
    assert all(str(mod["main"].attrs[key]) == value for key, value in attrs.items())


def test_only_main():
    mod = module_of(relu)
    mod["other"] = te.create_prim_func([te.placeholder((4,), name="a")])
    with pytest.raises(ModelError):
        compressed.unpack(forged(mod))
    twice = module_of(relu)
    twice["other"] = module_of(relu)["main"].with_attr("global_symbol", "other")
    with pytest.raises(ModelError, match="other functions"):
        compressed.unpack(forged(twice))


def test_names_of_inputs_and_outputs():
    graph = json.loads(tvm.ir.save_json(module_of(relu)))
    compressed.unpack(file_of(graph))
    for names in ([["x"], []], [["x", "y"], ["y"]], [[5], ["y"]], [["x"]], 5, [None, None], [{"x": 1}, ["y"]]):
        with pytest.raises(ModelError):
            compressed.unpack(file_of(graph, names=names))


def test_what_is_declared_is_added_up_before_it_is_there():
    """A constant of many zeros takes a few bytes; so does an operator that makes more of them."""
    imported = frontend.load(str(zoo.DIGITS_MODEL))
    data = compressed.pack(normalize(imported.mod), ["image"], ["logits"]).data
    with model_bytes_limit("64KiB"), pytest.raises(ModelError, match="--max-model-bytes"):
        compressed.unpack(data)
    compressed.unpack(data)
    zeros = np.zeros((64, 1 << 10), np.float32)
    assert store(zeros).form is Form.DEFLATED or len(store(zeros).data) < 1000
    many = module_of(lambda b, x: b.emit(relax.op.concat([relax.const(zeros)] * 2, 0)))
    with model_bytes_limit("300KB"), pytest.raises(ModelError, match="--max-model-bytes"):
        compressed.unpack(forged(many))
    grown = module_of(lambda b, x: relax.op.tile(x, (1 << 15, 1 << 15)))
    with pytest.raises(ModelError, match="more memory than the limit"):
        compressed.unpack(forged(grown))
    with model_bytes_limit("64GiB"):
        compressed.unpack(forged(grown))


def test_a_structure_that_opens_to_more_than_a_network():
    graph = {"root_index": 0, "nodes": [{"type": "int", "data": 0}] * (MAX_NODES + 1)}
    with pytest.raises(ModelError, match="nodes"):
        compressed.unpack(file_of(graph))
    deep = "[" * 5000 + "]" * 5000
    head = f"[[],[{deep}],{{}},0]".encode()
    structure = lzma.compress(varint(len(head)) + head, format=lzma.FORMAT_RAW, filters=FILTERS)
    body = varint(2) + b"[]" + varint(len(structure)) + structure
    with pytest.raises(ModelError, match="damaged"):
        compressed.unpack(b"ERGOZ\x01" + hashlib.sha256(body).digest()[:8] + body)
