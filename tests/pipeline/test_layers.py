"""Norms, recurrence, convolutions, pooling and outputs, by hand and against torch."""

import math
from typing import Literal

import pytest
import torch
from torch import nn

from pipeline.errors import ConfigError
from pipeline.layers import (
    CausalConvolution,
    CausalConvolutions,
    Dropout,
    Pooling,
    Recurrent,
    RowClassifier,
    UnbiasedNorm,
    VocabularyOutput,
    activate,
    build_norm,
    pool,
    require_equal_sizes,
)


def test_unbiased_norm_by_hand() -> None:
    norm = UnbiasedNorm(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 1.0]))
        norm.bias.copy_(torch.tensor([0.0, 0.0, 5.0]))
    # mean 2, unbiased deviation 1
    expected = [-1 / 1.000001, 0.0, 5 + 1 / 1.000001]
    assert norm(torch.tensor([1.0, 2.0, 3.0])).tolist() == pytest.approx(expected)


def test_unbiased_norm_is_layer_norm_but_for_a_factor() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 768)
    factor = math.sqrt(767 / 768)
    standard = build_norm("layer", 768, 1e-12)(x)
    assert torch.allclose(build_norm("unbiased", 768, 1e-12)(x), standard * factor, atol=1e-5)


def test_rms_norm_by_hand() -> None:
    x = torch.tensor([3.0, 4.0])
    assert build_norm("rms", 2, 1e-12)(x).tolist() == pytest.approx(
        [3 / math.sqrt(12.5), 4 / math.sqrt(12.5)]
    )


def test_activations() -> None:
    x = torch.tensor([-1.0, 2.0])
    exact = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in (-1, 2)]
    assert activate(x, "gelu").tolist() == pytest.approx(exact, rel=1e-5)
    assert activate(x, "gelu_tanh").tolist() == pytest.approx(exact, abs=1e-3)
    assert activate(x, "relu").tolist() == [0, 2]
    assert activate(x, "silu").tolist() == pytest.approx(
        [-1 / (1 + math.e), 2 / (1 + math.exp(-2))]
    )


def test_dropout_is_for_training_only() -> None:
    layer, x = Dropout(0.5), torch.ones(100)
    assert (layer(x) == 0).any()
    assert torch.equal(layer.eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_recurrent_is_torchs(cell: Literal["lstm", "gru"], both: bool) -> None:
    torch.manual_seed(0)
    theirs = (nn.LSTM if cell == "lstm" else nn.GRU)(
        5, 4, num_layers=2, batch_first=True, bidirectional=both
    )
    ours = Recurrent(cell, 5, 4, 2, 0.0, both)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(3, 6, 5)
    assert torch.allclose(ours(x)[0], theirs(x)[0], atol=1e-6)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_backward_recurrence_starts_at_each_rows_end(cell: Literal["lstm", "gru"]) -> None:
    torch.manual_seed(0)
    theirs = (nn.LSTM if cell == "lstm" else nn.GRU)(
        5, 4, num_layers=2, batch_first=True, bidirectional=True
    )
    ours = Recurrent(cell, 5, 4, 2, 0.0, True)
    ours.load_state_dict(theirs.state_dict())
    x, lengths = torch.randn(3, 6, 5), torch.tensor([2, 6, 4])
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    result, _ = ours(x, lengths)
    for row, length in enumerate(lengths.tolist()):
        assert torch.allclose(result[row, :length], expected[row, :length], atol=1e-6)


def test_recurrence_goes_on_from_a_state() -> None:
    torch.manual_seed(0)
    layer = Recurrent("lstm", 3, 4, 2, 0.0)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 7, 3)
    first, state = layer(x[:, :4])
    second, _ = layer(x[:, 4:], state=state)
    assert torch.allclose(torch.cat([first, second], 1), layer(x)[0], atol=1e-6)


