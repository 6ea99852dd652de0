"""Every attribute that ONNX's operators have, at values other than the default, against ONNX Runtime:
``docs/onnx_attributes.md``.

``python -m benchmarks.onnx_attributes`` writes the page; ``--show OP`` prints the cases of one operator. Each case is
one node, run
  as float: imported, in normal form, evaluated in NumPy; all outputs to 1e-4 of ONNX Runtime's as QDQ: its float inputs
  and outputs between QuantizeLinear and DequantizeLinear, compiled and run on the emulated chip; at most one step off
and is right, refused (an error of ours that names the node), or wrong. ONNX's reference evaluator stands in where ONNX
Runtime has no kernel."""

from __future__ import annotations

import argparse
import collections
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.onnx_attribute_cases import Case, Known, cases

PAGE = Path(__file__).resolve().parents[1] / "docs" / "onnx_attributes.md"
RIGHT, REFUSED, WRONG, NO_REFERENCE = "right", "refused", "wrong", "no reference"
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "FusedConv", "FusedGemm", "FusedMatMul")
OLDEST = 7
"""Attributes that only older opsets have are not listed: no reference runs those;
``tests/frontend/test_onnx_old_opsets.py`` has them."""
NOT_NUMBERS = (("Constant", "value_string"), ("Constant", "value_strings"))


def model_of(case: Case, quantized: bool = False) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The case as a model, and its feeds. ``quantized``: float inputs and outputs between QuantizeLinear and
    DequantizeLinear."""
    names, feeds, constants, nodes = [], {}, {}, []
    for i, value in enumerate(case.inputs):
        if value is None:
            names.append("")
        elif isinstance(value, Known):
            weight = quantized and i == 1 and case.op in WEIGHTED and value.value.dtype == np.float32
            names.append(_stored(nodes, constants, f"k{i}", value.value) if weight else f"k{i}")
            if not weight:
                constants[f"k{i}"] = value.value
        else:
            feeds[f"x{i}"] = value
            names.append(
                _step(nodes, constants, f"x{i}", value) if quantized and value.dtype == np.float32 else f"x{i}"
            )
    attributes = {n: numpy_helper.from_array(v) if isinstance(v, np.ndarray) else v for n, v in case.attributes.items()}
    inner = [f"r{i}" if quantized else f"y{i}" for i in range(case.outputs)]
    while names and not names[-1]:
        names.pop()
    nodes.append(helper.make_node(case.op, names, inner, name="node", domain=case.domain, **attributes))
    if case.op == "ConcatFromSequence":
        nodes[-1:] = [
            helper.make_node("SequenceConstruct", names, ["parts"]),
            helper.make_node(case.op, ["parts"], inner, name="node", **attributes),
        ]
    if case.op == "SplitToSequence":  # a sequence is no output; put together again, it shows every part
        nodes.append(
            helper.make_node(
                "ConcatFromSequence", inner, ["whole"], axis=0, new_axis=0 if case.attributes.get("keepdims", 1) else 1
            )
        )
        inner = ["whole"]
    made = _proto(nodes, constants, feeds, inner, case)
    if not quantized:
        return made, feeds
    outputs = []
    for i, array in enumerate(reference(made, feeds)):
        if getattr(array, "dtype", None) == np.float32:
            _step(nodes, constants, inner[i], array, f"y{i}")
            outputs.append(f"y{i}")
        else:
            outputs.append(inner[i])
    return _proto(nodes, constants, feeds, outputs, case), feeds


def _stored(nodes: list, constants: dict, name: str, array: np.ndarray) -> str:
    """A weight as quantizers store it: int8 behind DequantizeLinear."""
    scale = np.float32(np.abs(array).max() / 127)
    constants[f"{name}_q"], constants[f"{name}_s"] = np.rint(array / scale).astype(np.int8), scale
    nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", f"{name}_s"], [name]))
    return name


def _step(nodes: list, constants: dict, name: str, array: np.ndarray, out: str = "") -> str:
    """Append a quantization of the tensor's range."""
    out = out or f"{name}_d"
    low, high = min(float(np.min(array, initial=0)), 0.0), max(float(np.max(array, initial=0)), 0.0)
    scale = np.float32((high - low) / 255 or 1)
    constants[f"{name}_s"], constants[f"{name}_z"] = scale, np.int8(np.clip(np.rint(-128 - low / scale), -128, 127))
    nodes.append(helper.make_node("QuantizeLinear", [name, f"{name}_s", f"{name}_z"], [f"{name}_q"]))
    nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", f"{name}_s", f"{name}_z"], [out]))
    return out


