"""Do two implementations compute the same? Both run on the same rows, differences are measured."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.model import Model
from pipeline.text.order import uniform

# Short and long rows, one segment and two; with padding, which no implementation may see.
ROW_LENGTHS = (3, 8, 17, 40, 64, 64)
LONGEST = max(ROW_LENGTHS)
SEED = 7


class Batch(NamedTuple):
    """Rows to compare on; (B, T) int64 each, segments 0 padding, 1 first, 2 second."""

    token_ids: Tensor
    segment_ids: Tensor

    @property
    def inside(self) -> Tensor:
        """(B, T) bool: where a token stands."""
        return self.segment_ids > 0


def make_batch(token_ids: Mapping[str, int], longest: int = LONGEST) -> Batch:
    """Return fixed rows of random tokens; token_ids: vocab_size, pad and cls of a vocabulary."""
    lengths = np.minimum(ROW_LENGTHS, longest)[:, None]
    rows, columns = np.arange(len(lengths))[:, None], np.arange(lengths.max())[None, :]
    tokens = (uniform(SEED, rows, columns) * token_ids["vocab_size"]).astype(np.int64)
    tokens[:, 0] = token_ids["cls"]
    inside = columns < lengths
    segments = np.where((columns >= lengths // 2) & (rows % 2 == 1), 2, 1)
    return Batch(
        torch.from_numpy(np.where(inside, tokens, token_ids["pad"])),
        torch.from_numpy(np.where(inside, segments, 0)),
    )


@torch.no_grad()
def run_model(model: Model, batch: Batch) -> dict[str, Tensor]:
    """Return what a model of ours computes: hidden (B, T, D), and logits of mlm and nsp if it has.

    mlm: (B, T, V); nsp: (B, 2).
    """
    model.eval()
    lengths = batch.inside.sum(1)
    hidden = model.encode({**batch._asdict(), "lengths": lengths})
    outputs = {"hidden": hidden}
    targets: Any = model.targets
    if "mlm" in targets:
        outputs["mlm"] = targets["mlm"].logits(hidden)
    if "nsp" in targets:
        outputs["nsp"] = targets["nsp"].logits(hidden, lengths)
    return outputs


def largest_differences(
    ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], batch: Batch
) -> dict[str, float]:
    """Return output -> largest absolute difference at tokens (not at padding), rounded up.

    To one digit, because the others are rounding errors that differ between machines.
    """
    result = {}
    for name in sorted(ours.keys() & theirs.keys()):
        gap = (ours[name] - theirs[name]).abs()
        gap = gap[batch.inside] if gap.dim() == 3 else gap
        result[name] = round_up(float(gap.max()))
    return result


def round_up(value: float) -> float:
    """Return the next number with one significant digit, 0.00123 -> 0.002."""
    if value == 0 or not math.isfinite(value):
        return value
    digits = -math.floor(math.log10(value))
    return math.ceil(round(value * 10.0**digits, 9)) / 10.0**digits