def test_causal_convolution_by_hand() -> None:
    layer = CausalConvolution(1, 1, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[1.0, 10.0, 100.0]]]))
        assert layer.bias is not None
        layer.bias.fill_(0.5)
    output, last = layer(torch.tensor([[[1.0], [2.0], [3.0]]]))
    assert output.flatten().tolist() == [100.5, 210.5, 321.5]
    assert last.flatten().tolist() == [2, 3]


@pytest.mark.parametrize("kernel_size", [1, 2, 4])
def test_convolutions_go_on_from_the_last_frames(kernel_size: int) -> None:
    torch.manual_seed(0)
    layers, x = CausalConvolutions(3, 4, 3, kernel_size, "relu"), torch.randn(2, 7, 3)
    whole, _ = layers(x)
    first, seen = layers(x[:, :2])
    second, _ = layers(x[:, 2:], seen)
    assert torch.allclose(torch.cat([first, second], 1), whole, atol=1e-5)


def test_convolutions_without_activation_are_linear() -> None:
    torch.manual_seed(0)
    layers = CausalConvolutions(2, 2, 3, 2, "none")
    x, y = torch.randn(1, 5, 2), torch.randn(1, 5, 2)
    zero = layers(torch.zeros(1, 5, 2))[0]
    assert torch.allclose(layers(x + y)[0] + zero, layers(x)[0] + layers(y)[0], atol=1e-5)


HIDDEN = torch.tensor([[[1.0], [5.0], [-9.0]], [[-2.0], [-4.0], [-6.0]], [[7.0], [8.0], [9.0]]])
LENGTHS = torch.tensor([2, 3, 0])


@pytest.mark.parametrize(
    ("pooling", "read_padding", "expected"),
    [
        ("first", False, [1, -2, 7]),
        ("mean", False, [3, -4, 7]),
        ("max", False, [5, -2, 7]),
        ("last", False, [5, -6, 7]),
        ("mean", True, [-1, -4, 8]),
        ("max", True, [5, -2, 9]),
        ("last", True, [-9, -6, 9]),
    ],
)
def test_pooling_by_hand(pooling: Pooling, read_padding: bool, expected: list[float]) -> None:
    result = pool(HIDDEN, LENGTHS, pooling, read_padding)
    assert result.flatten().tolist() == pytest.approx(expected)


def test_row_classifier_without_pooler_is_a_map() -> None:
    torch.manual_seed(0)
    classifier = RowClassifier(1, 2, pooler=False, pooling="mean")
    assert classifier.pooler is None
    expected = classifier.output(torch.tensor([[3.0], [-4.0], [7.0]]))
    assert torch.allclose(classifier.logits(HIDDEN, LENGTHS), expected)


def test_row_classifier_sums_over_rows() -> None:
    torch.manual_seed(0)
    classifier, labels = RowClassifier(1, 2), torch.tensor([0, 1, 1])
    whole = classifier.score(HIDDEN, LENGTHS, labels, "x")
    rows = [
        classifier.score(HIDDEN[i : i + 1], LENGTHS[i : i + 1], labels[i : i + 1], "x")
        for i in range(3)
    ]
    total = sum(row.loss_sum.item() for row in rows)
    assert whole.loss_sum.item() == pytest.approx(total, rel=1e-5)
    assert whole.metrics["x"][1].item() == 3
    correct = sum(row.metrics["x"][0].item() for row in rows)
    assert whole.metrics["x"][0].item() == correct


def test_tied_output_uses_the_embedding_and_does_not_own_it() -> None:
    output, table = VocabularyOutput(3, 5, tied=True), nn.Parameter(torch.randn(5, 3))
    output.tie(table)
    assert set(output.state_dict()) == {"bias"}
    hidden = torch.randn(4, 3)
    assert torch.allclose(output.logits(hidden), hidden @ table.t(), atol=1e-6)
    output(hidden, torch.tensor([0, 1, 2, 3]))[0].backward()
    assert table.grad is not None


def test_unequal_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"embedding\.size: 8 differs from encoder.hidden_size 9"):
        require_equal_sizes("transformer", 8, 9)
