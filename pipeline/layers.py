"""Layers that embeddings, encoders, targets and task heads are made of.

Letters: B batch, T sequence length, E embedding size, D hidden size, A heads, V vocabulary size,
N scored positions.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.kernels import Packing, cross_entropy, dropout, linear, reverse

NormKind = Literal["layer", "rms", "unbiased"]
Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
Pooling = Literal["first", "mean", "max", "last"]
KeyValues = tuple[Tensor, Tensor]

# Scores of hidden keys in attention: far below any real one, and finite, so that a row without any
# visible key (a batch filled up with empty rows) stays a number.
HIDDEN_SCORE = -1e4


class TargetOutput(NamedTuple):
    """What a target or a task head returns for one batch."""

    loss_sum: Tensor
    """(), summed over the head's own units (scored tokens, rows); the loop divides."""
    metrics: dict[str, tuple[Tensor, Tensor]]
    """Name -> (correct, total), each ()."""


class Dropout(nn.Module):
    """Inverted dropout; see kernels.dropout."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Return x (any shape), in training with a share of its elements 0, the rest scaled up."""
        return dropout(x, self.rate) if self.training and self.rate > 0 else x


class Linear(nn.Linear):
    """torch's linear map with bias, computed by kernels.linear."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return linear(x, self.weight, self.bias)


class UnbiasedNorm(nn.Module):
    """Layer norm that divides by the unbiased standard deviation plus 1e-6.

    Source: the 2020 reference. Differs from layer norm by a factor sqrt((D-1)/D).
    """

    def __init__(self, size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        centred = x - x.mean(-1, keepdim=True)
        return self.weight * centred / (x.std(-1, keepdim=True) + 1e-6) + self.bias


def build_norm(kind: NormKind, size: int, epsilon: float) -> nn.Module:
    """Return a norm over the last axis; `epsilon` stands under the root (layer, rms)."""
    if kind == "layer":
        return nn.LayerNorm(size, epsilon)
    return nn.RMSNorm(size, epsilon) if kind == "rms" else UnbiasedNorm(size)


def activate(x: Tensor, activation: Activation) -> Tensor:
    """Apply an activation by name; `gelu` is the exact one."""
    if activation in ("gelu", "gelu_tanh"):
        return functional.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")
    return functional.relu(x) if activation == "relu" else functional.silu(x)


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
    if padding.device.type == "cpu" and not padding.any():
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
        if rate == 0 or query.device.type != "cpu":
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


class Recurrent(nn.Module):
    """Layers of LSTM or GRU cells, in one direction or in two that are joined at every layer.

    Parameters have the names and layout of torch.nn.LSTM and GRU. hidden_size is one direction's.
    """

    def __init__(
        self,
        cell: Literal["lstm", "gru"],
        input_size: int,
        hidden_size: int,
        num_layers: int,
        dropout: float,
        bidirectional: bool = False,
    ):
        super().__init__()
        self.cell, self.hidden_size, self.num_layers = cell, hidden_size, num_layers
        self.suffixes = ["", "_reverse"] if bidirectional else [""]
        gates = (4 if cell == "lstm" else 3) * hidden_size
        for layer in range(num_layers):
            width = hidden_size * len(self.suffixes) if layer else input_size
            for suffix in self.suffixes:
                end = f"_l{layer}{suffix}"
                self.register_parameter(f"weight_ih{end}", nn.Parameter(torch.empty(gates, width)))
                self.register_parameter(
                    f"weight_hh{end}", nn.Parameter(torch.empty(gates, hidden_size))
                )
                self.register_parameter(f"bias_ih{end}", nn.Parameter(torch.empty(gates)))
                self.register_parameter(f"bias_hh{end}", nn.Parameter(torch.empty(gates)))
        self.dropout = Dropout(dropout)

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, state: list[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return (outputs (B, T, directions * D), state after the last position).

        x: (B, T, E). lengths: where the backward direction begins in each row; None: at T. state:
        of the positions before, (layers * cell states) of (1, B, D); None: zeros.
        """
        final: list[Tensor] = []
        parts = 2 if self.cell == "lstm" else 1
        for layer in range(self.num_layers):
            x = self.dropout(x) if layer else x
            initial = state[layer * parts : (layer + 1) * parts] if state else None
            outputs = []
            for suffix in self.suffixes:
                turned = reverse(x, lengths) if suffix else x
                output, last = self._run(turned, f"_l{layer}{suffix}", initial)
                outputs.append(reverse(output, lengths) if suffix else output)
                final += last
            x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
        return x, final

    def _run(
        self, x: Tensor, end: str, initial: list[Tensor] | None
    ) -> tuple[Tensor, list[Tensor]]:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        weights = [getattr(self, name + end) for name in names]
        if initial is None:
            zeros = x.new_zeros(1, x.shape[0], self.hidden_size)
            initial = [zeros, zeros] if self.cell == "lstm" else [zeros]
        options = (weights, True, 1, 0.0, self.training, False, True)
        if self.cell == "lstm":
            output, hidden, memory = torch.lstm(x, initial, *options)
            return output, [hidden, memory]
        output, hidden = torch.gru(x, initial[0], *options)
        return output, [hidden]


def pool(hidden: Tensor, lengths: Tensor, pooling: Pooling, read_padding: bool = False) -> Tensor:
    """Return one vector for each row, (B, D), from its own tokens.

    hidden: (B, T, D); lengths: (B,). read_padding: mean, max and last over all T positions, as the
    2020 reference has it. A row without tokens gives 0 for mean and its first position otherwise.
    """
    width = hidden.shape[1]
    if pooling == "first":
        return hidden[:, 0]
    if read_padding:
        lengths = torch.full_like(lengths, width)
    if pooling == "last":
        ends = (lengths - 1).clamp(min=0) + torch.arange(len(lengths), device=hidden.device) * width
        return hidden.flatten(0, 1).index_select(0, ends)
    outside = torch.arange(width, device=hidden.device) >= lengths.clamp(min=1)[:, None]
    if pooling == "max":
        return hidden.masked_fill(outside[:, :, None], -math.inf).amax(1)
    total = hidden.masked_fill(outside[:, :, None], 0.0).sum(1)
    return total / lengths.clamp(min=1)[:, None]


class VocabularyOutput(nn.Module):
    """Linear map to the vocabulary with the cross-entropy of its softmax.

    tied: the weight is that of the word embedding, given later by `tie` and not in the state dict.
    """

    def __init__(self, hidden_size: int, vocab_size: int, tied: bool = False):
        super().__init__()
        self.size = (vocab_size, hidden_size)
        self.weight = None if tied else nn.Parameter(torch.empty(vocab_size, hidden_size))
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        # In a tuple, so that the embedding's weight is not registered here a second time.
        self._tied: tuple[Tensor, ...] = ()

    def tie(self, weight: Tensor) -> None:
        """Use the word embedding's weight, (V, D)."""
        self._tied = (weight,)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""
        return linear(hidden, self._matrix(), self.bias)

    def forward(self, hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of cross-entropies and the number of correct predictions, each ().

        hidden: (N, D); labels: (N,) int64. N = 0 gives 0.
        """
        return cross_entropy(hidden, self._matrix(), self.bias, labels)

    def _matrix(self) -> Tensor:
        return self.weight if self.weight is not None else self._tied[0]
