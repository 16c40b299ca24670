"""Ragged lists and rows: taking, padding, joining."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.text.rows import Ragged, Rows, concatenate_columns


def ragged(*lists):
    lengths = [len(items) for items in lists]
    values = np.array([value for items in lists for value in items], np.uint16)
    return Ragged(values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def lists(column):
    return [part.tolist() for part in np.split(column.values, column.offsets[1:-1])]


def test_padding_fills_and_cuts():
    assert ragged([1, 2, 3], [], [4]).padded(2, fill=9).tolist() == [[1, 2], [9, 9], [4, 9]]
    assert ragged([], []).padded(1).tolist() == [[0], [0]]


@given(st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=6), st.data())
def test_taking_rows_copies_their_lists(items, data):
    chosen = data.draw(st.lists(st.integers(0, len(items) - 1), max_size=6))
    taken = ragged(*items).take(np.array(chosen, np.int64))
    assert len(taken) == len(chosen)
    assert taken.lengths.tolist() == [len(items[row]) for row in chosen]
    assert taken.values.tolist() == [value for row in chosen for value in items[row]]


def test_joined_lists_keep_their_order():
    joined = Ragged.concatenate([ragged([1], []), ragged([2, 3])])
    assert lists(joined) == [[1], [], [2, 3]]


def test_rows_are_taken_in_all_columns():
    rows = Rows(np.array([7, 8]), {"token_ids": ragged([1, 2], [3]), "label": np.array([0, 1])})
    taken = rows.take(np.array([1, 0, 1]))
    assert taken.indices.tolist() == [8, 7, 8]
    assert taken.lengths.tolist() == [1, 2, 1]
    assert taken.column("label").tolist() == [1, 0, 1]


def test_tables_are_joined_column_by_column():
    tables = [{"a": ragged([1]), "b": np.array([5])}, {"a": ragged([2, 3]), "b": np.array([6])}]
    joined = concatenate_columns(tables)
    assert lists(joined["a"]) == [[1], [2, 3]]
    assert joined["b"].tolist() == [5, 6]
