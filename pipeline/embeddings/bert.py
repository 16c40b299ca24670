"""Embedding of BERT: word, position and segment tables, summed and normed."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.layers import Dropout, NormKind, build_norm
from pipeline.registry import EMBEDDINGS, ComponentConfig


@EMBEDDINGS.register("bert")
class BertEmbedding(nn.Module):
    """dropout(norm(W[token] + P[position] + S[segment])); S has rows padding, first, second.

    Source: Devlin et al. 2019, figure 2 (arXiv:1810.04805). Differs: a row of S for padding, as in
    the 2020 reference.
    """

    class Config(ComponentConfig):
        """Settings of the embedding of BERT."""

        size: int | None = Field(None, ge=1)
        """E, numbers in a vector; absent: the encoder's hidden_size."""
        dropout: float = Field(0.1, ge=0, lt=1)
        """Share of the numbers set to 0 in training."""
        positions: Literal["learned", "none"] = "learned"
        """learned: a table; none: for encoders that know the order, such as rotary transformers."""
        max_positions: int = Field(512, ge=1)
        """Rows of the table of positions: the longest sequence in tokens."""
        norm: NormKind = "layer"
        """layer, rms, or unbiased (the 2020 reference's)."""
        norm_epsilon: float = Field(1e-12, gt=0)
        """Added under the root of the norm."""

    def __init__(self, config: Config, vocab_size: int):
        super().__init__()
        assert config.size is not None, "model.py fills in the size"
        self.output_size = config.size
        self.word = nn.Embedding(vocab_size, config.size)
        learned = config.positions == "learned"
        self.position = nn.Embedding(config.max_positions, config.size) if learned else None
        self.segment = nn.Embedding(3, config.size)
        self.norm = build_norm(config.norm, config.size, config.norm_epsilon)
        self.dropout = Dropout(config.dropout)

    def forward(self, token_ids: Tensor, segment_ids: Tensor, first_position: int = 0) -> Tensor:
        """(B, T) int64, (B, T) int64 -> (B, T, E).

        first_position: where the first column stands. Raises ConfigError past the last position.
        """
        # The table of segments is small: a product costs less than a gather and its backward pass.
        kinds = torch.nn.functional.one_hot(segment_ids, 3).to(self.segment.weight.dtype)
        emb = self.word(token_ids) + kinds @ self.segment.weight
        if self.position is not None:
            end = first_position + token_ids.shape[1]
            if end > self.position.num_embeddings:
                raise ConfigError(
                    f"embedding.max_positions: {self.position.num_embeddings} is less than the "
                    f"{end} tokens of a row; use a shorter seq_length or more positions"
                )
            emb = emb + self.position.weight[first_position:end]
        return self.dropout(self.norm(emb))
