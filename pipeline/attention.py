"""Attention and feed-forward: what transformer layers are made of.

Letters: B batch, T sequence length, D hidden size, A heads, d = D / A.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.kernels import Packing, linear, on_cpu
from pipeline.layers import Activation, Dropout, Linear, activate

KeyValues = tuple[Tensor, Tensor]

# Scores of hidden keys in attention: far below any real one, and finite, so that a row without any
# visible key (a batch filled up with empty rows) stays a number.
HIDDEN_SCORE = -1e4


def check_heads(num_heads: int, hidden_size: int) -> int:
    """Return num_heads if it divides hidden_size; ValueError names the nearest that do."""
    if hidden_size % num_heads:
        legal = [n for n in range(1, hidden_size + 1) if hidden_size % n == 0]
        close = sorted(sorted(legal, key=lambda n: abs(n - num_heads))[:3])
        *some, last = map(str, close)
        options = f"{', '.join(some)} or {last}" if some else last
        raise ValueError(f"{num_heads} does not divide hidden_size {hidden_size}; use {options}")
    return num_heads


def rotate(x: Tensor, first_position: int) -> Tensor:
    """Turn pairs of features by angles that grow with the position.

    x: (B, A, T, d), d even; its first row stands at `first_position`.
    Source: Su et al. 2021 (arXiv:2104.09864), halves paired as in GPT-NeoX.
    """
    length, half = x.shape[-2], x.shape[-1] // 2
    positions = torch.arange(first_position, first_position + length, device=x.device)
    rates = 10000.0 ** (-torch.arange(half, device=x.device) / half)
    angles = positions[:, None] * rates
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    left, right = x[..., :half], x[..., half:]
    return torch.cat([left * cos - right * sin, right * cos + left * sin], -1)


def visible_keys(segment_ids: Tensor) -> Tensor | None:
    """Return (B, 1, 1, T) float, 0 for tokens and HIDDEN_SCORE for padding; None if there is none.

    None lets attention take its fastest kernel. On accelerators the question alone would wait for
    the device, so there the mask is always returned.
    """
    padding = segment_ids == 0
    if on_cpu(padding) and not padding.any():
        return None
    return (padding * HIDDEN_SCORE)[:, None, None, :]


class MultiHeadAttention(nn.Module):
    """Self-attention with A heads of size D / A.

    Source: Vaswani et al. 2017, section 3.2 (arXiv:1706.03762).
    """

    def __init__(self, hidden_size: int, num_heads: int, dropout: float, rotary: bool = False):
        super().__init__()
        self.num_heads, self.rotary = num_heads, rotary
        self.query = Linear(hidden_size, hidden_size)
        self.key = Linear(hidden_size, hidden_size)
        self.value = Linear(hidden_size, hidden_size)
        self.output = Linear(hidden_size, hidden_size)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        causal: bool,
        past: KeyValues | None = None,
        packing: Packing | None = None,
    ) -> tuple[Tensor, KeyValues]:
        """Return (what x has, keys and values seen so far, each (B, A, past + T, d)).

        x: (B, T, D), or its tokens (rows, D) with their packing. mask: (B, 1, 1, T) added to the
        scores, or None. past: of earlier positions.
        """
        seen = 0 if past is None else past[0].shape[2]
        query, key, value = self._project(x, packing)
        if self.rotary:
            query, key = rotate(query, seen), rotate(key, seen)
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        if causal and (mask is not None or seen):
            future = torch.ones(query.shape[2], key.shape[2], device=x.device).triu(seen + 1)
            mask = future * HIDDEN_SCORE if mask is None else mask + future * HIDDEN_SCORE
            causal = False
        mixed = self._attend(query, key, value, mask, causal).transpose(1, 2).flatten(2)
        return self.output(mixed if packing is None else packing.pack(mixed)), (key, value)

    def _project(self, x: Tensor, packing: Packing | None) -> tuple[Tensor, ...]:
        """Return queries, keys and values, each (B, A, T, d): one product for the three."""
        parts = (self.query, self.key, self.value)
        weight, bias = (torch.cat([getattr(p, n) for p in parts]) for n in ("weight", "bias"))
        joined = linear(x, weight, bias)
        joined = joined if packing is None else packing.unpack(joined)
        return joined.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool
    ) -> Tensor:
        rate = self.dropout.rate if self.training else 0.0
        mask = None if mask is None else mask.to(query.dtype)
        if rate == 0 or not on_cpu(query):
            return functional.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, dropout_p=rate, is_causal=causal
            )
        # With dropout torch has no fused kernel on the CPU and draws it slowly (see Dropout).
        scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]))
        if causal:
            mask = torch.full(scores.shape[-2:], HIDDEN_SCORE, dtype=query.dtype).triu(1)
        probabilities = (scores if mask is None else scores + mask).softmax(-1)
        return self.dropout(probabilities) @ value


class FeedForward(nn.Module):
    """Two linear maps with an activation between; gated: the activation multiplies a third.

    Source (gated): Shazeer 2020 (arXiv:2002.05202).
    """

    def __init__(
        self, hidden_size: int, feedforward_size: int, activation: Activation, gated: bool
    ):
        super().__init__()
        self.activation: Activation = activation
        self.up = Linear(hidden_size, feedforward_size)
        self.gate = Linear(hidden_size, feedforward_size) if gated else None
        self.down = Linear(feedforward_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        if self.gate is None:
            return self.down(activate(self.up(x), self.activation))
        return self.down(activate(self.gate(x), self.activation) * self.up(x))