def _proto(nodes, constants, feeds, outputs, case: Case) -> onnx.ModelProto:
    opset = case.opset
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in feeds.items()],
        [onnx.ValueInfoProto(name=n) for n in outputs],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )
    domains = [helper.make_opsetid("", opset), *([helper.make_opsetid(case.domain, 1)] if case.domain else [])]
    made = onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=domains, ir_version=4 if opset < 9 else 10)
    )
    for output in made.graph.output:
        if output.type.WhichOneof("value") is None:
            output.type.CopyFrom(helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None))
    return made


def reference(made: onnx.ModelProto, feeds: dict) -> list:
    """ONNX Runtime's outputs, its optimizations off; ONNX's own evaluator's where it has no kernel."""
    import onnxruntime as ort
    from onnx.reference import ReferenceEvaluator

    options = ort.SessionOptions()
    options.graph_optimization_level, options.intra_op_num_threads, options.log_severity_level = (
        ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
        1,
        4,
    )
    try:
        return ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(
            None, feeds
        )
    except Exception as error:  # noqa: BLE001  its errors have no common base
        if any(n.domain for n in made.graph.node):
            raise LookupError(str(error)) from error
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                return ReferenceEvaluator(made).run(None, feeds)
            except Exception as other:  # noqa: BLE001
                raise LookupError(f"{error}; {other}") from other


def as_float(case: Case) -> tuple[str, str]:
    """``(result, detail)`` of the case in float."""
    from tvm_ergo.frontend import load
    from tvm_ergo.relay_passes.interpreter import evaluate
    from tvm_ergo.relay_passes.macro import normalize
    from tvm_ergo.target.errors import ErgoError

    try:
        made, feeds = model_of(case)
        want = reference(made, feeds)
    except LookupError as error:
        return NO_REFERENCE, str(error)[:200]
    try:
        imported = load(made)
        got = evaluate(
            normalize(imported.mod), {p: feeds[i.name] for p, i in zip(imported.parameters, imported.inputs)}
        )
    except ErgoError as error:
        return REFUSED, str(error)
    return _judged(*_comparable(case, got, want), 1e-4, 1e-5)


def _comparable(case: Case, got: list, want: list) -> tuple[list, list]:
    """Both in one order, where the operator leaves the order free (TopK, unsorted): the values, sorted."""
    if case.attributes.get("sorted", 1):
        return got, want
    axis = case.attributes.get("axis", -1)
    return [np.sort(got[0], axis)], [np.sort(want[0], axis)]


def as_quantized(case: Case) -> tuple[str, str]:
    """``(result, detail)`` of the case between quantizers, on the emulated chip; "" where nothing in it is float."""
    import tvm_ergo
    from tvm_ergo.target.errors import ErgoError

    if case.opset < 10:  # there was no QuantizeLinear
        return "", ""
    try:
        made, feeds = model_of(case, quantized=True)
        want = reference(made, feeds)
    except LookupError as error:
        return NO_REFERENCE, str(error)[:200]
    if not feeds or not any(n.op_type == "QuantizeLinear" for n in made.graph.node if n.name != "node"):
        return "", ""
    try:
        got = list(tvm_ergo.compile(made).run(feeds).outputs.values())
    except ErgoError as error:
        return REFUSED, str(error)
    stored = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    sources = {n.output[0]: n.input[1] for n in made.graph.node if n.op_type == "DequantizeLinear"}
    steps = [1.001 * float(stored.get(sources.get(o.name, ""), 0)) for o in made.graph.output]
    return _judged(*_comparable(case, got, want), 1e-5, steps)


def _judged(got, want, rtol: float, atol) -> tuple[str, str]:
    for i, (ours, right) in enumerate(zip(got, want, strict=True)):
        right = np.asarray(right)
        if ours.shape != right.shape or ours.dtype != right.dtype:
            return WRONG, f"output {i} is {ours.dtype}{list(ours.shape)}, not {right.dtype}{list(right.shape)}"
        allowed = atol[i] if isinstance(atol, list) else atol
        if not np.allclose(
            ours.astype(np.float64), right.astype(np.float64), rtol=rtol, atol=allowed + 1e-6, equal_nan=True
        ):
            return (
                WRONG,
                f"output {i} is off by {np.abs(ours.astype(np.float64) - right.astype(np.float64)).max():.4g}, "
                f"allowed {allowed:.4g}",
            )
    return RIGHT, ""


