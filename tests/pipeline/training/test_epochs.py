"""Passes over labelled rows: every row once, little padding, the same for the same seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.epochs import (
    INFERENCE_ROWS,
    INFERENCE_TOKENS,
    epoch_batches,
    fixed_batches,
    inference_batches,
)

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=300).map(np.array)


def equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@given(LENGTHS, st.integers(1, 40), st.integers(0, 9), st.integers(0, 3))
def test_every_row_stands_in_one_batch_of_an_epoch(lengths, size, seed, epoch):
    batches = epoch_batches(lengths, size, seed, epoch)
    assert len(batches) == -(-len(lengths) // size)
    assert np.array_equal(np.sort(np.concatenate(batches)), np.arange(len(lengths)))
    assert max(map(len, batches)) <= size
    assert equal(batches, epoch_batches(lengths, size, seed, epoch))


def test_epochs_and_seeds_differ_and_padding_is_little():
    lengths = np.random.default_rng(1).integers(4, 128, 4000)
    batches = epoch_batches(lengths, 32, 7, 0)
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert padded < 1.1 * lengths.sum()
    assert not equal(batches[:3], epoch_batches(lengths, 32, 7, 1)[:3])
    assert not equal(batches[:3], epoch_batches(lengths, 32, 8, 0)[:3])
    tops = [int(lengths[batch].max()) for batch in batches]
    assert tops != sorted(tops)


@pytest.mark.parametrize("shuffle", [False, True])
def test_the_reference_keeps_its_batches(shuffle):
    batches = fixed_batches(100, 32, 7, shuffle)
    assert [len(batch) for batch in batches] == [32, 32, 32, 4]
    assert (np.concatenate(batches).tolist() == list(range(100))) is not shuffle
    assert sorted(np.concatenate(batches).tolist()) == list(range(100))


@given(LENGTHS, st.sampled_from([None, 256]))
def test_inference_covers_every_row_within_its_memory(lengths, width):
    batches = inference_batches(lengths, width)
    assert np.array_equal(np.sort(np.concatenate(batches)), np.arange(len(lengths)))
    for batch in batches:
        assert len(batch) <= INFERENCE_ROWS
        assert len(batch) == 1 or len(batch) * (width or lengths[batch].max()) <= INFERENCE_TOKENS


def test_a_row_longer_than_the_limit_has_a_batch_of_its_own():
    assert [len(b) for b in inference_batches(np.array([9000, 9000, 4096, 4096]))] == [2, 1, 1]
