"""Word embedding: a table of the vocabulary, normed."""

from pydantic import Field
from torch import Tensor, nn

from pipeline.layers import Dropout, NormKind, build_norm
from pipeline.registry import EMBEDDINGS, ComponentConfig


@EMBEDDINGS.register("word")
class WordEmbedding(nn.Module):
    """dropout(norm(W[token])). Source: the 2020 reference's `word`."""

    class Config(ComponentConfig):
        """Settings of the word embedding."""

        size: int | None = Field(None, ge=1)
        """E, numbers in a vector; absent: the encoder's hidden_size."""
        dropout: float = Field(0.1, ge=0, lt=1)
        """Share of the numbers set to 0 in training."""
        norm: NormKind = "layer"
        """layer, rms, or unbiased (the 2020 reference's)."""
        norm_epsilon: float = Field(1e-12, gt=0)
        """Added under the root of the norm."""

    def __init__(self, config: Config, vocab_size: int):
        super().__init__()
        assert config.size is not None, "model.py fills in the size"
        self.output_size = config.size
        self.word = nn.Embedding(vocab_size, config.size)
        self.norm = build_norm(config.norm, config.size, config.norm_epsilon)
        self.dropout = Dropout(config.dropout)

    def forward(self, token_ids: Tensor, segment_ids: Tensor, first_position: int = 0) -> Tensor:
        """(B, T) int64, (B, T) int64 -> (B, T, E). Segments and positions are not looked at."""
        return self.dropout(self.norm(self.word(token_ids)))