def pairs() -> list[tuple[str, str]]:
    """Every (operator, attribute) of the operators TVM's importer or the frontend's rules take, of any opset from 7
    on."""
    from tvm.relax.frontend.onnx import onnx_frontend

    ours = {c.op for c in cases()} | set(onnx_frontend._get_convert_map())
    found = {(c.op, a) for c in cases() for a in c.attributes}
    for name in sorted(ours):
        schemas = sorted(
            (s for s in onnx.defs.get_all_schemas_with_history() if s.domain == "" and s.name == name),
            key=lambda s: s.since_version,
        )
        for i, schema in enumerate(schemas):
            if i + 1 == len(schemas) or schemas[i + 1].since_version > OLDEST:
                found |= {(name, a) for a in schema.attributes}
    return sorted(found - set(NOT_NUMBERS))


def table(results: dict) -> tuple[list[str], int, int]:
    """Lines of the table, how many pairs have a case, how many pairs there are."""
    by_pair = collections.defaultdict(list)
    for case, outcome in results.items():
        for attribute in case.attributes:
            by_pair[case.op, attribute].append((case, outcome))
    lines, tested, every = ["| operator | attribute | values | float | QDQ |", "|---|---|---|---|---|"], 0, pairs()
    for op, attribute in every:
        tried = by_pair.get((op, attribute), [])
        tested += bool(tried)
        values = dict.fromkeys(_text(c.attributes[attribute]) for c, _ in tried)
        lines.append(
            f"| {op} | {attribute} | {'; '.join(values) or 'none tried'} | {_summary([o[0] for _, o in tried])} | "
            f"{_summary([o[1] for _, o in tried])} |"
        )
    return lines, tested, len(every)


def _text(value) -> str:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return str(value).replace("|", "/")


def _summary(outcomes: list[str]) -> str:
    counts = collections.Counter(o for o in outcomes if o)
    return ", ".join(f"{n} {name}" if len(counts) > 1 else name for name, n in sorted(counts.items())) or "-"


def page(results: dict) -> str:
    lines, tested, every = table(results)
    count = collections.Counter(o for outcome in results.values() for o in outcome if o)
    refused = dict.fromkeys(f"- {c.op} {_given(c)}: {first}" for c, first in _refusals(results))
    head = f"""# ONNX attributes

Written by `python -m benchmarks.onnx_attributes`; do not edit. {len(results)} nodes with attributes at values other than the default, each
in float and between quantizers (QDQ), against ONNX Runtime (ONNX's reference evaluator where that has no kernel): {count[RIGHT]} results right,
{count[REFUSED]} refused with an error that names the node, {count[WRONG]} wrong, {count[NO_REFERENCE]} without a reference. Right: in float to 1e-4,
in QDQ within one step of the output. {tested} of {every} attributes ({100 * tested / every:.0f} %) of the operators TVM's importer and the frontend's own rules
take are tried; those that only opsets below {OLDEST} have are tested apart, in `tests/frontend/test_onnx_old_opsets.py`. An attribute that ONNX does not know for an
operator is refused.

"""
    return head + "\n".join(lines) + "\n\n## What is refused\n\n" + "\n".join(refused) + "\n"


def _given(case: Case) -> str:
    return ", ".join(f"{n}={_text(v)}" for n, v in case.attributes.items())


def _refusals(results):
    for case, outcome in results.items():
        if outcome[0] == REFUSED:
            yield case, as_float(case)[1].split("\n")[0]


class Results(dict):
    """Case -> (float, QDQ); cases hold arrays and are told apart by identity."""

    def __init__(self, found):
        super().__init__()
        self._cases = {}
        for case, outcome in found:
            self._cases[id(case)] = case
            super().__setitem__(id(case), outcome)

    def items(self):
        return [(self._cases[key], value) for key, value in super().items()]


def run(every=None, quantized: bool = True, say=None) -> Results:
    found = []
    for case in every or cases():
        outcome = as_float(case), as_quantized(case) if quantized else ("", "")
        found.append((case, (outcome[0][0], outcome[1][0])))
        if say:
            say(case, outcome)
    return Results(found)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    options.add_argument(
        "--show",
        metavar="OP",
        help="print the cases of one operator (or 'wrong': of all that are wrong) and write nothing",
    )
    given = options.parse_args()

    def say(case, outcome):
        if given.show is None or given.show == "wrong" and WRONG not in (outcome[0][0], outcome[1][0]):
            return
        print(f"{case.op}({_given(case)}) opset {case.opset}: float {outcome[0]}, QDQ {outcome[1]}")

    chosen = [c for c in cases() if given.show in (None, "wrong", c.op)]
    results = run(chosen, say=say)
    if given.show is None:
        PAGE.write_text(page(results))
        print(f"wrote {PAGE}")
    sys.exit(any(WRONG in outcome for outcome in results.values()))


if __name__ == "__main__":
    main()
