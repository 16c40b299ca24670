"""Recurrence, then convolutions. Composed of the parts that lstm and cnn are made of."""

from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from pipeline.layers import Activation, CausalConvolutions, Dropout, Recurrent
from pipeline.registry import ENCODERS, ComponentConfig


class MixedConfig(ComponentConfig):
    """Settings of the encoders that mix recurrence and convolutions."""

    hidden_size: int = Field(512, ge=1)
    """D, numbers in a hidden state."""
    num_layers: int = Field(2, ge=1)
    """LSTM layers, and as many convolutions."""
    kernel_size: int = Field(3, ge=1)
    """Tokens a convolution sees: one and those before it."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share set to 0 in training, between LSTM layers and after the last."""
    activation: Activation | Literal["none"] = "relu"
    """Between convolutions; none is the 2020 reference's."""


@ENCODERS.register("rcnn")
class RcnnEncoder(nn.Module):
    """LSTM, then causal convolutions. Source: the 2020 reference's `rcnn`."""

    causal = True
    Config = MixedConfig

    def __init__(self, config: MixedConfig, input_size: int):
        super().__init__()
        size, layers = config.hidden_size, config.num_layers
        self.output_size = size
        self.rnn = Recurrent("lstm", input_size, size, layers, config.dropout)
        self.dropout = Dropout(config.dropout)
        self.convolutions = CausalConvolutions(
            size, size, layers, config.kernel_size, config.activation
        )

    def forward(self, emb: Tensor, segment_ids: Tensor) -> Tensor:
        """(B, T, E), (B, T) -> (B, T, D)."""
        return self.step(emb, None)[0]

    def step(self, emb: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Return hidden states (B, T, D) of the next T positions, and the cache for later ones."""
        state, frames = cache or (None, None)
        hidden, state = self.rnn(emb, state=state)
        hidden, frames = self.convolutions(self.dropout(hidden), frames)
        return hidden, (state, frames)
