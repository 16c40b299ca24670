"""Bare attention layers, one after the other."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from pipeline.attention import KeyValues, MultiHeadAttention, check_heads, visible_keys
from pipeline.errors import ConfigError
from pipeline.layers import require_equal_sizes
from pipeline.registry import ENCODERS, ComponentConfig


@ENCODERS.register("attention")
class AttentionEncoder(nn.Module):
    """Multi-head attention without feed-forward part and norm.

    Source: the 2020 reference's `attn`. Differs: each layer's input is added to its output
    (residual: none is the reference's), since averages of averages forget which token is which.
    """

    class Config(ComponentConfig):
        """Settings of the attention layers."""

        hidden_size: int = Field(512, ge=1)
        """D, numbers in a hidden state; the embedding's size must be equal."""
        num_layers: int = Field(6, ge=1)
        """Layers."""
        num_heads: int = Field(8, ge=1)
        """A, attention heads; divides hidden_size."""
        dropout: float = Field(0.1, ge=0, lt=1)
        """Share of attention probabilities set to 0 in training."""
        mask: Literal["full", "causal"] = "full"
        """full: every token sees all tokens of its row; causal: itself and earlier ones."""
        residual: Literal["add", "none"] = "add"
        """add: each layer's input is added to its output; none: the 2020 reference's."""

        @field_validator("num_heads")
        @classmethod
        def _divides(cls, value: int, info: ValidationInfo) -> int:
            return check_heads(value, info.data.get("hidden_size", value))

    def __init__(self, config: Config, input_size: int):
        super().__init__()
        require_equal_sizes("attention", input_size, config.hidden_size)
        self.output_size = config.hidden_size
        self.causal = config.mask == "causal"
        self.adds = config.residual == "add"
        self.layers = nn.ModuleList(
            MultiHeadAttention(config.hidden_size, config.num_heads, config.dropout)
            for _ in range(config.num_layers)
        )

    def forward(self, emb: Tensor, segment_ids: Tensor) -> Tensor:
        """(B, T, D), (B, T) -> (B, T, D); tokens do not see padding."""
        mask = None if self.causal else visible_keys(segment_ids)
        return self._run(emb, mask, None)[0]

    def step(self, emb: Tensor, cache: list[KeyValues] | None) -> tuple[Tensor, list[KeyValues]]:
        """Return hidden states of the next positions, and the cache for those after them.

        emb: (B, T, D), T new positions. cache: None at the start. Raises ConfigError if not causal.
        """
        if not self.causal:
            raise ConfigError("encoder.mask: full sees the future and cannot generate; use causal")
        return self._run(emb, None, cache)

    def _run(
        self, x: Tensor, mask: Tensor | None, cache: list[KeyValues] | None
    ) -> tuple[Tensor, list[KeyValues]]:
        seen = []
        for number, layer in enumerate(self.layers):
            past = None if cache is None else cache[number]
            mixed, keys = layer(x, mask, self.causal, past)
            x = x + mixed if self.adds else mixed
            seen.append(keys)
        return x, seen
