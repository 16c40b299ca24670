"""Parallel lines: a source and a target, each cut off at the length."""

import pytest

from pipeline.errors import DataError
from tests.pipeline.instances.building import build, texts


def test_sources_and_targets(tmp_path):
    content = "a b c\td e\n\nf\tg h i j\n \tk\nl\t\u3000\n"
    (table,), ledger, _ = build(tmp_path, content, "parallel", 3)
    assert texts(table) == ["a b c", "f"]
    assert texts(table, "target_ids") == ["d e", "g h i"]
    assert table.documents.tolist() == [0, 2]
    assert ledger.record() == {
        "blank_lines": 1, "documents_in": 4, "tokens_cut": 1, "dropped": {"no tokens": 2},
    }  # fmt: skip


def test_lines_without_two_fields_are_told(tmp_path):
    with pytest.raises(DataError, match=r"corpus\.txt:2: 3 tab-separated fields"):
        build(tmp_path, "a\tb\na\tb\tc\n", "parallel")
