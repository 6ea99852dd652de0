"""What a function for fewer tokens takes from the one it was made from. A part of the lowering (`lower.Lowering`)."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from tvm import relax


class OfAllTokens:
    """Constants as long as they are for all tokens: their scales hold for each part of them."""

    @cached_property
    def _whole_by_name(self) -> dict[str, relax.Var]:
        return {str(v.name): v for v in self.whole.order}

    def whole_var(self, var: relax.Var) -> relax.Var:
        """The same variable of the function with all tokens."""
        return self._whole_by_name[str(var.name)]

    def whole_constant(self, var: relax.Var, place: int):
        """The constant that is an argument of the call bound to ``var``, as long as it is there for all tokens."""
        whole = self.whole_var(var)
        return self.whole.const(self.whole.value[whole].args[place])

    def biases_of(self, var, site) -> list[tuple[np.ndarray, float]]:
        """The biases of a site's scores, cut from those of all tokens, with the largest magnitude there: their rows
        are told from the largest of all keys (`masks.split_constant`)."""
        whole = self.whole_sites[self.whole_var(var)].scores.biases
        return [
            (every[tuple(slice(n) for n in own.shape)], float(np.abs(every).max()))
            for own, every in zip(site.scores.biases, whole, strict=True)
        ]

    def rows_of(self, var, whole: np.ndarray, own: np.ndarray, codes) -> relax.Expr:
        """The codes of a constant with the positions of ``own`` (``whole``: of all tokens): here its first ones.

        codes : from real values to integers."""
        return relax.const(np.ascontiguousarray(codes(own)))
