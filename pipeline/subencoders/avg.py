"""Words as the mean of their characters."""

from pydantic import Field
from torch import Tensor, nn

from pipeline.layers import Dropout, pool
from pipeline.registry import SUBENCODERS, ComponentConfig


@SUBENCODERS.register("avg")
class AvgSubencoder(nn.Module):
    """Mean of the rows of a table of characters.

    Source: the 2020 reference's `avg`. Differs: the mean is over a word's own characters
    (read_padding: true, over as many as the batch's longest word has).
    """

    class Config(ComponentConfig):
        """Settings of the mean."""

        dropout: float = Field(0.0, ge=0, lt=1)
        """Share of the mean's numbers set to 0 in training."""
        read_padding: bool = False
        """Take the mean over the padding behind a word's characters too."""

    def __init__(self, config: Config, character_vocab_size: int, output_size: int):
        super().__init__()
        self.read_padding = config.read_padding
        self.embedding = nn.Embedding(character_vocab_size, output_size)
        self.dropout = Dropout(config.dropout)

    def forward(self, char_ids: Tensor) -> Tensor:
        """(B, T, S) int64, 0 behind the last character -> (B, T, E)."""
        words = char_ids.flatten(0, 1)
        means = pool(self.embedding(words), (words > 0).sum(1), "mean", self.read_padding)
        return self.dropout(means).unflatten(0, char_ids.shape[:2])
