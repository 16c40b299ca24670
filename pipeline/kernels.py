"""Fast arithmetic on the CPU: matrix products, softmax cross-entropy, dropout, moving rows.

Measured on one core of an AMD EPYC with AVX-512, fp32: torch's matrix product (MKL) reaches 105
GFLOP/s, oneDNN's 230 on the same shapes. torch calls oneDNN for LSTMs and convolutions, but not
for linear maps, so `linear` does. Elsewhere (accelerators, autocast, torch.compile, builds of
torch without oneDNN) everything here is torch's own.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")

# oneDNN compiles a kernel for each number of rows (1 to 4 ms); multiples keep these few.
ROW_MULTIPLE = 64
LOGIT_ROW_MULTIPLE = 16
# Most rows of the vocabulary's width at once: 173 MB at 21,128 tokens.
LOGIT_ROWS = 2048


def round_up(count: int, multiple: int) -> int:
    """Return the least multiple of `multiple` that is at least `count`."""
    return -(-count // multiple) * multiple


def on_cpu(x: Tensor) -> bool:
    """Return whether x is on the CPU and torch.compile, which has its own ways, is not at work."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def _fast(x: Tensor) -> bool:
    """Return whether oneDNN multiplies x: (N, K) fp32 on the CPU, not empty, no autocast."""
    plain = on_cpu(x) and x.dtype == torch.float32 and x.numel() > 0
    return HAS_ONEDNN and plain and not torch.is_autocast_enabled("cpu")


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(N, K), (M, K), (M,) -> (N, M); any strides."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, _ = ctx.needs_input_grad
        return (
            _product(gradient, weight.t()) if wants_x else None,
            _product(gradient.t(), x.t()) if wants_weight else None,
            gradient.sum(0),
        )


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return x @ weight.T + bias: (..., K), (M, K), (M,) -> (..., M)."""
    if not _fast(x):
        return functional.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    return _Linear.apply(rows, weight, bias).view(*x.shape[:-1], len(weight))


def _softmax_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (probabilities (rows, V), loss sum, correct); rows beyond the labels do not count."""
    count = len(labels)
    logits = _product(hidden, weight, bias)
    largest = logits.amax(1)[:count]
    given = logits[:count].gather(1, labels[:, None]).squeeze(1)
    probabilities = logits.softmax(1)
    # log of the sum of exponentials; the largest probability is at least 1 / V, never 0.
    normaliser = largest - probabilities.amax(1)[:count].log()
    return probabilities, (normaliser - given).sum(), (given >= largest).sum()


class _CrossEntropy(torch.autograd.Function):
    """Keeps the probabilities instead of logits, log-probabilities and their gradient.

    Of many rows it takes LOGIT_ROWS at once, keeps nothing and computes them again for backward.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(hidden, weight, bias, labels)
        ctx.kept = None
        losses, corrects = [], []
        for rows, own in zip(hidden.split(LOGIT_ROWS), labels.split(LOGIT_ROWS), strict=True):
            probabilities, loss, correct = _softmax_loss(rows, weight, bias, own)
            losses.append(loss)
            corrects.append(correct)
            if len(labels) <= LOGIT_ROWS:
                ctx.kept = probabilities
        total = torch.stack(corrects).sum()
        ctx.mark_non_differentiable(total)
        return torch.stack(losses).sum(), total

    @staticmethod
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, labels = ctx.saved_tensors
        kept, ctx.kept = ctx.kept, None
        to_hidden: list[Tensor] = []
        to_weights: list[Tensor] = []
        for rows, own in zip(hidden.split(LOGIT_ROWS), labels.split(LOGIT_ROWS), strict=True):
            gradient = _softmax_loss(rows, weight, bias, own)[0] if kept is None else kept
            gradient[torch.arange(len(own)), own] -= 1
            gradient[len(own) :] = 0
            # The scale goes to the narrow sides: a pass over (N, V) or (V, D) costs more.
            to_hidden.append(_product(gradient, weight.t()).mul_(scale))
            share = [_product(gradient.t(), (rows * scale).t()), gradient.sum(0).mul_(scale)]
            to_weights = [a.add_(b) for a, b in zip(to_weights, share, strict=False)] or share
        return torch.cat(to_hidden), *to_weights, None


def cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the sum of softmax cross-entropies and the number of correct predictions, each ().

    hidden: (N, D); weight: (V, D); bias: (V,); labels: (N,) int64. N = 0 gives 0. Correct: no
    other class is more likely. The backward pass works once.
    """
    if not _fast(hidden):
        logits = functional.linear(hidden, weight, bias).float()
        loss_sum = functional.cross_entropy(logits, labels, reduction="sum")
        return loss_sum, (logits.argmax(1) == labels).sum()
    count = len(hidden)
    extra = round_up(count, LOGIT_ROW_MULTIPLE) - count
    padded = functional.pad(hidden, (0, 0, 0, extra))
    loss_sum, correct = _CrossEntropy.apply(padded, weight, bias, labels)
    return loss_sum, correct


