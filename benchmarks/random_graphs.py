"""Random ONNX graphs against ONNX Runtime, in float and between quantizers (QDQ).

``python -m benchmarks.random_graphs --graphs 10000 --seed 0`` prints how they came out and what is wrong. Outcomes:
  exact    all outputs equal (float: to 1e-4 of their range)
  step     QDQ: at most one step off
  grown    QDQ: more than one step off, but every operator, given what the chip gave the ones before it, is within one
           step of ONNX Runtime's, and the result within what moving tensors by one step does to ONNX Runtime's own
  refused  an error of ours
  none     ONNX Runtime itself ends with an error: nothing to compare with
  wrong    anything else; a defect
"""

from __future__ import annotations

import argparse
import collections
import sys

import numpy as np
import onnx
from onnx import helper

from benchmarks.random_graph_parts import Graph, Quantized, as_model, float_model, inputs_of, quantized, random_graph

EXACT, STEP, GROWN, REFUSED, NONE, WRONG = "exact", "step", "grown", "refused", "none", "wrong"
NOISES = 12


class NoReference(Exception):
    """ONNX Runtime accepts a graph and cannot run it."""


def run_reference(model: onnx.ModelProto, feeds: dict) -> list[np.ndarray]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level, options.intra_op_num_threads, options.log_severity_level = (
        ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
        1,
        4,
    )
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return session.run(None, feeds)
    except Exception as error:  # its error classes have no common base but this
        raise NoReference(str(error).splitlines()[0][:200]) from error


