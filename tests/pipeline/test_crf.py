"""The chain beside a plain sum over all paths."""

import itertools

import pytest
import torch

from pipeline.crf import Crf

TAGS = 3
LENGTHS = torch.tensor([4, 1, 3])


@pytest.fixture
def crf():
    torch.manual_seed(1)
    chain = Crf(TAGS)
    for parameter in chain.parameters():
        torch.nn.init.normal_(parameter)
    return chain.double()


@pytest.fixture
def emissions():
    return torch.randn(3, 4, TAGS, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def path_score(crf, emission, path):
    total = crf.start[path[0]] + crf.end[path[-1]]
    for place, tag in enumerate(path):
        total = total + emission[place, tag]
    for before, after in itertools.pairwise(path):
        total = total + crf.transitions[before, after]
    return total


def all_paths(crf, emission, length):
    paths = list(itertools.product(range(TAGS), repeat=int(length)))
    return paths, torch.stack([path_score(crf, emission, path) for path in paths])


def test_loss_equals_the_sum_over_all_paths(crf, emissions):
    tags = torch.tensor([[0, 2, 1, 1], [2, 0, 0, 0], [1, 1, 0, 2]])
    losses = crf(emissions, tags, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        _, scores = all_paths(crf, emissions[row], length)
        own = path_score(crf, emissions[row], tags[row, :length].tolist())
        assert losses[row].item() == pytest.approx((torch.logsumexp(scores, 0) - own).item())


def test_viterbi_finds_the_best_of_all_paths(crf, emissions):
    found = crf.decode(emissions, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        paths, scores = all_paths(crf, emissions[row], length)
        assert found[row, :length].tolist() == list(paths[int(scores.argmax())])
        assert (found[row, length:] == 0).all()


def test_marginals_are_sums_over_paths(crf, emissions):
    shares = crf.marginals(emissions, LENGTHS)
    crf.requires_grad_(False)
    for row, length in enumerate(LENGTHS.tolist()):
        paths, scores = all_paths(crf, emissions[row], length)
        weights = torch.softmax(scores, 0)
        for place in range(length):
            for tag in range(TAGS):
                through = torch.tensor([path[place] == tag for path in paths])
                expected = weights[through].sum().item()
                assert shares[row, place, tag].item() == pytest.approx(expected)
        assert (shares[row, length:] == 0).all()


def test_what_stands_beyond_a_row_is_not_read(crf, emissions):
    tags = torch.zeros(3, 4, dtype=torch.int64)
    other = emissions.clone()
    for row, length in enumerate(LENGTHS.tolist()):
        other[row, length:] = 1e3
    assert torch.equal(crf(emissions, tags, LENGTHS), crf(other, tags, LENGTHS))
    assert torch.equal(crf.decode(emissions, LENGTHS), crf.decode(other, LENGTHS))
    assert torch.equal(crf.marginals(emissions, LENGTHS), crf.marginals(other, LENGTHS))


def test_gradients_are_finite_for_one_token(crf):
    loss = crf(torch.zeros(1, 1, TAGS, dtype=torch.float64), torch.tensor([[1]]), torch.tensor([1]))
    loss.sum().backward()
    assert torch.isfinite(crf.start.grad).all()
    assert torch.isfinite(crf.end.grad).all()
