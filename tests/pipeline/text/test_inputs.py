"""Rows of ids from texts and pairs: exact layouts, and truncation by the plain rule."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.text.inputs import build_inputs, cut_pairs, join_pieces, keep_first
from pipeline.text.rows import Ragged
from pipeline.text.vocabulary import TokenIds

IDS = TokenIds(30, pad=0, unk=1, cls=2, sep=3, mask=4)


def ragged(*lists):
    offsets = np.concatenate([[0], np.cumsum([len(values) for values in lists])]).astype(np.int64)
    return Ragged(np.array([v for values in lists for v in values], np.int64), offsets)


def lists(value):
    return [
        value.values[a:b].tolist() for a, b in zip(value.offsets, value.offsets[1:], strict=False)
    ]


def test_single_texts():
    columns, cut = build_inputs(ragged([10, 11], [12] * 9, []), None, IDS, 6, "none")
    assert lists(columns["token_ids"]) == [[2, 10, 11, 3], [2, 12, 12, 12, 12, 3], [2, 3]]
    assert cut.tolist() == [False, True, False]
    assert "first_length" not in columns


def test_single_texts_as_the_reference_has_them():
    columns, cut = build_inputs(ragged([10, 11], [12] * 9), None, IDS, 6, "uer-2020")
    assert lists(columns["token_ids"]) == [[2, 10, 11], [2, 12, 12, 12, 12, 12]]
    assert cut.tolist() == [False, True]


def test_pairs_are_cut_longest_first():
    first, second = ragged([10, 11], [10] * 8, [10]), ragged([12], [12] * 3, [12] * 9)
    columns, cut = build_inputs(first, second, IDS, 9, "none")
    assert lists(columns["token_ids"]) == [
        [2, 10, 11, 3, 12, 3],
        [2, 10, 10, 10, 3, 12, 12, 12, 3],
        [2, 10, 3, 12, 12, 12, 12, 12, 3],
    ]
    assert columns["first_length"].tolist() == [4, 5, 3]
    assert cut.tolist() == [False, True, True]


def test_pairs_are_cut_on_the_right_as_the_reference_has_them():
    columns, cut = build_inputs(
        ragged([10] * 4, [10] * 9), ragged([12] * 4, [12]), IDS, 8, "uer-2020"
    )
    assert lists(columns["token_ids"]) == [[2, 10, 10, 10, 10, 3, 12, 12], [2] + [10] * 7]
    assert columns["first_length"].tolist() == [6, 8]
    assert cut.tolist() == [True, True]


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 40))
def test_cutting_equals_taking_tokens_off_one_by_one(a, b, room):
    first, second = a, b
    while first + second > room:
        if first > second:
            first -= 1
        else:
            second -= 1
    kept = cut_pairs(np.array([a]), np.array([b]), room)
    assert (int(kept[0][0]), int(kept[1][0])) == (first, second)


VALUES = st.lists(st.lists(st.integers(0, 99), max_size=5), min_size=1, max_size=6)


@given(VALUES, st.data())
def test_pieces_are_joined_row_by_row(rows, data):
    more = [data.draw(st.lists(st.integers(0, 99), max_size=5)) for _ in rows]
    joined = join_pieces([7, ragged(*rows), 8, ragged(*more)])
    assert lists(joined) == [[7, *a, 8, *b] for a, b in zip(rows, more, strict=True)]
    lengths = np.array([data.draw(st.integers(0, len(row))) for row in rows])
    kept = keep_first(ragged(*rows), lengths)
    assert lists(kept) == [row[:n] for row, n in zip(rows, lengths, strict=True)]


@pytest.mark.parametrize("reference", ["none", "uer-2020"])
def test_no_row_is_longer_than_seq_length(reference):
    first, second = ragged([9] * 50, [], [9]), ragged([], [9] * 50, [9])
    for pair in (None, second):
        columns, _ = build_inputs(first, pair, IDS, 16, reference)
        assert columns["token_ids"].lengths.max() <= 16