def feeds_of(g: Graph, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([seed, 77])
    return {n: rng.uniform(-2, 2, g.shapes[n]).astype(np.float32) for n in inputs_of(g)}


def ranges_of(g: Graph, seed: int, samples: int = 4) -> dict[str, tuple[float, float]]:
    """Least and greatest value of every tensor on some inputs."""
    names = [n.output[0] for n in g.nodes]
    found: dict[str, tuple[float, float]] = {}
    for i in range(samples):
        feeds = feeds_of(g, seed + 1000003 * i)
        for name, value in (*feeds.items(), *zip(names, run_reference(float_model(g, names), feeds))):
            low, high = found.get(name, (np.inf, -np.inf))
            found[name] = min(low, float(value.min())), max(high, float(value.max()))
    return found


def in_float(g: Graph, seed: int) -> tuple[str, str]:
    from tvm_ergo.frontend import load
    from tvm_ergo.relay_passes.interpreter import evaluate
    from tvm_ergo.relay_passes.macro import normalize
    from tvm_ergo.target.errors import ErgoError

    model, feeds = float_model(g), feeds_of(g, seed)
    want = run_reference(model, feeds)
    try:
        imported = load(model)
        got = evaluate(
            normalize(imported.mod), {p: feeds[i.name] for p, i in zip(imported.parameters, imported.inputs)}
        )
    except ErgoError as error:
        return REFUSED, str(error)
    except Exception as error:  # noqa: BLE001  what is not ours is a defect
        return WRONG, f"{type(error).__name__}: {error}"[:300]
    for ours, right in zip(got, want, strict=True):
        span = max(float(np.abs(right).max(initial=0)), 1e-3)
        if ours.shape != right.shape or not np.allclose(ours, right, rtol=1e-4, atol=1e-4 * span, equal_nan=True):
            return (
                WRONG,
                f"{ours.shape} {right.shape}"
                if ours.shape != right.shape
                else f"off by {np.abs(ours - right).max() / span:.3g} of the range",
            )
    return EXACT, ""


def between_quantizers(g: Graph, seed: int) -> tuple[str, str]:
    import tvm_ergo
    from tvm_ergo.target.errors import ErgoError

    q, feeds = quantized(g, ranges_of(g, seed)), feeds_of(g, seed)
    want = run_reference(q.model(), feeds)
    try:
        got = tvm_ergo.compile(q.model()).run(feeds).outputs
    except ErgoError as error:
        return REFUSED, str(error)
    except Exception as error:  # noqa: BLE001
        return WRONG, f"{type(error).__name__}: {error}"[:300]
    off, texts = 0.0, []
    for name, right in zip(q.outputs, want, strict=True):
        if got[name].shape != right.shape:
            return WRONG, f"{name} is {got[name].shape}, not {right.shape}"
        most = float(np.abs(got[name] - right).max(initial=0)) / q.steps[name]
        off = max(off, most)
        texts.append(f"{name}: {most:.2f} steps")
    if off < 0.01:
        return EXACT, ""
    if off < 1.01:
        return STEP, ""
    return _explained(q, feeds, got, want, ", ".join(texts))


def _explained(q: Quantized, feeds, got, want, text: str) -> tuple[str, str]:
    """Whether single steps of the operators before explain a larger difference."""
    bound = _noise_bound(q, feeds, want)
    for name, right in zip(q.outputs, want):
        if float(np.abs(got[name] - right).max()) / q.steps[name] > bound[name]:
            return WRONG, f"{text}; moving every tensor by a step moves {name} by {bound[name]:.2f}"
    worst = worst_operator(q, feeds)
    return (GROWN, text) if worst is None else (WRONG, f"{text}; {worst}")


def _noise_bound(q: Quantized, feeds, want) -> dict[str, float]:
    """By how many steps outputs move when every quantized tensor is moved by up to one step, at random."""
    nodes, inputs, noise = [], dict(q.inputs), []
    shapes = dict(zip(q.steps, (v.shape for v in run_reference(q.model(list(q.steps)), feeds))))
    for node in q.nodes:
        own = onnx.NodeProto()
        own.CopyFrom(node)
        nodes.append(own)
        if node.op_type == "DequantizeLinear" and node.output[0] in q.steps and node.output[0] not in q.outputs:
            name = node.output[0]
            own.output[0] = f"{name}_clean"
            inputs[f"{name}_noise"] = shapes[name]
            noise.append(name)
            nodes.append(helper.make_node("Add", [f"{name}_clean", f"{name}_noise"], [name]))
    model, found = as_model(nodes, q.constants, inputs, q.outputs), dict.fromkeys(q.outputs, 0.0)
    for i in range(NOISES):
        rng = np.random.default_rng(i)
        moved = run_reference(
            model,
            {
                **feeds,
                **{f"{n}_noise": (q.steps[n] * rng.integers(-1, 2, shapes[n])).astype(np.float32) for n in noise},
            },
        )
        for name, a, b in zip(q.outputs, moved, want):
            found[name] = max(found[name], float(np.abs(a - b).max(initial=0)) / q.steps[name])
    return {n: 1.5 * v + 1.01 for n, v in found.items()}


def worst_operator(q: Quantized, feeds) -> str | None:
    """The first tensor that is more than a step from what ONNX Runtime makes of the chip's own tensors before it; None
    if there is none."""
    import tvm_ergo

    names = list(q.steps)
    got = tvm_ergo.compile(q.model(names)).run(feeds).outputs
    for name in names:
        nodes, inputs = _piece(q, name)
        values = {n: feeds[n] if n in feeds else got[n] for n in inputs}
        constants = {k: v for k, v in q.constants.items() if any(k in n.input for n in nodes)}
        right = run_reference(as_model(nodes, constants, {n: v.shape for n, v in values.items()}, [name]), values)[0]
        off = float(np.abs(got[name] - right).max(initial=0)) / q.steps[name]
        if off > 1.01:
            ops = ", ".join(n.op_type for n in nodes if "Linear" not in n.op_type)
            return f"{name} ({ops}) is {off:.2f} steps off by itself"
    return None


def _piece(q: Quantized, name: str) -> tuple[list, list[str]]:
    """The nodes between a quantized tensor and the quantized tensors (or inputs) it is made of."""
    producer = {n.output[0]: n for n in q.nodes}
    nodes, inputs, stack = [], [], [name]
    while stack:
        current = stack.pop()
        node = producer.get(current)
        if node is None or (current in q.steps and current != name):
            if current not in q.constants and current not in inputs:
                inputs.append(current)
            continue
        if node not in nodes:
            nodes.append(node)
            stack.extend(i for i in node.input if i)
    return [n for n in q.nodes if n in nodes], inputs


def describe(g: Graph) -> str:
    return "; ".join(
        f"{n.output[0]}{list(g.shapes[n.output[0]])}={n.op_type}({','.join(n.input)}"
        + "".join(f" {a.name}={helper.get_attribute_value(a)}" for a in n.attribute)
        + ")"
        for n in g.nodes
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    options.add_argument("--graphs", type=int, default=10000)
    options.add_argument("--seed", type=int, default=0, help="number of the first graph")
    options.add_argument("--size", type=int, default=5, help="operators in a graph")
    options.add_argument("--form", choices=("both", "float", "qdq"), default="both")
    given = options.parse_args()
    counts, wrong = collections.Counter(), 0
    for seed in range(given.seed, given.seed + given.graphs):
        for form, check in (("float", in_float), ("qdq", between_quantizers)):
            if given.form not in ("both", form):
                continue
            g = random_graph(seed, given.size)
            try:
                outcome, detail = check(g, seed)
            except NoReference as error:
                outcome, detail = NONE, str(error)
            counts[form, outcome] += 1
            wrong += outcome == WRONG
            if outcome in (WRONG, REFUSED, NONE):
                print(f"{seed} {form} {outcome}: {' | '.join(detail.splitlines())}\n    {describe(g)}", flush=True)
    for (form, outcome), count in sorted(counts.items()):
        print(f"{form:6} {outcome:8} {count}")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
