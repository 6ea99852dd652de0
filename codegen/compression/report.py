"""What reports show of compressed tensors: one row each, in ``Program.meta["compression"]``."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from tvm_ergo.codegen.compression.statistics import TensorStatistics
from tvm_ergo.codegen.compression.waiting import Waiting


def rows_of(decisions: Mapping[str, Waiting], statistics: Mapping[str, TensorStatistics]) -> list[dict]:
    """Per tensor: name, shape, codec, tile_rows, tiles, slot_bytes (of one tile), stored_bytes (of all slots),
    raw_bytes, max_error (certified, in steps, for any data), bits_mean, bits_worst (coded bits per value over the
    calibration data, mean and worst sample), samples, tiles_reduced (of the calibration data's tiles, those whose data
    did not fit)."""
    rows = []
    for name, waiting in decisions.items():
        known, decision = statistics[name], waiting.decision
        coded, layout = known.coded[waiting.spec], decision.layout
        mean, worst = known.bits_per_value(waiting.spec)
        rows.append(
            {
                "name": name,
                "shape": list(known.shape),
                "codec": decision.codec,
                "tile_rows": decision.tile_rows,
                "tiles": int(coded.shape[1]),
                "slot_bytes": decision.slot_bytes,
                "stored_bytes": layout.stored_bytes(known.shape[1:]),
                "raw_bytes": math.prod(known.shape),
                "max_error": layout.max_error(known.shape[1:]),
                "bits_mean": mean,
                "bits_worst": worst,
                "samples": int(coded.shape[0]),
                "tiles_reduced": int(np.count_nonzero(coded > decision.slot_bytes)),
            }
        )
    return rows
