"""Choosing levels for weights one column after the other, each column's error made up for by the columns not chosen yet
(NumPy only).

The optimal brain quantizer in a fixed order (Frantar and Alistarh, "Optimal Brain Compression", NeurIPS 2022; Frantar
et al., "GPTQ", ICLR 2023): with the upper Cholesky factor U of the inverse of H, choosing v for a weight w of column k
costs ``((w - v) / U[k,k])**2`` of the layer's squared output error, once the later columns have made up for it by ``-(w
- v) / U[k,k] * U[k,k+1:]``. To that cost the bits of a level can be added (rate-distortion quantization; for networks:
Wiedemann et al., "DeepCABAC", 2020), and weights can be set to zero, those that cost least first (Frantar and Alistarh,
"SparseGPT", 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BLOCK = 64


@dataclass(frozen=True)
class Levels:
    """What a weight may become: ``scale[row] * values[i]``. values: float64 [n], ascending. bits: what each costs,
    float64 [n].

    rate: what one bit weighs, in units of the layer's squared output error.
    """

    values: np.ndarray
    bits: np.ndarray
    rate: float = 0.0

    def choose(self, wanted: np.ndarray, price: np.ndarray) -> np.ndarray:
        """Index of the level for each of ``wanted``; ``price``: the cost of a squared error of 1 (broadcasts)."""
        index = np.searchsorted((self.values[1:] + self.values[:-1]) / 2, wanted)
        if self.rate == 0:
            return index
        zero = int(np.searchsorted(self.values, 0.0))
        zero = min(zero, len(self.values) - 1)
        toward = np.sign(zero - index)
        best, least = index, None
        for candidate in (
            index,
            index + toward,
            index + np.where(np.abs(zero - index) > 1, 2 * toward, toward),
            np.full_like(index, zero),
        ):
            cost = price * np.square(wanted - self.values[candidate]) + self.rate * self.bits[candidate]
            best = candidate if least is None else np.where(cost < least, candidate, best)
            least = cost if least is None else np.minimum(cost, least)
        return best


def inverse_factor(moment: np.ndarray, damping: float) -> np.ndarray:
    """U [G,K,K], upper triangular, U^T U = (moment + damping * mean diagonal)^-1."""
    size = moment.shape[-1]
    level = np.maximum(damping * np.trace(moment, axis1=1, axis2=2) / size, 1e-12)
    inverse = np.linalg.inv(moment + level[:, None, None] * np.eye(size))
    return np.linalg.cholesky((inverse + inverse.transpose(0, 2, 1)) / 2).transpose(0, 2, 1)


@dataclass(frozen=True)
class Feedback:
    """The solver for one layer. factor: U [G,K,K] in the order in which columns are chosen; order: that order, int
    [G,K]."""

    factor: np.ndarray
    order: np.ndarray

    @classmethod
    def of(cls, moment: np.ndarray, damping: float, natural: bool = False) -> Feedback:
        """For second moments [G,K,K]. Columns with the largest moments first, since later ones make up for them
        (natural: as they stand)."""
        diagonal = np.diagonal(moment, axis1=1, axis2=2)
        order = (
            np.broadcast_to(np.arange(moment.shape[-1]), diagonal.shape)
            if natural
            else np.argsort(-diagonal, axis=1, kind="stable")
        )
        ordered = np.take_along_axis(np.take_along_axis(moment, order[:, :, None], 1), order[:, None, :], 2)
        return cls(inverse_factor(ordered, damping), order)

    @property
    def price(self) -> np.ndarray:
        """What a squared error of each weight costs once the later ones made up for it, [G,K] in the natural order."""
        price = np.empty(self.order.shape)
        np.put_along_axis(price, self.order, 1 / np.square(np.diagonal(self.factor, axis1=1, axis2=2)), 1)
        return price

    def run(
        self,
        weight: np.ndarray,
        scale: np.ndarray,
        levels: Levels | None,
        mask: np.ndarray | None = None,
        density: float | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(new weights float64 [G,R,K], squared output error they add [G,R]).

        Parameters: weight [G,R,K]; scale [G,R]; levels (None: weights keep their values, only zeros are chosen); mask:
        bool [G,R,K], where False the weight becomes zero; density: the share of each block of columns that stays, those
        that cost most (instead of a mask)."""
        turn = self.order[:, None, :]
        left = np.take_along_axis(weight.astype(np.float64), np.broadcast_to(turn, weight.shape), 2)
        stays = None if mask is None else np.take_along_axis(mask, np.broadcast_to(turn, weight.shape), 2)
        made, cost = np.empty_like(left), np.zeros(weight.shape[:2])
        for begin in range(0, left.shape[2], BLOCK):
            block = slice(begin, min(begin + BLOCK, left.shape[2]))
            some = (
                stays[:, :, block]
                if stays is not None
                else None
                if density is None
                else self._dearest(left, block, density)
            )
            errors = self._block(left, made, block, scale, levels, some)
            cost += np.square(errors).sum(axis=2)
            left[:, :, block.stop :] -= errors @ self.factor[:, block, block.stop :]
        result = np.empty_like(made)
        np.put_along_axis(result, np.broadcast_to(turn, weight.shape), made, 2)
        return result, cost

    def _dearest(self, left: np.ndarray, block: slice, density: float) -> np.ndarray:
        """bool: the share ``density`` of a block's weights whose loss costs most, in all rows and groups together."""
        diagonal = np.diagonal(self.factor, axis1=1, axis2=2)[:, None, block]
        saliency = np.square(left[:, :, block] / diagonal).reshape(-1)
        stays = np.zeros(saliency.size, bool)
        stays[np.argsort(-saliency, kind="stable")[: round(density * saliency.size)]] = True
        return stays.reshape(left[:, :, block].shape)

    def _block(self, left, made, block: slice, scale, levels: Levels | None, stays) -> np.ndarray:
        """Chooses the columns of a block; returns the errors in units of U's diagonal, [G,R,block]."""
        errors = np.empty(left[:, :, block].shape)
        for k in range(block.start, block.stop):
            at = self.factor[:, k, k][:, None]
            w = left[:, :, k]
            if levels is None:
                v = w.copy()
            else:
                v = scale * levels.values[levels.choose(w / scale, np.square(scale / at))]
            if stays is not None:
                v = np.where(stays[:, :, k - block.start], v, 0.0)
            made[:, :, k] = v
            error = (w - v) / at
            errors[:, :, k - block.start] = error
            if k + 1 < block.stop:
                left[:, :, k + 1 : block.stop] -= error[:, :, None] * self.factor[:, k, None, k + 1 : block.stop]
        return errors


