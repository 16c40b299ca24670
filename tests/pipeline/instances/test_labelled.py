"""Labelled lines: single texts and pairs with their labels."""

import pytest

from pipeline.errors import DataError
from tests.pipeline.instances.building import build, texts


def test_texts_and_pairs(tmp_path):
    content = "1\ta b\n0\tc d e f g h i j\n\n3\ta\tb c\n1\t\u3000\n0\ta b c d e\tf g\n"
    (table,), ledger, kind = build(tmp_path, content, "labelled")
    assert texts(table) == [
        "[CLS] a b [SEP]",
        "[CLS] c d e f g h [SEP]",
        "[CLS] a [SEP] b c [SEP]",
        "[CLS] a b c [SEP] f g [SEP]",
    ]
    assert table.columns["first_length"].tolist() == [4, 8, 3, 5]
    assert table.columns["label"].tolist() == [1, 0, 3, 0]
    assert table.documents.tolist() == [0, 1, 3, 5]
    assert ledger.record() == {
        "blank_lines": 1, "documents_in": 5, "label 0": 2, "label 1": 1, "label 3": 1,
        "rows_cut": 2, "dropped": {"no tokens": 1},
    }  # fmt: skip
    assert kind.problem(ledger) is None


def test_one_label_is_of_no_use(tmp_path):
    _, ledger, kind = build(tmp_path, "1\ta\n1\tb\n", "labelled")
    assert kind.problem(ledger) == "every line has label 1; target cls needs at least two labels"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a b", "corpus.txt:2: 1 tab-separated fields; needed are label, text"),
        ("one\ta", "corpus.txt:2: label 'one' is not an integer in 0..99999"),
    ],
)
def test_malformed_lines_are_told_or_skipped(tmp_path, line, message):
    with pytest.raises(DataError) as caught:
        build(tmp_path, f"1\ta\n{line}\n", "labelled")
    assert message in str(caught.value)
    (table,), ledger, _ = build(tmp_path, f"1\ta\n{line}\n", "labelled", skip=True)
    assert len(table.documents) == 1 and ledger.counts["documents_in"] == 2
