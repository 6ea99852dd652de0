"""How each site of a transformer becomes operators of the chip. A rule takes the lowering, the variable, its site and
the width that is asked for; it may give the other width, which is then rescaled."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.attention import masks, sites
from tvm_ergo.relay_passes.attention.blocks import EXPONENTIALS, LOG2_STEPS, MEAN_STEPS, Operands, in_blocks, with_bias
from tvm_ergo.relay_passes.attention.values import Value
from tvm_ergo.relay_passes.dialect.rows import MAX_ROW
from tvm_ergo.relay_passes.micro.lower_context import CannotLower, Quant, multiplier
from tvm_ergo.relay_passes.support.view import static_shape

ROTATION_BITS = 14
MAX_UNIT = 1024  # of a row of a masked softmax that no product follows: its unit matrix takes so many bytes squared


@dataclass(frozen=True, eq=False)
class Attention:
    """``softmax(scores) @ v``."""

    scores: masks.Scores
    v: relax.Expr


@dataclass(frozen=True, eq=False)
class MaskedSoftmax:
    """``softmax(scores)`` under a mask, of whatever scores; its readers are no product."""

    scores: masks.Scores


@dataclass(frozen=True, eq=False)
class MaskedMean:
    """Mean of x [B, S, C] over S with weights [B, S] (0 or 1) that come from an input; None: of all rows."""

    x: relax.Var
    mask: masks.InputMask | None


def embedding(low, var, site: sites.Embedding, wide: bool) -> Value:
    """int8 rows with a scale each; numbers become int32 where they enter the chip."""
    quant = low.quant(var, True)
    scales = np.maximum(np.abs(site.table).max(axis=1), 1e-30) / 127.0 if site.scales is None else site.scales
    shift = min(40, int(math.floor(math.log2((2**24 - 1) / (scales.max() / quant.scale)))))
    mult = np.rint(scales / quant.scale * 2.0**shift).astype(np.int32)
    if shift < 0:
        raise CannotLower("its rows are too large for their quantization", "check the calibration data")
    codes = site.table
    if site.scales is None:
        codes = np.clip(np.rint(site.table / scales[:, None]), -127, 127).astype(np.int8)
    return low.write.made(
        dialect.GatherRows(shift=shift),
        relax.const(codes),
        relax.const(mult),
        low.numbers(site.ids),
        quant=quant,
        wide=True,
    )


def norm(low, var, site: sites.Norm, wide: bool) -> Value:
    """The channels' factors of a migration (`Lowering.migration`) are in gamma and beta of the int8 form."""
    shape = site.shape or static_shape(site.x)
    length = shape[-1]
    x = low.write.reshaped_to(low.value(site.x, length < MAX_ROW["int16"]), shape)
    factors = np.ones(1) if wide or site.shape is not None else low.migration(var)
    quant = low.quant(var, wide) if wide or (factors == 1).all() else low.migrated_quant(var, factors)
    gamma, beta = (np.atleast_1d(v) / (factors * quant.scale) for v in (site.gamma / 2**14, site.beta))
    shift = max(0, min(62, int(math.floor(math.log2(32767 / max(np.abs(gamma).max(), 2.0**-40))))))
    summand = np.rint(beta * 2.0**shift)
    beta_shift = max(0, int(np.abs(summand).max()).bit_length() - 31)
    if np.abs(gamma).max() >= 2**15 or beta_shift > 24 or length >= MAX_ROW["int8"]:
        raise CannotLower("its factors do not fit 16 bits", "check the calibration data")
    eps = max(0.0, site.eps) * (length / x.scale) ** 2
    eps_shift = max(0, int(eps).bit_length() - 32)
    if eps_shift > 28:
        raise CannotLower("its epsilon is larger than all its values", "check the calibration data")
    op = dialect.Norm(
        wide=wide,
        centre=site.centre,
        in_zp=x.zero_point,
        eps=round(eps / 2**eps_shift) if eps < 2**60 else 0,
        eps_shift=eps_shift,
        beta_shift=beta_shift,
        shift=shift,
    )
    vectors = (
        relax.const(np.rint(gamma * 2.0**shift).astype(np.int16)),
        relax.const(np.rint(summand / 2.0**beta_shift).astype(np.int32)),
    )
    told = quant if (factors == 1).all() else None  # channels of different scales have none that reports could show
    made = Value(low.write.emit(op, x.expr, *vectors, quant=told), quant, wide)
    return low.write.reshaped_to(made, static_shape(var), part="")


def rotary(low, var, site: sites.Rotary, wide: bool) -> Value:
    x, quant = low.value(site.x, True), low.quant(var, wide)
    x = x if x.wide else low.write.rescaled(x, low.quant(site.x, True), True)
    whole = low.whole_sites[low.whole_var(var)]
    if max(np.abs(site.cos).max(), np.abs(site.sin).max()) > 1.999:
        raise CannotLower("its cosines are larger than 2", "rotary embeddings are products with sines and cosines")
    op = dialect.Rotate(wide=wide, interleaved=site.interleaved, **multiplier(x.scale / 2**ROTATION_BITS / quant.scale))
    tables = [low.rows_of(var, *pair, rotation_codes) for pair in ((whole.cos, site.cos), (whole.sin, site.sin))]
    return low.write.made(op, x.expr, *tables, quant=quant, wide=wide)


