"""Two independent stacks of LSTMs, one for each direction, as in ELMo."""

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from pipeline.kernels import reverse
from pipeline.layers import Dropout, Recurrent
from pipeline.registry import ENCODERS, ComponentConfig


@ENCODERS.register("bilstm")
class BilstmEncoder(nn.Module):
    """The first half of a hidden state has seen the past only, the second half the future only.

    The layers never mix the directions, so the target bilm is not shown what it predicts.
    Source: Peters et al. 2018 (arXiv:1802.05365); the 2020 reference's `bilstm`. Differs: the
    backward stack begins at each row's last token (read_padding: true, at the padded end).
    """

    causal = False
    separate_halves = True

    class Config(ComponentConfig):
        """Settings of the two stacks."""

        hidden_size: int = Field(1024, ge=2)
        """D, numbers in a hidden state, even; each direction has half."""
        num_layers: int = Field(2, ge=1)
        """Layers of each stack."""
        dropout: float = Field(0.1, ge=0, lt=1)
        """Share set to 0 in training, between layers and at the end."""
        read_padding: bool = False
        """Where the backward stack begins: at each row's last token, or at the padded end."""

        @field_validator("hidden_size")
        @classmethod
        def _even(cls, value: int) -> int:
            if value % 2:
                raise ValueError(f"{value} is odd, and each direction has half; use {value + 1}")
            return value

    def __init__(self, config: Config, input_size: int):
        super().__init__()
        self.output_size = config.hidden_size
        self.read_padding = config.read_padding
        sizes = (input_size, config.hidden_size // 2, config.num_layers, config.dropout)
        self.rnn_forward = Recurrent("lstm", *sizes)
        self.rnn_backward = Recurrent("lstm", *sizes)
        self.dropout = Dropout(config.dropout)

    def forward(self, emb: Tensor, segment_ids: Tensor) -> Tensor:
        """(B, T, E), (B, T) -> (B, T, D)."""
        lengths = None if self.read_padding else (segment_ids > 0).sum(1)
        past, _ = self.rnn_forward(emb)
        future, _ = self.rnn_backward(reverse(emb, lengths))
        return self.dropout(torch.cat([past, reverse(future, lengths)], -1))
