"""Texts and pairs out of tables."""

import io

import pytest

from pipeline.errors import DataError
from pipeline.text.examples import iter_text_examples
from pipeline.text.tables import RowLedger

OPTIONAL = ("text_b", "qid", "id")


def read(text, policy="fail", required=("label", "text_a"), **more):
    ledger = RowLedger("rows.tsv", policy)
    source = io.BytesIO(text.encode())
    return list(iter_text_examples(source, ledger, required, OPTIONAL, **more)), ledger


def test_a_pair_with_everything():
    (example,), _ = read("id\tqid\tlabel\ttext_a\ttext_b\nx\t7\t1\t谁\t我\n")
    assert (example.id, example.group, example.label) == ("x", "7", "1")
    assert (example.text_a, example.text_b, example.line) == ("谁", "我", 2)
    assert (example.content, example.texts) == ("谁\t我", ("谁", "我"))


def test_without_ids_lines_are_the_ids():
    (example,), _ = read("label\ttext_a\n1\t谁\n")
    assert (example.id, example.text_b, example.group, example.content) == ("2", None, None, "谁")
    assert example.texts == ("谁",)


@pytest.mark.parametrize(
    ("row", "problem", "reason"),
    [
        ("1\t \u3000\t我", "text_a is empty; expected text", "empty text"),
        ("1\t谁\t", "text_b is empty; expected text", "empty text"),
        (" \t谁\t我", "label is empty; expected a name or a number", "empty label"),
    ],
)
def test_empty_fields_follow_the_policy(row, problem, reason):
    text = f"label\ttext_a\ttext_b\n0\t谁\t我\n{row}\n"
    with pytest.raises(DataError) as caught:
        read(text)
    assert list(caught.value.problems) == [f"rows.tsv:3: {problem}"]
    examples, ledger = read(text, "skip")
    assert len(examples) == 1
    assert ledger.skipped == {reason: 1}


def test_json_lines_are_all_pairs_or_none():
    text = '{"label": 1, "text_a": "谁", "text_b": "我"}\n{"label": 1, "text_a": "谁"}\n'
    with pytest.raises(DataError, match=r"rows.tsv:2: text_b is missing, unlike in the rows"):
        read(text, json_lines=True)


def test_ids_that_stand_twice_name_both_lines():
    with pytest.raises(DataError, match=r"rows.tsv:3: id 'x' stands already in 2"):
        read("id\tlabel\ttext_a\nx\t1\t谁\nx\t1\t我\n")
