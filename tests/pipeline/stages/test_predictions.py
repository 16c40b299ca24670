"""Predictions as lines: one line a row, nothing that acts on a terminal."""

import json

from hypothesis import given
from hypothesis import strategies as st

from pipeline.stages.predictions import json_lines, tab_lines


def test_tab_lines_have_one_header():
    rows = [{"id": "1", "share": 0.5}, {"id": "2", "share": {"a": 1}}]
    assert list(tab_lines(rows)) == ["id\tshare\n", "1\t0.5\n", '2\t{"a": 1}\n']
    assert list(tab_lines([])) == []


@given(st.lists(st.text(), min_size=1))
def test_a_row_stays_a_line(texts):
    lines = list(tab_lines({"a": text, "b": 1} for text in texts))
    assert len(lines) == len(texts) + 1
    for line in lines[1:]:
        assert line.count("\t") == line.count("\n") == 1
        assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in line[:-3])


@given(st.lists(st.text()))
def test_json_lines_are_json(texts):
    lines = list(json_lines({"a": text} for text in texts))
    assert [json.loads(line)["a"] for line in lines] == texts
    assert all(line.count("\n") == 1 for line in lines)
