"""The fast arithmetic gives what torch's own gives."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pipeline import kernels
from pipeline.kernels import Packing, cross_entropy, dropout, linear, reverse, round_up


def leaves(*shapes: tuple[int, ...]) -> list[Tensor]:
    torch.manual_seed(3)
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


def gradients(result: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    torch.manual_seed(4)
    return list(torch.autograd.grad(result, inputs, torch.randn(result.shape)))


def close(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, theirs, strict=True))


def test_onednn_is_there() -> None:
    assert kernels.HAS_ONEDNN, "this build of torch lacks oneDNN: training takes twice as long"


@pytest.mark.parametrize("shape", [(1, 3), (7, 3), (64, 3), (2, 5, 3), (0, 3)])
def test_linear_is_torchs(shape: tuple[int, ...]) -> None:
    inputs = leaves(shape, (6, 3), (6,))
    ours, theirs = linear(*inputs), functional.linear(*inputs)
    assert ours.shape == theirs.shape
    assert close([ours], [theirs])
    assert close(gradients(ours, inputs), gradients(theirs, inputs))


def test_linear_takes_transposed_inputs_and_frozen_weights() -> None:
    x, weight, bias = leaves((5, 4), (3, 5), (3,))
    weight.requires_grad_(False)
    ours, theirs = linear(x.t(), weight, bias), functional.linear(x.t(), weight, bias)
    assert close(gradients(ours, [x, bias]), gradients(theirs, [x, bias]))


def test_linear_follows_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(*leaves((4, 3), (2, 3), (2,))).dtype == torch.bfloat16


@pytest.mark.parametrize("count", [1, 15, 16, 17, 40])
def test_cross_entropy_is_torchs(count: int) -> None:
    inputs = leaves((count, 8), (30, 8), (30,))
    labels = torch.arange(count) * 7 % 30
    loss, correct = cross_entropy(*inputs, labels)
    logits = functional.linear(*inputs)
    theirs = functional.cross_entropy(logits, labels, reduction="sum")
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert correct.item() == (logits.argmax(1) == labels).sum().item()
    assert close(gradients(loss, inputs), gradients(theirs, inputs))


@pytest.mark.parametrize("count", [33, 48, 80])
def test_cross_entropy_of_many_rows_goes_part_by_part(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, labels = leaves((count, 8), (30, 8), (30,)), torch.arange(count) * 7 % 30
    whole, correct = cross_entropy(*inputs, labels)
    expected = gradients(whole * 3, inputs)
    monkeypatch.setattr(kernels, "LOGIT_ROWS", 32)
    parts, same = cross_entropy(*inputs, labels)
    assert parts.item() == pytest.approx(whole.item(), rel=1e-5)
    assert correct.item() == same.item()
    assert close(gradients(parts * 3, inputs), expected)


def test_cross_entropy_of_nothing_is_zero() -> None:
    inputs = leaves((0, 8), (30, 8), (30,))
    loss, correct = cross_entropy(*inputs, torch.zeros(0, dtype=torch.int64))
    assert (loss.item(), correct.item()) == (0, 0)
    assert all((g == 0).all() for g in gradients(loss, inputs))


def test_cross_entropy_survives_extreme_logits() -> None:
    hidden = torch.tensor([[1000.0], [-1000.0]], requires_grad=True)
    weight, bias = torch.tensor([[1.0], [-1.0], [0.0]]), torch.zeros(3)
    loss, correct = cross_entropy(hidden, weight, bias, torch.tensor([0, 0]))
    assert loss.item() == pytest.approx(2000)
    assert correct.item() == 1
    assert torch.autograd.grad(loss, hidden)[0].isfinite().all()


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(rate: float) -> None:
    torch.manual_seed(1)
    x = torch.ones(1000, 501, requires_grad=True)
    result = dropout(x, rate)
    assert (result == 0).float().mean().item() == pytest.approx(rate, abs=0.002)
    assert result.mean().item() == pytest.approx(1, abs=0.005)
    assert result.max().item() == pytest.approx(1 / (1 - rate), rel=1e-4)
    assert torch.equal(torch.autograd.grad(result.sum(), x)[0], result)
    neighbours = (result[:, 1:] == 0) & (result[:, :-1] == 0)
    assert neighbours.float().mean().item() == pytest.approx(rate**2, abs=0.003)


def test_dropout_repeats_with_the_seed() -> None:
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(dropout(torch.ones(9, 7), 0.5))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_reverse_turns_each_row_by_its_length() -> None:
    x = torch.arange(8.0).view(2, 4, 1)
    turned = reverse(x, torch.tensor([3, 4])).squeeze(2).tolist()
    assert turned == [[2, 1, 0, 3], [7, 6, 5, 4]]
    assert reverse(x, None).squeeze(2).tolist() == [[3, 2, 1, 0], [7, 6, 5, 4]]


def test_reverse_undoes_itself_and_its_gradient() -> None:
    (x,) = leaves((3, 5, 2))
    lengths = torch.tensor([0, 2, 5])
    assert torch.equal(reverse(reverse(x, lengths), lengths), x)
    weights = torch.randn(3, 5, 2)
    gradient = torch.autograd.grad((reverse(x, lengths) * weights).sum(), x)[0]
    assert torch.equal(gradient, reverse(weights, lengths))


def test_packing_keeps_tokens_and_only_them() -> None:
    segments = torch.tensor([[1, 1, 0], [2, 0, 0]])
    packing = Packing.of(segments)
    assert packing is not None
    (x,) = leaves((2, 3, 4))
    packed = packing.pack(x)
    assert len(packed) == kernels.ROW_MULTIPLE
    assert torch.equal(packed[:3], torch.stack([x[0, 0], x[0, 1], x[1, 0]]))
    padded = packing.unpack(packed)
    assert torch.equal(padded, x * (segments > 0)[:, :, None])
    gradient = torch.autograd.grad((padded * 2).sum(), x)[0]
    assert torch.equal(gradient, 2 * (segments > 0)[:, :, None].expand(2, 3, 4))


@pytest.mark.parametrize("segments", [[[1, 1], [1, 2]], [[0, 0], [0, 0]]])
def test_packing_is_left_out_where_it_gains_nothing(segments: list[list[int]]) -> None:
    assert Packing.of(torch.tensor(segments)) is None


def test_round_up() -> None:
    for count, multiple in itertools.product(range(200), (1, 16, 64)):
        rounded = round_up(count, multiple)
        assert rounded % multiple == 0
        assert count <= rounded < count + multiple
