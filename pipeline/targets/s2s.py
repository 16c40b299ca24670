"""Sequence to sequence: an LSTM writes the target text from the encoder's last hidden state."""

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.layers import Recurrent, TargetOutput, VocabularyOutput, pool
from pipeline.registry import TARGETS, ComponentConfig
from pipeline.text.order import RowRandom
from pipeline.text.rows import Rows
from pipeline.text.vocabulary import TokenIds


@TARGETS.register("s2s")
class S2sTarget(nn.Module):
    """Predict the target text token by token; without one (lines), the row itself: an autoencoder.

    The decoder starts from the hidden state of a row's last token, as state and as memory.
    Source: Sutskever et al. 2014 (arXiv:1409.3215); the 2020 reference's `s2s`. Differs: the
    decoder is given the token before the one it predicts, [CLS] at first, and has to predict
    [SEP] at the end (teacher: same gives it the very token, as the reference does).
    """

    instance_kinds = frozenset({"parallel", "lines"})
    replaces_tokens = False
    sees = "all"

    class Config(ComponentConfig):
        """Settings of the decoder."""

        embedding_size: int | None = Field(None, ge=1)
        """Numbers in the decoder's token vectors; absent: hidden_size."""
        teacher: Literal["previous", "same"] = "previous"
        """Which token the decoder is given; same is the 2020 reference's, and learns to copy."""
        read_padding: bool = False
        """Start from the last position of the batch, padding or not."""

    def __init__(self, config: Config, hidden_size: int, token_ids: TokenIds):
        super().__init__()
        self.config, self.token_ids = config, token_ids
        size = config.embedding_size or hidden_size
        self.embedding = nn.Embedding(token_ids.vocab_size, size)
        self.decoder = Recurrent("lstm", size, hidden_size, 1, 0.0)
        self.output = VocabularyOutput(hidden_size, token_ids.vocab_size)

    def collate(self, rows: Rows, batch: dict[str, Tensor], rng: RowRandom) -> int:
        """Add s2s_inputs (B, U), s2s_positions and s2s_labels (N,), int64; return N.

        Positions count in the flattened (B, U), U the longest target text.
        """
        texts = rows.ragged("target_ids" if "target_ids" in rows.columns else "token_ids")
        ends = self.config.teacher == "previous"
        width = max(1, int(texts.lengths.max(initial=0)) + ends)
        inputs = labels = texts.padded(width)
        if ends:
            labels[np.arange(len(texts)), texts.lengths] = self.token_ids.sep
            inputs = np.roll(labels, 1, axis=1)
            inputs[:, 0] = self.token_ids.cls
        scored = np.arange(width) < texts.lengths[:, None] + ends
        positions = np.flatnonzero(scored)
        batch["s2s_inputs"] = torch.from_numpy(inputs)
        batch["s2s_positions"] = torch.from_numpy(positions)
        batch["s2s_labels"] = torch.from_numpy(labels.reshape(-1)[positions])
        return len(positions)

    def forward(self, hidden: Tensor, batch: dict[str, Tensor]) -> TargetOutput:
        """Return the sum of cross-entropies and the accuracy. hidden: (B, T, D)."""
        start = pool(hidden, batch["lengths"], "last", self.config.read_padding)[None]
        states, _ = self.decoder(self.embedding(batch["s2s_inputs"]), state=[start, start])
        scored = states.flatten(0, 1).index_select(0, batch["s2s_positions"])
        return self.output.score(scored, batch["s2s_labels"], "s2s")