def rotation_codes(table: np.ndarray) -> np.ndarray:
    """Cosines or sines in Q14."""
    return np.rint(np.clip(table, -1.999, 1.999) * 2**ROTATION_BITS).astype(np.int16)


def attention(low, var, site: Attention, wide: bool) -> Value:
    """Scores in int16, in log2 units; exponentials under the masks; their means of the values. Groups of heads share
    keys without copies."""
    q, k, v, times, fields, quant = products(low, var, site, wide)
    tensors, offset = low.mask_tensors(site.scores.masks, times)
    biases = [low.split_heads(bias, times) for bias, _ in low.biases_of(var, site)]
    bias = sum(biases) if biases else None
    made = in_blocks(
        low.write, Operands(q.expr, k.expr, v.expr, tuple(tensors), bias, offset, reach(low, var)), fields, quant
    )
    return low.write.reshaped_to(Value(made, quant, wide), static_shape(var), part="")


def reach(low, var) -> float:
    """The largest magnitude of the biases of the scores of a site, over all tokens."""
    biases = low.whole_sites[low.whole_var(var)].scores.biases
    return float(np.abs(sum(biases)).max()) if biases else 0.0


def products(low, var, site: Attention, wide: bool) -> tuple[Value, Value, Value, int, dict[str, dict], Quant]:
    """``(q, k, v, heads that share keys, fields of both products, quantization of the result)``."""
    product = low.view.value[site.scores.product]
    (a, a_scale), (b, b_scale) = (low.unscaled(arg) for arg in product.args)
    q, k, v, times = low.operands(a, b, site.v)
    steps = q.scale * k.scale * site.scores.scale * a_scale * b_scale * LOG2_STEPS
    if steps <= 0:
        raise CannotLower("its scores have a negative scale", "multiply by a positive number")
    quant = low.quant(var, wide)
    fields = {
        "product": {"transpose_b": False, "a_zp": q.zero_point, "b_zp": k.zero_point, **multiplier(steps)},
        "mean": {"wide": wide, "b_zp": v.zero_point, **multiplier(v.scale / MEAN_STEPS / quant.scale)},
    }
    return q, k, v, times, fields, quant


def masked_softmax(low, var, site: MaskedSoftmax, wide: bool) -> Value:
    """Exponentials under the mask, divided by their sum: means of the rows of a unit matrix, whose 1 is 127."""
    scores, length = site.scores, static_shape(var)[-1]
    if length > MAX_UNIT:
        raise CannotLower(
            f"its rows have {length} elements", f"masked softmax takes up to {MAX_UNIT} where no product follows"
        )
    x, write = low.value(scores.product, True), low.write
    if scores.scale <= 0:
        raise CannotLower("its scores have a negative scale", "multiply by a positive number")
    made = write.rescaled(x, Quant(1.0 / (scores.scale * LOG2_STEPS), 0), True).expr
    for bias, largest in low.biases_of(var, site):
        made = with_bias(write, made, bias, largest)
    tensors, offset = low.mask_tensors(scores.masks, 1)
    weights = write.emit(
        dialect.ExpRows(causal=offset is not None, offset=offset or 0), made, relax.const(EXPONENTIALS), *tensors
    )
    quant = Quant(1 / 30000, 0) if wide else Quant(1 / 256, -128)
    op = dialect.WeightedMean(wide=wide, b_zp=0, **multiplier(1 / 127 / MEAN_STEPS / quant.scale))
    return write.made(op, weights, relax.const((127 * np.eye(length)).astype(np.int8)), quant=quant, wide=wide)


def masked_mean(low, var, site: MaskedMean, wide: bool) -> Value:
    """A WEIGHTED_MEAN with the mask as weights."""
    x, write, quant = low.value(site.x, False), low.write, low.quant(var, wide)
    batch, rows, channels = static_shape(site.x)
    if site.mask is None:
        weights = relax.const(np.ones((batch, 1, rows), np.uint8))
    else:
        table = np.where(site.mask.valid, 1, 0).astype(np.uint8)
        weights = write.emit(dialect.Table(), low.input_levels(site.mask.source), relax.const(table))
        weights = write.reshaped_to(Value(weights, Quant(1.0, 0), False), (batch, 1, rows)).expr
    op = dialect.WeightedMean(wide=wide, b_zp=x.zero_point, **multiplier(x.scale / MEAN_STEPS / quant.scale))
    return write.reshaped_to(write.made(op, weights, x.expr, quant=quant, wide=wide), static_shape(var), part="")


RULES = {
    sites.Embedding: embedding,
    sites.Norm: norm,
    sites.Rotary: rotary,
    Attention: attention,
    MaskedSoftmax: masked_softmax,
    MaskedMean: masked_mean,
}
