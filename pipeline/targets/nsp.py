"""Next sentence prediction: is the second segment the true continuation of the first?"""

import torch
from torch import Tensor

from pipeline.layers import Pooling, RowClassifier, TargetOutput
from pipeline.registry import TARGETS, ComponentConfig
from pipeline.text.order import RowRandom
from pipeline.text.rows import Rows
from pipeline.text.vocabulary import TokenIds


@TARGETS.register("nsp")
class NspTarget(RowClassifier):
    """Label 1: the second segment comes from elsewhere; 0: it is the continuation.

    Source: Devlin et al. 2019, section 3.1. Differs: the loss is a sum over rows.
    """

    instance_kinds = frozenset({"sentences"})
    replaces_tokens = False
    sees = "all"

    class Config(ComponentConfig):
        """Settings of next sentence prediction."""

        pooler: bool = True
        """A hidden layer with tanh before the output; the reference's `nsp` alone has none."""
        pooling: Pooling = "first"
        """Which hidden states are looked at; a left-to-right encoder needs last, mean or max."""
        read_padding: bool = False
        """mean, max and last over the padding too."""

    def __init__(self, config: Config, hidden_size: int, token_ids: TokenIds):
        super().__init__(hidden_size, 2, config.pooler, config.pooling, config.read_padding)

    def collate(self, rows: Rows, batch: dict[str, Tensor], rng: RowRandom) -> int:
        """Add nsp_labels (B,) int64; return B."""
        batch["nsp_labels"] = torch.from_numpy(rows.column("is_random").astype("int64"))
        return len(rows)

    def forward(self, hidden: Tensor, batch: dict[str, Tensor]) -> TargetOutput:
        """Return the sum of cross-entropies over rows and the accuracy. hidden: (B, T, D)."""
        return self.score(hidden, batch["lengths"], batch["nsp_labels"], "nsp")
