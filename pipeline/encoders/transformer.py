"""Transformer encoder, seeing everything (BERT) or only the past (GPT)."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from pipeline.attention import FeedForward, KeyValues, MultiHeadAttention, check_heads, visible_keys
from pipeline.errors import ConfigError
from pipeline.kernels import Packing
from pipeline.layers import Activation, Dropout, NormKind, build_norm, require_equal_sizes
from pipeline.registry import ENCODERS, ComponentConfig


class TransformerLayer(nn.Module):
    """Attention and feed-forward, each with dropout, residual and norm."""

    def __init__(self, config: "TransformerEncoder.Config"):
        super().__init__()
        size, epsilon = config.hidden_size, config.norm_epsilon
        rate = config.dropout if config.attention_dropout is None else config.attention_dropout
        rotary = config.positions == "rotary"
        self.before = config.norm_position == "pre"
        self.attention = MultiHeadAttention(size, config.num_heads, rate, rotary)
        self.attention_norm = build_norm(config.norm, size, epsilon)
        self.feed_forward = FeedForward(
            size, config.feedforward_size, config.activation, config.gated
        )
        self.feed_forward_norm = build_norm(config.norm, size, epsilon)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        causal: bool,
        past: KeyValues | None = None,
        packing: Packing | None = None,
    ) -> tuple[Tensor, KeyValues]:
        """Return (what x has, keys and values); arguments as in MultiHeadAttention."""
        if self.before:
            mixed, seen = self.attention(self.attention_norm(x), mask, causal, past, packing)
            x = x + self.dropout(mixed)
            return x + self.dropout(self.feed_forward(self.feed_forward_norm(x))), seen
        mixed, seen = self.attention(x, mask, causal, past, packing)
        x = self.attention_norm(x + self.dropout(mixed))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x))), seen


@ENCODERS.register("transformer")
class TransformerEncoder(nn.Module):
    """A stack of transformer layers. mask: causal is the reference's GPT.

    Source: Vaswani et al. 2017 (arXiv:1706.03762); Devlin et al. 2019 (post-norm, exact GELU, no
    norm after the last layer). Pre-norm adds a norm after the last layer.
    """

    class Config(ComponentConfig):
        """Settings of the transformer."""

        hidden_size: int = Field(768, ge=1)
        """D, numbers in a hidden state; the embedding's size must be equal."""
        num_layers: int = Field(12, ge=1)
        """Layers."""
        num_heads: int = Field(12, ge=1)
        """A, attention heads; divides hidden_size."""
        feedforward_size: int = Field(3072, ge=1)
        """Width of the feed-forward part."""
        dropout: float = Field(0.1, ge=0, lt=1)
        """Share set to 0 in training, after attention and after feed-forward."""
        attention_dropout: float | None = Field(None, ge=0, lt=1)
        """Share of attention probabilities set to 0 in training; absent: dropout."""
        mask: Literal["full", "causal"] = "full"
        """full: every token sees all tokens of its row; causal: itself and earlier ones."""
        positions: Literal["none", "rotary"] = "none"
        """none: positions come from the embedding; rotary: attention turns by position."""
        norm: NormKind = "layer"
        """layer, rms, or unbiased (the 2020 reference's)."""
        norm_epsilon: float = Field(1e-12, gt=0)
        """Added under the root of the norm."""
        norm_position: Literal["post", "pre"] = "post"
        """post: norm after each residual (BERT); pre: before each part, and one at the end."""
        activation: Activation = "gelu"
        """Between the two linear maps of the feed-forward part; gelu is the exact one."""
        gated: bool = False
        """Feed-forward with a gate: activation(gate(x)) * up(x)."""
        read_padding: bool = False
        """Compute hidden states of padding too, for a pooling that reads them (2020 reference)."""

        @field_validator("num_heads")
        @classmethod
        def _divides(cls, value: int, info: ValidationInfo) -> int:
            return check_heads(value, info.data.get("hidden_size", value))

        @field_validator("positions")
        @classmethod
        def _even_heads(cls, value: str, info: ValidationInfo) -> str:
            size, heads = info.data.get("hidden_size", 2), info.data.get("num_heads", 1)
            if value == "rotary" and size // heads % 2:
                raise ValueError(f"rotary needs heads of even size, not {size // heads}")
            return value

    def __init__(self, config: Config, input_size: int):
        super().__init__()
        require_equal_sizes("transformer", input_size, config.hidden_size)
        self.output_size = config.hidden_size
        self.causal = config.mask == "causal"
        self.read_padding = config.read_padding
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.num_layers))
        norm = build_norm(config.norm, config.hidden_size, config.norm_epsilon)
        self.norm = norm if config.norm_position == "pre" else nn.Identity()

    def forward(self, emb: Tensor, segment_ids: Tensor) -> Tensor:
        """(B, T, D), (B, T) -> (B, T, D); tokens do not see padding, whose hidden states are 0
        where they are not computed."""
        # To the right of a row's tokens stands padding only, which causal attention hides anyway.
        mask = None if self.causal else visible_keys(segment_ids)
        packing = None if self.read_padding else Packing.of(segment_ids)
        x = emb if packing is None else packing.pack(emb)
        for layer in self.layers:
            x, _ = layer(x, mask, self.causal, None, packing)
        x = self.norm(x)
        return x if packing is None else packing.unpack(x)

    def step(self, emb: Tensor, cache: list[KeyValues] | None) -> tuple[Tensor, list[KeyValues]]:
        """Return hidden states of the next positions, and the cache for those after them.

        emb: (B, T, D), T new positions. cache: None at the start. Raises ConfigError if not causal.
        """
        if not self.causal:
            raise ConfigError("encoder.mask: full sees the future and cannot generate; use causal")
        seen = []
        for number, layer in enumerate(self.layers):
            emb, keys = layer(emb, None, True, None if cache is None else cache[number])
            seen.append(keys)
        return self.norm(emb), seen
