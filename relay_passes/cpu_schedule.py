"""A decent default CPU schedule of the PrimFuncs the dialect and float NHWC modules legalize to.

One rule per kind of block, chosen by the block's form and not by its name:

- *contraction* (a reduction over two tensors: conv, depthwise, matmul): a register tile of ``columns x lanes``
  accumulators,
  the reduction around it, the requantization right after it;
- *reduction* (pooling, mean, maxima): channels innermost when they are contiguous, so that LLVM vectorizes them;
- *elementwise*: outer loops fused and parallel, the last left to LLVM's vectorizer.

Integer results do not depend on the order of a sum, so no schedule can change them. Floating-point sums do change in
the last bits, as under any compiler."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from tvm import s_tir, tirx
from tvm.s_tir.schedule import ScheduleError

from tvm_ergo.relay_passes.dialect.contraction import LANES_ANNOTATION

_PARALLEL_GRAIN = 1 << 13
"""Element operations below which starting the other threads costs more than it saves (about 5 us on this kind of
machine)."""
_MIN_TASKS = 16
"""Parallel tasks enough to keep a few cores evenly busy."""
_STACK_TILE_BYTES = 1024
"""TVM keeps allocations up to this size on the stack, from where LLVM promotes them to registers."""


@dataclass(frozen=True)
class BlockForm:
    """What the rules look at. Extents in loop order; ``read_sizes``: elements of each tensor read, the block's own
    output excluded."""

    spatial: tuple[int, ...]
    reduced: tuple[int, ...]
    read_sizes: tuple[int, ...]
    last_is_contiguous: bool
    """The innermost spatial index is also the innermost index of the first tensor read."""
    lanes: int | None

    @property
    def work(self) -> int:
        return prod(self.spatial) * prod(self.reduced)


def block_form(sch: s_tir.Schedule, block) -> BlockForm | None:
    """The form of a block, None where loops and iteration variables are not one to one (already scheduled, scan,
    opaque)."""
    stmt = sch.get(block)
    loops = [sch.get(loop) for loop in sch.get_loops(block)]
    if len(loops) != len(stmt.iter_vars) or not all(isinstance(loop.extent, tirx.IntImm) for loop in loops):
        return None
    kinds = [int(v.iter_type) for v in stmt.iter_vars]
    spatial = sum(kind == tirx.IterVar.DataPar for kind in kinds)
    ordered = [tirx.IterVar.DataPar] * spatial + [tirx.IterVar.CommReduce] * (len(kinds) - spatial)
    if kinds != ordered or not all(
        int(v.dom.extent) == int(loop.extent) for v, loop in zip(stmt.iter_vars, loops, strict=True)
    ):
        return None
    if not all(isinstance(dim, tirx.IntImm) for region in stmt.reads for dim in region.source.shape):
        return None
    extents = [int(loop.extent) for loop in loops]
    written = [region.source for region in stmt.writes]
    reads = [region for region in stmt.reads if not any(region.source.same_as(buffer) for buffer in written)]
    contiguous = bool(
        spatial and reads and list(reads[0].region) and _uses(reads[0].region[-1].min, stmt.iter_vars[spatial - 1].var)
    )
    annotation = stmt.annotations.get(LANES_ANNOTATION)
    return BlockForm(
        tuple(extents[:spatial]),
        tuple(extents[spatial:]),
        tuple(prod(int(d) for d in r.source.shape) for r in reads),
        contiguous,
        None if annotation is None else int(annotation),
    )


def _uses(expr, var) -> bool:
    return any(used.same_as(var) for used in tirx.analysis.undefined_vars(expr, []))


def schedule_prim_func(func: tirx.PrimFunc, vector_bits: int = 256) -> tirx.PrimFunc:
    """``func`` with every block under the rule of its form; ``func`` itself where TVM refuses a step of a rule.

    vector_bits: the machine's vector width; a register tile has at most 24 (512 bits) or 12 vectors of accumulators.
    """
    try:
        return _schedule(func, vector_bits)
    except ScheduleError:
        return func


def _schedule(func: tirx.PrimFunc, vector_bits: int) -> tirx.PrimFunc:
    sch = s_tir.Schedule(func, debug_mask="none", error_render_level="fast")
    root = sch.get_sblock("root")
    blocks = sch.get_child_blocks(root)
    forms = {str(sch.get(block).name_hint): block_form(sch, block) for block in blocks}
    for name, form in forms.items():
        if form is None or not form.spatial or min(form.spatial) < 1 or 0 in form.reduced:
            continue
        block = sch.get_sblock(name)
        if form.reduced and len(form.read_sizes) >= 2:
            _contraction(sch, block, form, forms, vector_bits)
        elif form.reduced:
            _reduction(sch, block, form)
    for name, form in forms.items():
        if form is not None and form.spatial and not form.reduced and min(form.spatial) >= 1:
            block = sch.get_sblock(name)
            if len(sch.get_loops(block)) == len(form.spatial) and block_form(sch, block) == form:
                _elementwise(sch, block, form)
    return sch.mod["main"]


def _parallel(sch: s_tir.Schedule, loops: list, work: int) -> None:
    """Fuse the outermost loops until there are enough tasks, and run them in parallel where the work is worth it."""
    if not loops or work < _PARALLEL_GRAIN:
        return
    fused, tasks = loops[0], _extent(sch, loops[0])
    for loop in loops[1:]:
        if tasks >= _MIN_TASKS:
            break
        tasks *= _extent(sch, loop)
        fused = sch.fuse(fused, loop)
    if tasks > 1:
        sch.parallel(fused)


def _extent(sch: s_tir.Schedule, loop) -> int:
    return int(sch.get(loop).extent)


def _elementwise(sch: s_tir.Schedule, block, form: BlockForm) -> None:
    _parallel(sch, sch.get_loops(block)[:-1], form.work)


def _reduction(sch: s_tir.Schedule, block, form: BlockForm) -> None:
    loops = sch.get_loops(block)
    spatial, reduced = loops[: len(form.spatial)], loops[len(form.spatial) :]
    if form.last_is_contiguous and form.spatial[-1] > 1:
        sch.reorder(*reduced, spatial[-1])
    _parallel(sch, spatial[:-1], form.work)
    if form.last_is_contiguous and form.spatial[-1] > 1:
        sch.decompose_reduction(block, reduced[0])


def largest_divisor(extent: int, limit: int) -> int:
    """The largest divisor of ``extent`` that is at most ``limit``."""
    return max(d for d in range(1, max(1, min(extent, limit)) + 1) if extent % d == 0)


def _lanes(form: BlockForm) -> int:
    if form.lanes is not None:
        return form.lanes
    extent = form.spatial[-1]
    power = next((p for p in (32, 16, 8) if extent % p == 0), 1)
    return power if power > 1 else largest_divisor(extent, 32)


def _columns(form: BlockForm, lanes: int, vector_bits: int) -> int:
    """Output columns (or matrix rows) of one register tile."""
    if len(form.spatial) < 2:
        return 1
    vectors_per_column = max(1, lanes * 32 // vector_bits)
    limit = min((24 if vector_bits >= 512 else 12) // vectors_per_column, _STACK_TILE_BYTES // (4 * lanes))
    return largest_divisor(form.spatial[-2], max(1, limit))


def _contraction(sch: s_tir.Schedule, block, form: BlockForm, forms: dict, vector_bits: int) -> None:
    loops = sch.get_loops(block)
    spatial, reduced = loops[: len(form.spatial)], loops[len(form.spatial) :]
    lanes = _lanes(form)
    columns = _columns(form, lanes, vector_bits)
    outer_lane, lane = sch.split(spatial[-1], [None, lanes])
    tile, outer = [lane], list(spatial[:-1])
    if len(spatial) > 1:
        outer_column, column = sch.split(outer.pop(), [None, columns])
        outer.append(outer_column)
        tile.insert(0, column)
    weights_first = max(form.read_sizes[1:]) > form.read_sizes[0]
    outer = [outer_lane, *outer] if weights_first else [*outer, outer_lane]
    sch.reorder(*outer, *reduced, *tile)
    consumers = [c for c in sch.get_consumers(block) if forms.get(str(sch.get(c).name_hint)) is not None]
    if len(consumers) == 1 and len(sch.get_consumers(block)) == 1:
        sch.reverse_compute_at(consumers[0], outer[-1])
        inner = sch.get_loops(consumers[0])[len(outer) :]
        if inner and _extent(sch, inner[-1]) > 1:
            sch.vectorize(inner[-1])
    sch.vectorize(tile[-1])
    if len(tile) > 1:
        sch.unroll(tile[0])
    _parallel(sch, outer, form.work)
    sch.decompose_reduction(
        block, reduced[0]
    )  # last: with two writers of the accumulator no loop can be annotated any more
