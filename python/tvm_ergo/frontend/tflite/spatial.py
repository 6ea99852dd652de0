"""Operators on pictures that change no values but their places: blocks, and resizing."""

from __future__ import annotations

import math

from tvm import relax

from tvm_ergo.frontend.tflite.converter import Converter, Node
from tvm_ergo.frontend.tflite.movement import sliced
from tvm_ergo.frontend.tflite.registry import operator
from tvm_ergo.relay_passes.relax_utils import Expr, shape_of


def _regrouped(c: Converter, x: Expr, parts: list[int], perm: list[int], shape: list[int]) -> Expr:
    """``x`` taken apart into ``parts``, its axes reordered, put together as ``shape``."""
    return c.emit(relax.op.reshape(c.emit(relax.op.permute_dims(c.emit(relax.op.reshape(x, parts)), perm)), shape))


def _block(node: Node, option: str = "block_size") -> int:
    if int(node.opt[option]) < 1:
        raise node.refuse(
            f"has the block size {node.opt[option]}",
            required="at least 1",
            remedy="the file is damaged; convert it again",
        )
    return int(node.opt[option])


@operator("SPACE_TO_DEPTH", options="SpaceToDepthOptions", handled="block_size")
def space_to_depth(c: Converter, node: Node) -> None:
    (n, h, w, d), b = shape_of(c.stored(node, 0)), _block(node)
    if h % b or w % b:
        raise node.refuse(
            f"has blocks of {b} in a picture of {h} x {w}", required="height and width that are multiples of it"
        )
    c.bind(
        node.output(),
        c.moved(
            node,
            c.stored(node, 0),
            node.input(0),
            lambda x: _regrouped(
                c, x, [n, h // b, b, w // b, b, d], [0, 1, 3, 2, 4, 5], [n, h // b, w // b, b * b * d]
            ),
        ),
    )


@operator("DEPTH_TO_SPACE", options="DepthToSpaceOptions", handled="block_size")
def depth_to_space(c: Converter, node: Node) -> None:
    (n, h, w, d), b = shape_of(c.stored(node, 0)), _block(node)
    if d % (b * b):
        raise node.refuse(
            f"has blocks of {b} x {b} of {d} channels", required="channels that are a multiple of the block"
        )
    c.bind(
        node.output(),
        c.moved(
            node,
            c.stored(node, 0),
            node.input(0),
            lambda x: _regrouped(
                c, x, [n, h, w, b, b, d // (b * b)], [0, 1, 3, 2, 4, 5], [n, h * b, w * b, d // (b * b)]
            ),
        ),
    )


def _blocks_and_pairs(c: Converter, node: Node, rank: int, what: str) -> tuple[list[int], list[int]]:
    blocks, pairs = c.ints(node, 1, "block sizes"), c.ints(node, 2, what)
    if not 0 < len(blocks) < rank or len(pairs) != 2 * len(blocks) or min(blocks) < 1 or min(pairs) < 0:
        raise node.refuse(
            f"has the block sizes {blocks} and {what} {pairs}", remedy="the file is damaged; convert it again"
        )
    return blocks, pairs


@operator("SPACE_TO_BATCH_ND", options="SpaceToBatchNDOptions")
def space_to_batch_nd(c: Converter, node: Node) -> None:
    """[N, S..., rest] padded with zeros, then blocks of S go into N."""
    n, *rest = shape_of(c.stored(node, 0))
    blocks, pads = _blocks_and_pairs(c, node, len(rest) + 1, "paddings")
    m = len(blocks)
    padded = [rest[i] + pads[2 * i] + pads[2 * i + 1] for i in range(m)]
    if any(d % b for d, b in zip(padded, blocks)):
        raise node.refuse(
            f"has blocks of {blocks} in {padded}", required="padded sizes that are multiples of the blocks"
        )

    def function(x):
        if any(pads):
            x = c.emit(relax.op.nn.pad(x, [0, 0, *pads] + [0, 0] * (len(rest) - m)))
        parts = [n] + [v for d, b in zip(padded, blocks) for v in (d // b, b)] + rest[m:]
        perm = (
            [2 * i + 2 for i in range(m)]
            + [0]
            + [2 * i + 1 for i in range(m)]
            + list(range(2 * m + 1, 2 * m + 1 + len(rest) - m))
        )
        return _regrouped(
            c, x, parts, perm, [n * math.prod(blocks), *(d // b for d, b in zip(padded, blocks)), *rest[m:]]
        )

    c.bind(node.output(), c.moved(node, c.stored(node, 0), node.input(0), function))


@operator("BATCH_TO_SPACE_ND", options="BatchToSpaceNDOptions")
def batch_to_space_nd(c: Converter, node: Node) -> None:
    """The inverse: blocks out of N into S, then the edges are cropped."""
    n, *rest = shape_of(c.stored(node, 0))
    blocks, crops = _blocks_and_pairs(c, node, len(rest) + 1, "crops")
    m = len(blocks)
    sizes = [d * b for d, b in zip(rest, blocks)]
    if n % math.prod(blocks) or any(crops[2 * i] + crops[2 * i + 1] > sizes[i] for i in range(m)):
        raise node.refuse(
            f"has blocks of {blocks} in a batch of {n} and crops {crops}",
            remedy="the file is damaged; convert it again",
        )
    batch = n // math.prod(blocks)

    def function(x):
        perm = [m] + [v for i in range(m) for v in (m + 1 + i, i)] + list(range(2 * m + 1, 2 * m + 1 + len(rest) - m))
        whole = _regrouped(c, x, [*blocks, batch, *rest], perm, [batch, *sizes, *rest[m:]])
        kept = [range(crops[2 * i], sizes[i] - crops[2 * i + 1]) for i in range(m)]
        return sliced(c, whole, [range(batch), *kept, *(range(d) for d in rest[m:])])

    c.bind(node.output(), c.moved(node, c.stored(node, 0), node.input(0), function))


def _size(c: Converter, node: Node) -> list[int]:
    size = c.ints(node, 1, "a size")
    if len(size) != 2 or min(size) < 1:
        raise node.refuse(
            f"has the size {size}", required="height and width", remedy="the file is damaged; convert it again"
        )
    if node.opt["align_corners"] and node.opt["half_pixel_centers"]:
        raise node.refuse(
            "has align_corners and half_pixel_centers",
            required="one of them, as in LiteRT",
            remedy="the file is damaged; convert it again",
        )
    return size


@operator("RESIZE_BILINEAR", options="ResizeBilinearOptions", handled="align_corners half_pixel_centers")
def resize_bilinear(c: Converter, node: Node) -> None:
    size, mode = (
        _size(c, node),
        "align_corners"
        if node.opt["align_corners"]
        else "half_pixel"
        if node.opt["half_pixel_centers"]
        else "asymmetric",
    )
    c.move(
        node,
        lambda x: relax.op.image.resize2d(
            x, tuple(size), layout="NHWC", method="linear", coordinate_transformation_mode=mode
        ),
    )


@operator("RESIZE_NEAREST_NEIGHBOR", options="ResizeNearestNeighborOptions", handled="align_corners half_pixel_centers")
def resize_nearest_neighbor(c: Converter, node: Node) -> None:
    """align_corners rounds to the nearest, halves up; the others round down, half_pixel_centers from the middle of the
    pixel."""
    size = _size(c, node)
    mode = (
        "align_corners"
        if node.opt["align_corners"]
        else "tf_half_pixel_for_nn"
        if node.opt["half_pixel_centers"]
        else "asymmetric"
    )
    rounding = "round_prefer_ceil" if node.opt["align_corners"] else "floor"
    c.move(
        node,
        lambda x: relax.op.image.resize2d(
            x,
            tuple(size),
            layout="NHWC",
            method="nearest_neighbor",
            coordinate_transformation_mode=mode,
            rounding_method=rounding,
        ),
    )
