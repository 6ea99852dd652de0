"""ONNX's spectral operators, which TVM's importer lacks: STFT as a convolution over time, DFT as a product with a
constant matrix, windows and mel weights as constants."""

from __future__ import annotations

import numpy as np
import onnx

from tvm_ergo.frontend.onnx_emitter import Emitter, attributes_of
from tvm_ergo.frontend.onnx_known import Known
from tvm_ergo.target.errors import ModelError, UnsupportedError

_CONSTANTS = frozenset({"MelWeightMatrix", "HannWindow", "HammingWindow", "BlackmanWindow"})


def decompose_spectral(model: onnx.ModelProto, shapes: dict[str, list[int]]) -> bool:
    """Replace STFT, DFT and constant windows in place; ``shapes`` are those of the inputs. True if there were any.

    Errors: ModelError (lengths, steps or windows that depend on an input), UnsupportedError (the inverse of a one-sided
    transform)."""
    graph, rules = model.graph, {"STFT": _stft, "DFT": _dft, **dict.fromkeys(_CONSTANTS, _constant)}
    if not any(n.op_type in rules and n.domain in ("", "ai.onnx") for n in graph.node):
        return False
    known, nodes = Known(model, shapes), []
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=17)
    for node in graph.node:
        rule = rules.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None:
            nodes.append(node)
            continue
        emitter = Emitter(node)
        rule(node, emitter, known, opset)
        nodes.extend(emitter.nodes)
        graph.initializer.extend(emitter.initializers)
    del graph.node[:]
    graph.node.extend(nodes)
    return True


def _where(node: onnx.NodeProto) -> str:
    return f"node {node.name or node.output[0]!r} ({node.op_type})"


def _value(node, known: Known, index: int, what: str) -> np.ndarray | None:
    if len(node.input) <= index or not node.input[index]:
        return None
    value = known.value(node.input[index])
    if value is None:
        raise ModelError(
            f"the {what} is not a constant",
            where=f"{_where(node)}, input {node.input[index]!r}",
            remedy=f"export the model with a constant {what}",
        )
    return value


def _shape(node, known: Known) -> list[int]:
    shape = known.shape(node.input[0])
    if shape is None or not all(shape):
        raise ModelError(
            "the shape of a signal is not known",
            where=_where(node),
            available=f"{node.input[0]!r} is {shape}",
            remedy="give the shapes of the inputs: input_shapes={name: shape}, --input-shape NAME=DIMS",
        )
    return shape


def _constant(node, e: Emitter, known: Known, opset: int) -> None:
    value = known.value(node.output[0])
    if value is None:
        raise ModelError(
            "the size of a window is not a constant", where=_where(node), remedy="export the model with constant sizes"
        )
    e.op("Identity", [e.constant("value", value)], "window", node.output[0])


def _waves(samples: int, length: int, bins: int, components: int, sign: float) -> np.ndarray:
    """[samples, components, bins, 2]: what a sample (its real and imaginary part) adds to the real and imaginary part
    of each bin."""
    angle = sign * 2 * np.pi * (np.outer(np.arange(samples), np.arange(bins)) % length) / length
    real, imaginary = np.cos(angle), np.sin(angle)
    parts = [np.stack([real, imaginary], -1), np.stack([-imaginary, real], -1)]
    return np.stack(parts[:components], 1)


