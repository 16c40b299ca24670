"""Parts of data sets: rows and paragraphs read, cut by digest, and written in one form."""

import json

import pytest

from pipeline.errors import DataError
from pipeline.sources import Source
from pipeline.text.ledger import Ledger
from pipeline.text.parts import PartFile, choose_part, iter_items
from tests.pipeline.text.writing import written

SHARES = {"train": 0.8, "dev": 0.1, "test": 0.1}


def items(path, task="classify", bad_rows="fail", ledger=None, **source):
    return list(iter_items(task, Source(path="x", **source), path, bad_rows, ledger or Ledger()))


def write(path, found, task="classify"):
    part = PartFile(path, str(path), task)
    for item in found:
        part.write(item)
    part.close()
    return part


def test_shares_are_kept_and_equal_texts_stay_together():
    parts = [choose_part(str(number).encode(), SHARES) for number in range(10_000)]
    for part, share in SHARES.items():
        assert abs(parts.count(part) / 10_000 - share) < 0.015  # standard error 0.004
    assert choose_part(b"5", SHARES) == parts[5]


def test_a_share_of_one_takes_all():
    assert {choose_part(bytes([n]), {"dev": 1.0}) for n in range(256)} == {"dev"}
    assert choose_part(b"a", {"train": 0.0, "test": 1.0}) == "test"


def test_rows_are_written_in_one_order_of_columns(tmp_path):
    source = written(tmp_path / "s.tsv", 'text_a\tjunk\tlabel\r\n"好\tx\t1\r\n坏\ty\t0')
    part = write(tmp_path / "out.tsv", items(source))
    assert (tmp_path / "out.tsv").read_text(encoding="utf-8") == 'label\ttext_a\n1\t"好\n0\t坏\n'
    assert (part.rows, dict(part.labels)) == (2, {"0": 1, "1": 1})


def test_plain_lines_take_their_label(tmp_path):
    source = written(tmp_path / "s.txt", "好\n\n坏\n")
    found = items(source, label="pos")
    assert [item.value for item in found] == [
        {"label": "pos", "text_a": "好"}, {"label": "pos", "text_a": "坏"},
    ]  # fmt: skip


def test_json_lines_lose_their_tabs_and_half_characters(tmp_path):
    row = {"label": 1, "text_a": "a\tb\nc\ud800"}
    source = written(tmp_path / "s.jsonl", json.dumps(row) + "\n")
    write(tmp_path / "out.tsv", items(source))
    assert (tmp_path / "out.tsv").read_text(encoding="utf-8") == "label\ttext_a\n1\ta b c?\n"


def test_rows_with_other_columns_than_the_first_are_refused(tmp_path):
    rows = [{"text_a": "a", "label": 1}, {"text_a": "b"}]
    source = written(tmp_path / "s.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="a row has columns text_a, the first one has label"):
        write(tmp_path / "out.tsv", items(source))


def test_skipped_rows_are_counted(tmp_path):
    source = written(tmp_path / "s.tsv", "label\ttext_a\n1\ta\tb\n\n0\tc\n")
    ledger = Ledger()
    assert len(items(source, bad_rows="skip", ledger=ledger)) == 1
    assert ledger.dropped["documents"] == {"blank line": 1, "wrong number of fields": 1}
    with pytest.raises(DataError, match=r"s\.tsv:2: 3 tab-separated fields"):
        items(source)


def test_the_candidates_for_an_answer_stay_together(tmp_path):
    source = written(tmp_path / "s.tsv", "qid\tlabel\ttext_a\ttext_b\n1\t1\tq\ta\n1\t0\tq\tb\n")
    first, second = items(source, task="rank")
    assert first.content == second.content == b"q"
    assert first.identity == b"1\tq\ta" != second.identity


def test_entities_of_tagged_words(tmp_path):
    source = written(tmp_path / "s.txt", "江/nr  泽民/nr  在/p  北京/ns\n")
    (item,) = items(source, task="tag", words="entities")
    assert item.value == {
        "text_a": "江 泽 民 在 北 京", "label": "B-PER I-PER I-PER O B-LOC I-LOC",
    }  # fmt: skip


def test_an_empty_part_has_a_header(tmp_path):
    write(tmp_path / "out.tsv", [])
    assert (tmp_path / "out.tsv").read_text(encoding="utf-8") == "label\ttext_a\n"


def test_shared_texts_are_counted(tmp_path):
    source = written(tmp_path / "s.tsv", "label\ttext_a\n1\ta\n0\tb\n1\tb\n")
    train = write(tmp_path / "train", items(source)[:2])
    test = write(tmp_path / "test", items(source)[1:])
    assert test.count_shared(train) == 2 and train.count_shared(test) == 1


SQUAD = {
    "version": "1",
    "data": [
        {"title": "t", "paragraphs": [{"context": "一", "qas": []}, {"context": "二", "qas": []}]},
        {"title": "u", "paragraphs": [{"context": "三", "qas": [{"id": "q"}]}]},
    ],
}


def test_paragraphs_keep_their_articles(tmp_path):
    source = written(tmp_path / "s.json", json.dumps(SQUAD))
    found = items(source, task="span")
    assert [item.content.decode() for item in found] == ["一", "二", "三"]
    write(tmp_path / "out.json", found, task="span")
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == {
        "data": SQUAD["data"]
    }
    write(tmp_path / "some.json", found[1:], task="span")
    some = json.loads((tmp_path / "some.json").read_text(encoding="utf-8"))["data"]
    assert [len(article["paragraphs"]) for article in some] == [1, 1]


@pytest.mark.parametrize("text", ["[]", "{}", '{"data": [{"paragraphs": [{}]}]}', '{"data": 1}'])
def test_json_of_another_form_is_refused(tmp_path, text):
    with pytest.raises(DataError, match="not in the form data, paragraphs, context"):
        items(written(tmp_path / "s.json", text), task="span")
