"""Lines: split or cut off, never padded, each row knowing its line."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from tests.pipeline.instances.building import LETTERS, build, texts


def test_long_lines_are_split(tmp_path):
    (table,), ledger, _ = build(tmp_path, "a b c d e f g\n\nh\n \t\n\u3000\ni j k\n", "lines", 3)
    assert texts(table) == ["a b c", "d e f", "g", "h", "i j k"]
    assert table.documents.tolist() == [0, 0, 0, 2, 5]
    assert ledger.record() == {
        "blank_lines": 2, "documents_in": 4, "dropped": {"no tokens": 1},
    }  # fmt: skip


def test_or_cut_off_as_the_reference_does(tmp_path):
    options = {"long_documents": "truncate"}
    (table,), ledger, _ = build(tmp_path, "a b c d e\n\nh\n", "lines", 3, **options)
    assert texts(table) == ["a b c", "h"]
    assert table.documents.tolist() == [0, 2]
    assert ledger.counts["tokens_cut"] == 2


@pytest.mark.parametrize("mode", ["split", "truncate"])
def test_special_tokens_count_for_the_length(tmp_path, mode):
    options = {"special_tokens": True, "long_documents": mode}
    (table,), _, _ = build(tmp_path, "a b c\nd\n", "lines", 4, **options)
    rest = ["[CLS] c [SEP]"] if mode == "split" else []
    assert texts(table) == ["[CLS] a b [SEP]", *rest, "[CLS] d [SEP]"]


def test_an_unknown_option_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"instances\.dup_factor: unknown key"):
        build(tmp_path, "a\n", "lines", dup_factor=2)


@given(st.lists(st.lists(st.sampled_from(LETTERS), max_size=9), max_size=9), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_split_rows_join_to_the_lines(tmp_path_factory, lines, room):
    content = "".join(" ".join(line) + "\n" for line in lines)
    tables, ledger, _ = build(tmp_path_factory.mktemp("l"), content, "lines", room)
    joined = {}
    for table in tables:
        for text, line in zip(texts(table), table.documents.tolist(), strict=True):
            assert 1 <= len(text.split()) <= room
            joined.setdefault(line, []).extend(text.split())
    assert joined == {number: line for number, line in enumerate(lines) if line}
    assert ledger.counts["documents_in"] == sum(map(bool, lines))


def test_held_out_lines_are_chosen_by_their_text_alone(tmp_path):
    lines = [f"{a} {b}" for a in LETTERS for b in LETTERS]
    content = "\n".join(lines + lines[:100])
    (table,), _, _ = build(tmp_path, content, "lines")
    chosen = table.held_out(0.1)
    assert 40 < chosen[:676].sum() < 96  # 68 expected, standard deviation 8
    assert chosen[676:].tolist() == chosen[:100].tolist()
    assert not table.held_out(0.0).any() and table.held_out(0.999999).mean() > 0.99
