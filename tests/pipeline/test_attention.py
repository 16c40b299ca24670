"""Attention against a slow plain formula."""

import math

import pytest
import torch
from torch import Tensor

from pipeline.attention import FeedForward, MultiHeadAttention, check_heads, rotate, visible_keys
from pipeline.kernels import Packing

SIZE, HEADS = 12, 3


def attention(rotary: bool = False, dropout: float = 0.0) -> MultiHeadAttention:
    torch.manual_seed(0)
    return MultiHeadAttention(SIZE, HEADS, dropout, rotary)


def plain(layer: MultiHeadAttention, x: Tensor, visible: Tensor) -> Tensor:
    """Attention position by position and head by head; visible: (B, T, T) bool."""
    query, key, value = (part(x) for part in (layer.query, layer.key, layer.value))
    result = torch.zeros_like(x)
    size = SIZE // HEADS
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            for head in range(HEADS):
                own = slice(head * size, (head + 1) * size)
                scores = key[b, :, own] @ query[b, t, own] / math.sqrt(size)
                scores = scores.masked_fill(~visible[b, t], -math.inf)
                result[b, t, own] = scores.softmax(0) @ value[b, :, own]
    return layer.output(result)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_the_formula(causal: bool) -> None:
    layer, x = attention(), torch.randn(2, 5, SIZE)
    segments = torch.tensor([[1, 1, 1, 2, 2], [1, 1, 1, 0, 0]])
    visible = (segments > 0)[:, None, :].expand(2, 5, 5)
    visible = visible & torch.ones(5, 5, dtype=torch.bool).tril() if causal else visible
    result, _ = layer(x, visible_keys(segments), causal)
    assert torch.allclose(result, plain(layer, x, visible), atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_the_path_with_dropout_computes_the_same(causal: bool) -> None:
    quiet, noisy = attention(), attention(dropout=1e-9)
    x, segments = torch.randn(2, 4, SIZE), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    for mask in (None, visible_keys(segments)):
        expected, _ = quiet(x, mask, causal)
        assert torch.allclose(noisy(x, mask, causal)[0], expected, atol=1e-5)


def test_dropout_is_on_the_probabilities() -> None:
    layer = attention(dropout=0.5)
    with torch.no_grad():
        layer.value.weight.zero_()
        layer.value.bias.fill_(1.0)
        layer.output.weight.copy_(torch.eye(SIZE))
        layer.output.bias.zero_()
    torch.manual_seed(2)
    sums = layer(torch.randn(50, 8, SIZE), None, False)[0]
    assert sums.std() > 0.1
    assert sums.mean().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("rotary", [False, True])
def test_step_by_step_equals_all_at_once(rotary: bool) -> None:
    layer, x = attention(rotary), torch.randn(2, 6, SIZE)
    whole, _ = layer(x, None, True)
    past, parts = None, []
    for piece in x.split([3, 1, 2], 1):
        output, past = layer(piece, None, True, past)
        parts.append(output)
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)


def test_packed_tokens_give_what_padded_ones_give() -> None:
    layer, x = attention(), torch.randn(2, 4, SIZE)
    segments = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    packing, mask = Packing.of(segments), visible_keys(segments)
    assert packing is not None
    padded, _ = layer(x, mask, False)
    packed, _ = layer(packing.pack(x), mask, False, None, packing)
    assert torch.allclose(packed[:6], padded[segments > 0], atol=1e-5)


def test_no_mask_without_padding() -> None:
    assert visible_keys(torch.tensor([[1, 2]])) is None
    mask = visible_keys(torch.tensor([[1, 0]]))
    assert mask is not None
    assert mask.flatten().tolist() == [0, -10000]


def test_rotation_keeps_lengths_and_knows_distances_only() -> None:
    torch.manual_seed(1)
    query, key = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    assert rotate(query, 5).norm().item() == pytest.approx(query.norm().item(), rel=1e-5)
    scores = [(rotate(query, t + 3) * rotate(key, t)).sum().item() for t in (0, 4, 90)]
    assert scores == pytest.approx([scores[0]] * 3, rel=1e-3)
    assert torch.equal(rotate(query, 0), query)


def test_gated_feed_forward() -> None:
    torch.manual_seed(0)
    layer, x = FeedForward(4, 6, "silu", gated=True), torch.randn(3, 4)
    assert layer.gate is not None
    expected = layer.down(torch.nn.functional.silu(layer.gate(x)) * layer.up(x))
    assert torch.equal(layer(x), expected)
    assert FeedForward(4, 6, "gelu", gated=False).gate is None


@pytest.mark.parametrize(
    ("heads", "size", "message"),
    [
        (12, 770, "12 does not divide hidden_size 770; use 10, 11 or 14"),
        (3, 7, "3 does not divide hidden_size 7; use 1 or 7"),
    ],
)
def test_heads_that_do_not_divide(heads: int, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_heads(heads, size)
    assert check_heads(11, 770) == 11
