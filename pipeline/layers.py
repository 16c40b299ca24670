"""Layers that embeddings, encoders, targets and task heads are made of.

Letters: B batch, T sequence length, E embedding size, D hidden size, A heads, V vocabulary size,
N scored positions.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import ConfigError
from pipeline.kernels import cross_entropy, dropout, linear, reverse

NormKind = Literal["layer", "rms", "unbiased"]
Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
Pooling = Literal["first", "mean", "max", "last"]


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


def require_equal_sizes(encoder: str, input_size: int, hidden_size: int) -> None:
    """Raise ConfigError unless the embedding's size is the encoder's hidden_size."""
    if input_size != hidden_size:
        raise ConfigError(
            f"embedding.size: {input_size} differs from encoder.hidden_size {hidden_size}; "
            f"the encoder {encoder} adds its input to its output and needs them equal"
        )


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


class CausalConvolution(nn.Conv1d):
    """A convolution over the present and the K - 1 positions before it; weight (out, in, K)."""

    def forward(self, x: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Return ((B, T, out), the last K - 1 inputs for the next call).

        x: (B, T, in). past: (B, K - 1, in), the inputs before x; None: zeros.
        """
        if past is None:
            past = x.new_zeros(x.shape[0], self.kernel_size[0] - 1, x.shape[2])
        seen = torch.cat([past, x], 1)
        output = functional.conv1d(seen.transpose(1, 2), self.weight, self.bias)
        return output.transpose(1, 2), seen[:, x.shape[1] :]


class CausalConvolutions(nn.Module):
    """Causal convolutions, one after the other, with an activation (or none) between them."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        kernel_size: int,
        activation: Activation | Literal["none"],
    ):
        super().__init__()
        self.activation = activation
        sizes = [input_size] + [hidden_size] * num_layers
        self.layers = nn.ModuleList(
            CausalConvolution(sizes[i], sizes[i + 1], kernel_size) for i in range(num_layers)
        )

    def forward(self, x: Tensor, past: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Return ((B, T, D), the last inputs of each layer); past: these of the call before."""
        seen = []
        for number, layer in enumerate(self.layers):
            if number and self.activation != "none":
                x = activate(x, self.activation)
            x, last = layer(x, None if past is None else past[number])
            seen.append(last)
        return x, seen


def pool(hidden: Tensor, lengths: Tensor, pooling: Pooling, read_padding: bool = False) -> Tensor:
    """Return one vector for each row, (B, D), from its own tokens.

    hidden: (B, T, D); lengths: (B,). read_padding: mean, max and last over all T positions, as the
    2020 reference has it. A row without tokens gives its first position.
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


class RowClassifier(nn.Module):
    """One of L labels for each row: pooled hidden states, a layer with tanh (or none), a map."""

    def __init__(
        self,
        hidden_size: int,
        num_labels: int,
        pooler: bool = True,
        pooling: Pooling = "first",
        read_padding: bool = False,
    ):
        super().__init__()
        self.pooling: Pooling = pooling
        self.read_padding = read_padding
        self.pooler = Linear(hidden_size, hidden_size) if pooler else None
        self.output = Linear(hidden_size, num_labels)

    def logits(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, D), (B,) -> (B, L)."""
        pooled = pool(hidden, lengths, self.pooling, self.read_padding)
        return self.output(pooled if self.pooler is None else self.pooler(pooled).tanh())

    def score(self, hidden: Tensor, lengths: Tensor, labels: Tensor, name: str) -> TargetOutput:
        """Return the sum of cross-entropies over rows and the accuracy as metric `name`.

        hidden: (B, T, D); lengths, labels: (B,) int64.
        """
        logits = self.logits(hidden, lengths).float()
        loss_sum = functional.cross_entropy(logits, labels, reduction="sum")
        total = torch.tensor(len(labels), device=labels.device)
        return TargetOutput(loss_sum, {name: ((logits.argmax(1) == labels).sum(), total)})


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

    def score(self, hidden: Tensor, labels: Tensor, name: str) -> TargetOutput:
        """Return the sum of cross-entropies and the accuracy as metric `name`.

        hidden: (N, D); labels: (N,) int64. N = 0 gives 0.
        """
        loss_sum, correct = self(hidden, labels)
        total = torch.tensor(len(labels), device=labels.device)
        return TargetOutput(loss_sum, {name: (correct, total)})

    def forward(self, hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """As `score`: the sum of cross-entropies and the number of correct predictions, each ()."""
        return cross_entropy(hidden, self._matrix(), self.bias, labels)

    def _matrix(self) -> Tensor:
        return self.weight if self.weight is not None else self._tied[0]