def dropout(x: Tensor, rate: float) -> Tensor:
    """Return x with a share `rate` of its elements 0 and the others scaled up.

    torch draws one Bernoulli number at a time on the CPU (4.7 ns an element); four 16-bit numbers
    out of one 64-bit draw take 0.7 ns. The rate is rounded to a multiple of 2^-16. Random from
    torch's default generator: the caller's `torch.manual_seed` decides.
    """
    if not on_cpu(x):
        return functional.dropout(x, rate)
    dropped = round(rate * 65536)
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    draws = words.view(torch.int16)[: x.numel()].view(x.shape)
    kept = (draws >= dropped - 32768).to(x.dtype)
    return x * kept.mul_(65536 / (65536 - dropped))


class _Reorder(torch.autograd.Function):
    """Rows of a matrix in another order; the order is its own inverse, so backward is the same."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (order,) = ctx.saved_tensors
        return gradient.index_select(0, order), None


def reverse(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Reverse each row's first `lengths` positions, (B, T, D) -> (B, T, D); None: all T."""
    if lengths is None:
        return x.flip(1)
    batch, width = x.shape[:2]
    columns = torch.arange(width, device=x.device)
    order = torch.where(columns < lengths[:, None], lengths[:, None] - 1 - columns, columns)
    order += torch.arange(batch, device=x.device)[:, None] * width
    return _Reorder.apply(x.flatten(0, 1), order.flatten()).view_as(x)


class _Pack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, packing: "Packing") -> Tensor:
        ctx.packing = packing
        return x.flatten(0, 1).index_select(0, packing.order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.packing.spread(gradient), None


class _Unpack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, packing: "Packing") -> Tensor:
        ctx.packing = packing
        return packing.spread(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        packing = ctx.packing
        packed = gradient.flatten(0, 1).index_select(0, packing.order)
        packed[packing.count :] = 0
        return packed, None


class Packing:
    """Where the tokens of a padded batch stand, so that layers compute nothing for padding.

    Packed rows are the tokens in order, then copies of the first up to a multiple of ROW_MULTIPLE;
    what is computed for the copies is never read.
    """

    def __init__(self, positions: Tensor, batch: int, width: int):
        self.count, self.batch, self.width = len(positions), batch, width
        extra = round_up(self.count, ROW_MULTIPLE) - self.count
        self.order = torch.cat([positions, positions[:1].expand(extra)])

    @staticmethod
    def of(segment_ids: Tensor) -> "Packing | None":
        """Return the packing of a batch, or None where packing gains nothing.

        segment_ids: (B, T), 0 = padding. None: no padding, no tokens, or an accelerator or
        torch.compile, which want shapes that do not depend on the data.
        """
        if not on_cpu(segment_ids):
            return None
        positions = segment_ids.flatten().nonzero().squeeze(1)
        if len(positions) in (0, segment_ids.numel()):
            return None
        return Packing(positions, *segment_ids.shape)

    def pack(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (rows, D)."""
        return _Pack.apply(x, self)

    def unpack(self, x: Tensor) -> Tensor:
        """(rows, D) -> (B, T, D), 0 at padding."""
        return _Unpack.apply(x, self)

    def spread(self, x: Tensor) -> Tensor:
        """As unpack, without a gradient."""
        padded = x.new_zeros(self.batch * self.width, x.shape[1])
        padded[self.order[: self.count]] = x[: self.count]
        return padded.view(self.batch, self.width, -1)
