"""Batches are pure functions of seed, step and lengths."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.text.rows import Ragged, Rows
from pipeline.training.batching import cut_micro_batches, global_batch, make_batch


def test_every_epoch_has_every_row_once():
    epochs, indices = zip(*(global_batch(step, 4, 10, seed=7) for step in range(5)), strict=True)
    flat, which = np.concatenate(indices), np.concatenate(epochs)
    assert sorted(flat[which == 0]) == sorted(flat[which == 1]) == list(range(10))
    assert flat[which == 0].tolist() != flat[which == 1].tolist()


def test_order_depends_on_the_seed_only():
    first = global_batch(1000, 32, 500, seed=1)[1]
    assert first.tolist() == global_batch(1000, 32, 500, seed=1)[1].tolist()
    assert first.tolist() != global_batch(1000, 32, 500, seed=2)[1].tolist()


@given(st.lists(st.integers(0, 128), min_size=8, max_size=64), st.sampled_from([1, 2, 4, 8]))
def test_a_cut_holds_every_row_once_and_no_part_is_empty(lengths, parts):
    cut = cut_micro_batches(np.array(lengths), parts)
    assert len(cut) == parts
    assert all(len(part) for part in cut)
    assert sorted(np.concatenate(cut).tolist()) == list(range(len(lengths)))


def test_parts_have_near_equal_padded_tokens():
    lengths = np.array([1] * 64 + [64])
    costs = [len(part) * lengths[part].max() for part in cut_micro_batches(lengths, 2)]
    assert costs == [64, 64]


def test_batch_is_padded_to_its_longest_row():
    ids = Ragged(np.array([5, 6, 7, 8], np.uint16), np.array([0, 3, 4]))
    batch = make_batch(Rows(np.arange(2), {"token_ids": ids}), pad=9)
    assert batch["token_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["segment_ids"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["lengths"].tolist() == [3, 1]


def test_second_segment_follows_the_first():
    ids = Ragged(np.array([5, 6, 7, 8], np.uint16), np.array([0, 4]))
    rows = Rows(np.arange(1), {"token_ids": ids, "first_length": np.array([3])})
    assert make_batch(rows, width=6)["segment_ids"].tolist() == [[1, 1, 1, 2, 0, 0]]


@pytest.mark.parametrize("width", [2, 3])
def test_rows_longer_than_the_width_are_cut(width):
    rows = Rows(
        np.arange(1), {"token_ids": Ragged(np.arange(4, dtype=np.uint16), np.array([0, 4]))}
    )
    batch = make_batch(rows, width=width)
    assert batch["token_ids"].shape == (1, width)
    assert batch["lengths"].tolist() == [width]
