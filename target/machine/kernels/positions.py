"""Rows of a larger tensor: at a position that is known at run time only, and in at the end."""

from __future__ import annotations

import numpy as np

from tvm_ergo.target.isa.positions import first_row


def take_rows(x, position, *, rows=None, out_zp=0, out=None) -> np.ndarray:
    """``x [..., R, C], position i32[1] -> [..., M, C]``: M rows (``rows``, or as many as out has) from the position
    on."""
    rows = out.shape[-2] if rows is None else rows
    begin = first_row(position, x.shape[-2], rows)
    out = np.empty((*x.shape[:-2], rows, x.shape[-1]), x.dtype) if out is None else out
    out[...] = x[..., begin : begin + rows, :]
    return out


def put_rows(x, rows, position, *, out_zp=0, out=None) -> np.ndarray:
    """``x [..., R, C], rows [..., M, C], position i32[1] -> [..., R, C]``: x with those rows from the position on."""
    begin = first_row(position, x.shape[-2], rows.shape[-2])
    if out is None:
        out = x.copy()
    elif out is not x:
        out[...] = x
    out[..., begin : begin + rows.shape[-2], :] = rows
    return out


def shift_rows(x, rows, *, axis, out_zp=0, out=None) -> np.ndarray:
    """``x`` with R rows along ``axis``, ``rows`` with n of them: the last R of both one after the other."""
    new = rows.shape[axis]
    joined = np.concatenate([x, rows], axis=axis)[(slice(None),) * axis + (slice(new, None),)]
    if out is None:
        return np.ascontiguousarray(joined)
    out[...] = joined
    return out
