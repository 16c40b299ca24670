"""Units of corpora: lines, documents, labelled and parallel lines, from files and data sets."""

import pytest

from pipeline.errors import ConfigError, DataError
from pipeline.sources import CorpusSpec
from pipeline.text.gathering import cut_sentences, iter_units
from pipeline.text.ledger import Ledger
from tests.pipeline.text.writing import written

TABLE = "label\ttext_a\ttext_b\n1\t好书。真的！\t好\n0\t坏\t差\n"


def units(tmp_path, content, ledger=None, source=None, **options):
    path = written(tmp_path / "s", content)
    spec = CorpusSpec(sources=[source or {"path": "s"}], **options)
    ledger = ledger or Ledger()
    found = iter_units(spec, spec.sources[0], path, ledger)
    return [unit.decode() for some in found for unit in some]


def test_lines_without_blank_ones(tmp_path):
    ledger = Ledger()
    assert units(tmp_path, "\ufeff a\r\n\r\n \t\nb\u2028c", ledger) == [" a", "b\u2028c"]
    assert ledger.record()["blank_lines"] == 2


def test_documents_between_blank_lines(tmp_path):
    assert units(tmp_path, "\n\na\nb\n \n\nc", format="documents") == ["a\nb", "c"]


@pytest.mark.parametrize(
    ("where", "expected"),
    [("middle", ["a。\nb！c", "d"]), ("stops", ["a。\nb！\nc", "d"])],
)
def test_lines_as_documents_of_sentences(tmp_path, where, expected):
    assert units(tmp_path, "a。b！c\nd\n", format="documents", sentences=where) == expected


def test_sentences_end_behind_stops_and_closing_marks():
    text = "他说：“好。”走了……真的？！ 是；不"
    assert cut_sentences(text, "stops") == ["他说：“好。”", "走了……", "真的？！", "是；", "不"]
    assert cut_sentences("abc", "middle") == ["a", "bc"]
    assert cut_sentences("a", "middle") == ["a"]


def test_labelled_lines_are_checked(tmp_path):
    assert units(tmp_path, "1\ta\n0\tb\tc\n", format="labelled") == ["1\ta", "0\tb\tc"]
    with pytest.raises(DataError, match="s:2: label 'x' is not an integer"):
        units(tmp_path, "1\ta\nx\tb\n", format="labelled")
    ledger = Ledger()
    found = units(tmp_path, "1\ta\nx\tb\nc\n", ledger, format="labelled", bad_rows="skip")
    assert found == ["1\ta"]
    assert ledger.dropped["documents"] == {"label is not a number": 1, "wrong number of fields": 1}


def test_plain_lines_take_the_label_of_their_source(tmp_path):
    source = {"path": "s", "label": 3}
    assert units(tmp_path, "a\nb\n", source=source, format="labelled") == ["3\ta", "3\tb"]


def test_parallel_lines_are_checked(tmp_path):
    assert units(tmp_path, "a b\tc d\n", format="parallel") == ["a b\tc d"]
    with pytest.raises(DataError, match="needed are source and target"):
        units(tmp_path, "a\n", format="parallel")


def test_tagged_words_keep_the_words(tmp_path):
    line = "我/r  爱/v  北京/ns\n"
    for words, expected in (("spaced", "我 爱 北京"), ("joined", "我爱北京")):
        assert units(tmp_path, line, source={"path": "s", "words": words}) == [expected]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["好书。真的！", "坏"]),
        ({"format": "labelled"}, ["1\t好书。真的！\t好", "0\t坏\t差"]),
        ({"format": "parallel"}, ["好书。真的！\t好", "坏\t差"]),
        ({"format": "documents"}, ["好书。真的！\n好", "坏\n差"]),
        ({"format": "documents", "sentences": "stops"}, ["好书。\n真的！\n好", "坏\n差"]),
    ],
)
def test_texts_of_a_data_set(tmp_path, options, expected):
    source = {"dataset": "d", "part": "train"}
    assert units(tmp_path, TABLE, source=source, **options) == expected


def test_documents_of_single_texts_need_sentences(tmp_path):
    source = {"dataset": "d", "part": "train"}
    with pytest.raises(ConfigError, match="give sentences: middle or stops"):
        units(tmp_path, "label\ttext_a\n1\ta\n", source=source, format="documents")
