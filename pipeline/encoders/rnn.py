"""Recurrent encoders: LSTM and GRU, in one direction or in two."""

from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.layers import Dropout, Recurrent
from pipeline.registry import ENCODERS, ComponentConfig


class RecurrentConfig(ComponentConfig):
    """Settings of the recurrent encoders."""

    hidden_size: int = Field(512, ge=1)
    """D, numbers in a hidden state; each of two directions has half."""
    num_layers: int = Field(2, ge=1)
    """Layers."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share set to 0 in training, between layers and at the end."""
    bidirectional: bool = False
    """Two directions, joined at every layer; not for the target lm, which it shows the future."""
    read_padding: bool = False
    """Where the backward direction begins: false, at each row's last token; true, at the padded
    end, as in the 2020 reference."""

    @field_validator("bidirectional")
    @classmethod
    def _even(cls, value: bool, info: ValidationInfo) -> bool:
        size = info.data.get("hidden_size", 2)
        if value and size % 2:
            raise ValueError(f"two directions need an even hidden_size, not {size}; use {size + 1}")
        return value


class RecurrentEncoder(nn.Module):
    """A stack of recurrent layers with dropout at the end."""

    Config = RecurrentConfig
    cell: ClassVar[Literal["lstm", "gru"]]

    def __init__(self, config: RecurrentConfig, input_size: int):
        super().__init__()
        self.output_size = config.hidden_size
        self.causal = not config.bidirectional
        self.read_padding = config.read_padding
        size = config.hidden_size // 2 if config.bidirectional else config.hidden_size
        self.rnn = Recurrent(
            self.cell, input_size, size, config.num_layers, config.dropout, config.bidirectional
        )
        self.dropout = Dropout(config.dropout)

    def forward(self, emb: Tensor, segment_ids: Tensor) -> Tensor:
        """(B, T, E), (B, T) -> (B, T, D)."""
        lengths = None if self.causal or self.read_padding else (segment_ids > 0).sum(1)
        return self.dropout(self.rnn(emb, lengths)[0])

    def step(self, emb: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Return hidden states (B, T, D) of the next T positions, and the cache for later ones.

        emb: (B, T, E). cache: None at the start. Raises ConfigError with two directions.
        """
        if not self.causal:
            raise ConfigError("encoder.bidirectional: true sees the future, so it cannot generate")
        output, state = self.rnn(emb, state=cache)
        return self.dropout(output), state


@ENCODERS.register("lstm")
class LstmEncoder(RecurrentEncoder):
    """LSTM. Source: Hochreiter and Schmidhuber 1997; gates in torch's order."""

    cell = "lstm"


@ENCODERS.register("gru")
class GruEncoder(RecurrentEncoder):
    """GRU. Source: Cho et al. 2014 (arXiv:1406.1078); gates in torch's order."""

    cell = "gru"