def refit(weight: np.ndarray, moment: np.ndarray, mask: np.ndarray, damping: float, rounds: int = 60) -> np.ndarray:
    """Of all weights [G,R,K] that are zero where ``mask`` is False those whose output is closest to ``weight``'s,
    inputs of ``moment`` [G,K,K].

    Conjugate gradients for all rows at once, in the metric of the moment damped by a share of its mean diagonal; ends
    early when nothing moves."""
    size = moment.shape[-1]
    level = np.maximum(damping * np.trace(moment, axis1=1, axis2=2) / size, 1e-12)[:, None, None]
    moment = moment + level * np.eye(size)
    made = np.where(mask, weight, 0.0)
    residual = np.where(mask, (weight - made) @ moment, 0.0)
    way, power = residual.copy(), np.square(residual).sum(axis=2, keepdims=True)
    enough = 1e-20 * np.maximum(power, 1e-300)
    for _ in range(rounds):
        moved = np.where(mask, way @ moment, 0.0)
        slope = (way * moved).sum(axis=2, keepdims=True)
        length = np.where(slope > 0, power / np.where(slope > 0, slope, 1), 0.0)
        made += length * way
        residual -= length * moved
        now = np.square(residual).sum(axis=2, keepdims=True)
        if (now <= enough).all():
            break
        way = residual + now / np.maximum(power, 1e-300) * way
        power = now
    return made
