"""Convolutions, then recurrence. Composed of the parts that cnn and lstm are made of."""

from typing import Any

from torch import Tensor, nn

from pipeline.encoders.rcnn import MixedConfig
from pipeline.layers import CausalConvolutions, Dropout, Recurrent
from pipeline.registry import ENCODERS


@ENCODERS.register("crnn")
class CrnnEncoder(nn.Module):
    """Causal convolutions, then LSTM. Source: the 2020 reference's `crnn`."""

    causal = True
    Config = MixedConfig

    def __init__(self, config: MixedConfig, input_size: int):
        super().__init__()
        size, layers = config.hidden_size, config.num_layers
        self.output_size = size
        self.convolutions = CausalConvolutions(
            input_size, size, layers, config.kernel_size, config.activation
        )
        self.rnn = Recurrent("lstm", size, size, layers, config.dropout)
        self.dropout = Dropout(config.dropout)

    def forward(self, emb: Tensor, segment_ids: Tensor) -> Tensor:
        """(B, T, E), (B, T) -> (B, T, D)."""
        return self.step(emb, None)[0]

    def step(self, emb: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Return hidden states (B, T, D) of the next T positions, and the cache for later ones."""
        frames, state = cache or (None, None)
        hidden, frames = self.convolutions(emb, frames)
        hidden, state = self.rnn(hidden, state=state)
        return self.dropout(hidden), (frames, state)
