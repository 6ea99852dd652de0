"""The best few coordinates of a tensor for the layers that read it (NumPy only).

For a tensor y [C] per pixel with second moments S = E[y y^T] (uncentred, so that zero padding stays zero padding), read
by layers with weights W, the pair analysis B [k,C], synthesis A [C,k] sought is the one that loses least of what the
readers compute, E |W (y - A B y)|^2, taps of a kernel taken as uncorrelated. With the Gram matrix G = sum over readers
and taps of W^T W the loss is
|G^1/2 (1 - A B) S^1/2|^2, whose least value for rank k is the tail of the singular values of G^1/2 S^1/2 (Eckart and
Young 1936; the principle of Zhang et al., "Accelerating Very Deep Convolutional Networks", 2015, section 3.1). G = 1
gives plain principal components (KLT).

Any invertible k x k matrix between analysis and synthesis changes nothing in float and much in int8: `balanced` picks
one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FLOOR = (
    1e-6  # of the mean eigenvalue: what directions without energy count for, so that full rank is exact for any input
)
EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Spectrum:
    """All coordinates of a tensor, most valuable first. analysis [C,C] (rows), synthesis [C,C] (columns), energy [C],
    descending: what the readers' outputs lose if the coordinate is left out."""

    analysis: np.ndarray
    synthesis: np.ndarray
    energy: np.ndarray

    @property
    def lost(self) -> np.ndarray:
        """``lost[k]``: share of the energy that k coordinates leave out, k = 0..C (1 to 0)."""
        tail = np.append(np.cumsum(self.energy[::-1])[::-1], 0.0)
        return tail / max(tail[0], 1e-300)

    def rank_for(self, share: float) -> int:
        """The fewest coordinates, at least one, that keep ``share`` of the energy."""
        return max(1, int(np.argmax(self.lost <= 1 - share + 1e-12)))

    def basis(self, rank: int) -> Basis:
        return Basis(self.analysis[:rank], self.synthesis[:, :rank])


@dataclass(frozen=True)
class Basis:
    """z = analysis @ y, y ~ synthesis @ z; float64 [k,C] and [C,k]."""

    analysis: np.ndarray
    synthesis: np.ndarray

    @property
    def rank(self) -> int:
        return len(self.analysis)

    def mixed(self, matrix: np.ndarray) -> Basis:
        """The same projection in coordinates ``matrix @ z``, matrix [k,k] invertible."""
        return Basis(matrix @ self.analysis, np.linalg.solve(matrix.T, self.synthesis.T).T)


def _root(matrix: np.ndarray) -> np.ndarray:
    """The symmetric square root of a positive semidefinite matrix, eigenvalues raised to the floor."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    floor = FLOOR * max(float(np.trace(matrix)) / len(matrix), 1e-30)
    return (vectors * np.sqrt(np.maximum(values, floor))) @ vectors.T


def spectrum(moments: np.ndarray, gram: np.ndarray | None = None) -> Spectrum:
    """Coordinates for second moments [C,C] and the readers' Gram matrix [C,C] (None: the identity, which gives the
    KLT)."""
    root = _root(moments)
    weight = np.eye(len(root)) if gram is None else _root(gram)
    u, s, vt = np.linalg.svd(weight @ root)
    return Spectrum(u.T @ weight, (root @ vt.T) / s, np.square(s))


def gram_of(weight: np.ndarray) -> np.ndarray:
    """W^T W summed over taps, [C,C], of weights [O,...,C]."""
    rows = np.asarray(weight, np.float64).reshape(-1, weight.shape[-1])
    return rows.T @ rows


def balanced(basis: Basis, rows: np.ndarray, weights: list[np.ndarray]) -> Basis:
    """The same projection in the coordinates that int8 disturbs least.

    Parameters: rows [n,C], samples of y; weights, of the readers, [O,taps,C] each. Candidates: coordinates scaled by a
    power of their deviation, and rotated by the orthogonal cosine transform, which gives all of them about the same
    deviation."""
    deviation = np.sqrt(np.mean(np.square(rows @ basis.analysis.T), axis=0))
    deviation = np.maximum(deviation, 1e-9 * max(float(deviation.max(initial=0)), 1e-30))
    candidates = [basis.mixed(np.diag((deviation / deviation.max()) ** -e)) for e in EXPONENTS]
    candidates.append(basis.mixed(cosine_transform(basis.rank)))
    return min(candidates, key=lambda b: int8_noise(b, rows, weights))


def int8_noise(basis: Basis, rows: np.ndarray, weights: list[np.ndarray]) -> float:
    """Expected rounding noise in the readers' outputs, relative to their power: uniform steps, one for z, one per
    channel of the weights."""
    z = rows @ basis.analysis.T
    step = (max(z.max(initial=0), 0) - min(z.min(initial=0), 0)) / 255
    power, total = np.mean(np.square(z), axis=0), 0.0
    for weight in weights:
        w = weight @ basis.synthesis
        energy = np.square(w).sum(axis=(0, 1))
        fine = np.abs(w).max(axis=(1, 2)) / 127
        noise = step**2 / 12 * energy.sum() + np.square(fine).sum() / 12 * w.shape[1] * power.sum()
        total += noise / max(float(energy @ power), 1e-300)
    return total


def cosine_transform(size: int) -> np.ndarray:
    """The orthonormal DCT-II matrix [size,size]."""
    n = np.arange(size)
    matrix = np.cos(np.pi / size * (n[None] + 0.5) * n[:, None]) * np.sqrt(2 / size)
    matrix[0] /= np.sqrt(2)
    return matrix
