"""Words as the mean of what an LSTM or a GRU says of their characters."""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from pipeline.layers import Recurrent, pool
from pipeline.registry import SUBENCODERS, ComponentConfig


class RecurrentSubencoderConfig(ComponentConfig):
    """Settings of the recurrent subencoders."""

    num_layers: int = Field(2, ge=1)
    """Layers."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share set to 0 in training, between layers."""
    read_padding: bool = False
    """Take the mean over the padding behind a word's characters too."""


class RecurrentSubencoder(nn.Module):
    """A table of characters, recurrent layers, the mean of their outputs.

    Source: the 2020 reference's `lstm`; its `gru` was announced only. Differs: the mean is over a
    word's own characters (read_padding: true, over as many as the batch's longest word has).
    """

    Config = RecurrentSubencoderConfig
    cell: ClassVar[Literal["lstm", "gru"]]

    def __init__(
        self, config: RecurrentSubencoderConfig, character_vocab_size: int, output_size: int
    ):
        super().__init__()
        self.read_padding = config.read_padding
        self.embedding = nn.Embedding(character_vocab_size, output_size)
        self.rnn = Recurrent(self.cell, output_size, output_size, config.num_layers, config.dropout)

    def forward(self, char_ids: Tensor) -> Tensor:
        """(B, T, S) int64, 0 behind the last character -> (B, T, E)."""
        words = char_ids.flatten(0, 1)
        states, _ = self.rnn(self.embedding(words))
        means = pool(states, (words > 0).sum(1), "mean", self.read_padding)
        return means.unflatten(0, char_ids.shape[:2])


@SUBENCODERS.register("lstm")
class LstmSubencoder(RecurrentSubencoder):
    """Recurrent layers of LSTM cells."""

    cell = "lstm"


@SUBENCODERS.register("gru")
class GruSubencoder(RecurrentSubencoder):
    """Recurrent layers of GRU cells."""

    cell = "gru"