def _stft(node, e: Emitter, known: Known, opset: int) -> None:
    """Frames of the signal [N,L], [N,L,1] or [N,L,2] times window and waves: a convolution whose stride is the step;
    [N,frames,bins,2]."""
    shape = _shape(node, known)
    step, window, length = (
        _value(node, known, i, what) for i, what in ((1, "frame step"), (2, "window"), (3, "frame length"))
    )
    if step is None or window is None and length is None:
        raise ModelError(
            "a short-time transform has neither window nor length",
            where=_where(node),
            required="a frame step, and a window or a frame length",
            remedy="export it with a window or a frame length",
        )
    step, size = int(step), int(length) if length is not None else window.size
    if window is not None and window.size != size:
        raise ModelError(
            "a window has another length than its frames",
            where=_where(node),
            required=str(size),
            available=str(window.size),
            remedy="export it with a window of the frame's length",
        )
    if step < 1 or not 1 <= size <= shape[1]:
        raise ModelError(
            "the frames of a short-time transform do not fit the signal",
            where=_where(node),
            available=f"step {step}, length {size}, signal {shape}",
            remedy="use a longer signal (--input-shape), or shorter frames",
        )
    bins = size // 2 + 1 if attributes_of(node).get("onesided", 1) else size
    components, frames = shape[2] if len(shape) == 3 else 1, 1 + (shape[1] - size) // step
    waves = _waves(size, size, bins, components, -1.0) * (
        1 if window is None else window.astype(np.float64).reshape(-1, 1, 1, 1)
    )
    kernel = e.constant(
        "waves",
        np.ascontiguousarray(waves.transpose(2, 3, 1, 0).reshape(2 * bins, components, size).astype(np.float32)),
    )
    if components == 2:
        signal = e.op("Transpose", [node.input[0]], "signal", perm=[0, 2, 1])
    else:
        signal = e.op(
            "Reshape", [node.input[0], e.constant("signal_shape", np.array([shape[0], 1, shape[1]]))], "signal"
        )
    spectra = e.named("Conv", [signal, kernel], node.name, strides=[step], kernel_shape=[size])
    moved = e.op("Transpose", [spectra], "frames", perm=[0, 2, 1])
    e.op("Reshape", [moved, e.constant("shape", np.array([shape[0], frames, bins, 2]))], "bins", node.output[0])


def _dft(node, e: Emitter, known: Known, opset: int) -> None:
    """[..., 1 or 2] along an axis: a matrix product over that axis and the parts; shorter signals are as if zeros
    followed, longer ones are cut."""
    shape, attributes = _shape(node, known), attributes_of(node)
    length, axis = (
        _value(node, known, 1, "length"),
        _value(node, known, 2, "axis") if opset >= 20 else np.array(attributes.get("axis", 1)),
    )
    axis, rank = (-2 if axis is None else int(axis.reshape(-1)[0])) % len(shape), len(shape)
    inverse, onesided = bool(attributes.get("inverse", 0)), bool(attributes.get("onesided", 0))
    if inverse and onesided:
        raise UnsupportedError(
            "the inverse of a one-sided transform is not supported",
            where=_where(node),
            remedy="use the whole spectrum (onesided=0)",
        )
    samples, components = shape[axis], shape[-1]
    size = samples if length is None else int(length.reshape(-1)[0])
    bins = size // 2 + 1 if onesided else size
    waves = _waves(min(samples, size), size, bins, components, 1.0 if inverse else -1.0) / (size if inverse else 1)
    matrix = np.zeros((samples, components, bins, 2))
    matrix[:size] = waves
    order = [a for a in range(rank - 1) if a != axis] + [axis, rank - 1]
    others = [shape[a] for a in order[:-2]]
    moved = e.op("Transpose", [node.input[0]], "moved", perm=order) if order != list(range(rank)) else node.input[0]
    rows = e.op("Reshape", [moved, e.constant("rows_shape", np.array([*others, samples * components]))], "rows")
    product = e.named(
        "MatMul",
        [rows, e.constant("waves", matrix.reshape(samples * components, bins * 2).astype(np.float32))],
        node.name,
    )
    last = order == list(range(rank))
    parts = e.op(
        "Reshape",
        [product, e.constant("shape", np.array([*others, bins, 2]))],
        "bins",
        node.output[0] if last else None,
    )
    if not last:
        e.op("Transpose", [parts], "placed", node.output[0], perm=[order.index(a) for a in range(rank)])
