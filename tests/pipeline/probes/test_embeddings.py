"""Embeddings: the text holds every bit of the table."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DataError
from pipeline.probes.embeddings import iter_word2vec

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(FLOATS, FLOATS, FLOATS), min_size=1, max_size=8))
def test_numbers_come_back_bit_for_bit(rows):
    table = torch.tensor(rows, dtype=torch.float32)
    tokens = [f"词{n}" for n in range(len(rows))]
    header, *lines = iter_word2vec(tokens, table)
    assert header == f"{len(rows)} 3\n"
    fields = [line.removesuffix("\n").split(" ") for line in lines]
    assert [field[0] for field in fields] == tokens
    values = np.array([[float(number) for number in field[1:]] for field in fields], np.float32)
    assert values.tobytes() == table.numpy().tobytes()


def test_lines_by_hand():
    table = torch.tensor([[0.5, -1.0], [2.0, 0.0]])
    assert list(iter_word2vec(["我", "##s"], table)) == ["2 2\n", "我 0.5 -1\n", "##s 2 0\n"]


def test_more_rows_than_are_taken_at_once():
    table = torch.arange(3000.0)[:, None]
    lines = list(iter_word2vec([f"t{n}" for n in range(3000)], table))
    assert len(lines) == 3001 and lines[2048] == "t2047 2047\n"


def test_a_token_with_a_space_is_refused():
    with pytest.raises(DataError, match="token 'a b' holds a space"):
        list(iter_word2vec(["我", "a b"], torch.zeros(2, 2)))
