"""Language model: every position predicts the next token."""

import torch
from torch import Tensor, nn

from pipeline.layers import TargetOutput, VocabularyOutput
from pipeline.registry import TARGETS, ComponentConfig
from pipeline.text.order import RowRandom
from pipeline.text.rows import Rows
from pipeline.text.vocabulary import TokenIds


def _with_next(lengths: Tensor, width: int) -> Tensor:
    """Return (N,) int64, the positions in the flattened (B, T) that have a next token."""
    return torch.nonzero((torch.arange(width) < lengths[:, None] - 1).flatten()).squeeze(1)


@TARGETS.register("lm")
class LmTarget(nn.Module):
    """Predict each next token from the hidden state before it; needs a causal encoder.

    Source: the 2020 reference's `lm`. Differs: the loss is a sum, and the softmax is computed at
    positions that have a next token only.
    """

    instance_kinds = frozenset({"lines", "sentences", "labelled"})
    replaces_tokens = False
    sees = "past"

    class Config(ComponentConfig):
        """Settings of the language model."""

        tied: bool = False
        """Use the word embedding as the softmax matrix; needs embedding.size = hidden_size."""

    def __init__(self, config: Config, hidden_size: int, token_ids: TokenIds):
        super().__init__()
        self.output = VocabularyOutput(hidden_size, token_ids.vocab_size, config.tied)

    def collate(self, rows: Rows, batch: dict[str, Tensor], rng: RowRandom) -> int:
        """Add lm_positions and lm_labels, (N,) int64; return N, the tokens to predict."""
        token_ids = batch["token_ids"]
        positions = _with_next(batch["lengths"], token_ids.shape[1])
        batch["lm_positions"] = positions
        batch["lm_labels"] = token_ids.flatten()[positions + 1]
        return len(positions)

    def forward(self, hidden: Tensor, batch: dict[str, Tensor]) -> TargetOutput:
        """Return the sum of cross-entropies and the accuracy of the next token.

        hidden: (B, T, D).
        """
        scored = hidden.flatten(0, 1).index_select(0, batch["lm_positions"])
        return self.output.score(scored, batch["lm_labels"], "lm")
