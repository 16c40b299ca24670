"""Randomness without state: even, independent of the company, and a permutation is one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.text.order import RowRandom, hash_counters, name_counter, permute, seed_of, uniform


def test_hashes_are_fixed_for_good():
    """Stored shards and runs depend on these values."""
    assert hash_counters(7).tolist() == hash_counters(np.array([7])).tolist()
    assert hash_counters(1, 2).item() != hash_counters(2, 1).item()
    assert seed_of(7, 1) == int(hash_counters(7, 1).item() >> np.uint64(1)) < 2**63
    assert name_counter("held_out") == int.from_bytes(b"held_out", "little")


def test_draws_are_uniform_and_uncorrelated():
    draws = uniform(7, np.arange(100_000)[:, None], np.arange(2)[None, :])
    assert draws.min() >= 0 and draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.005  # standard error 0.0006
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.02  # standard error 0.003
    counts = np.bincount((draws[:, 0] * 16).astype(int), minlength=16)
    assert ((counts - 6250) ** 2 / 6250).sum() < 44  # chi square, 15 degrees, p < 0.0001


@given(st.integers(1, 300), st.integers(0, 5))
def test_a_permutation_reaches_everything_once(size, key):
    assert sorted(permute(np.arange(size), size, 7, key).tolist()) == list(range(size))


@pytest.mark.parametrize("size", [2**20 - 1, 2**20, 2**20 + 1])
def test_a_position_is_sent_alone_as_in_company(size):
    positions = np.array([0, 5, size - 1])
    together = permute(positions, size, 7, 3)
    assert together.tolist() == [permute(positions[i : i + 1], size, 7, 3)[0] for i in range(3)]
    assert together.max() < size and len(set(together.tolist())) == 3


def test_epochs_shuffle_anew():
    first, second = (permute(np.arange(1000), 1000, 7, epoch) for epoch in (0, 1))
    assert np.mean(first == second) < 0.01


def test_a_row_draws_the_same_wherever_it_stands():
    rows = RowRandom(7, np.array([0, 0, 1]), np.array([4, 5, 4]))
    wide, narrow = rows.uniform("mask", 9), rows.uniform("mask", 3)
    assert np.array_equal(wide[:, :3], narrow)
    assert np.array_equal(rows.take(np.array([2, 0])).uniform("mask", 3), narrow[[2, 0]])
    assert not np.array_equal(narrow[0], narrow[2])
    assert not np.array_equal(rows.uniform("next", 3), narrow)
