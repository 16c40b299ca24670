"""Labelled tables: literal fields, columns by name, and books that balance."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DataError, MissingError
from pipeline.text.tables import RowLedger, gold_columns, is_json_lines, iter_records


def read(text, required=("label", "text_a"), optional=("text_b", "id"), policy="fail", **more):
    data = text if isinstance(text, bytes) else text.encode()
    ledger = RowLedger("rows.tsv", policy)
    return list(iter_records(io.BytesIO(data), required, optional, ledger, **more)), ledger


def problems(text, **more):
    with pytest.raises(DataError) as caught:
        read(text, **more)
    return list(caught.value.problems)


def test_columns_are_found_by_name_in_any_order():
    rows, _ = read("text_a\tsource\tlabel\n好\tx\t1\n")
    assert rows == [(2, {"label": "1", "text_a": "好"})]


def test_fields_are_literal_and_lines_end_at_newlines_only():
    rows, ledger = read('label\ttext_a\n1\t"好\n0\t一\u2028二\x0b三\x85四\r\n')
    assert [fields["text_a"] for _, fields in rows] == ['"好', "一\u2028二\x0b三\x85四"]
    assert (ledger.rows, ledger.used) == (2, 2)


def test_a_byte_order_mark_and_a_missing_last_newline_do_no_harm():
    rows, _ = read(b"\xef\xbb\xbflabel\ttext_a\r\n1\t" + "好".encode())
    assert rows == [(2, {"label": "1", "text_a": "好"})]


def test_a_missing_column_names_what_was_found_and_what_is_needed():
    (problem,) = problems("lable\ttext_a\n1\t好\n")
    assert problem == (
        "rows.tsv:1: no column label; found lable, text_a; the first line must name label, text_a"
    )


def test_a_file_without_a_header_is_told_by_its_first_row():
    (problem,) = problems("1\t好\n")
    assert "no column label, text_a; found 1, 好" in problem


def test_a_column_that_is_nearly_an_optional_one_is_refused():
    (problem,) = problems("label\ttext_a\ttextb\n1\t好\t坏\n")
    assert problem == "rows.tsv:1: column 'textb' looks like 'text_b'; rename it"


def test_a_column_twice_is_refused():
    assert problems("label\ttext_a\ttext_a\n") == [
        "rows.tsv:1: column text_a stands twice; found label, text_a, text_a"
    ]


@pytest.mark.parametrize(("row", "count"), [("1", 1), ("1\t好\t坏", 3)])
def test_a_row_with_another_number_of_fields_tells_both_counts(row, count):
    text = f"label\ttext_a\n0\t好\n{row}\n"
    assert problems(text) == [f"rows.tsv:3: {count} tab-separated fields; the header has 2"]
    rows, ledger = read(text, policy="skip")
    assert len(rows) == 1
    assert ledger.record() == {"rows": 2, "used": 1, "skipped": {"wrong number of fields": 1}}


def test_all_bad_rows_are_told_together_up_to_ten():
    assert len(problems("label\ttext_a\n" + "x\n" * 4)) == 4
    many = problems("label\ttext_a\n" + "x\n" * 40)
    assert len(many) == 11
    assert many[-1] == "rows.tsv: perhaps more; these are the first 10"


def test_blank_lines_are_counted():
    rows, ledger = read("label\ttext_a\n\n1\t好\n\n")
    assert len(rows) == 1
    assert ledger.skipped == {"blank line": 2}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("label\ttext_a\n1\t好\n".encode("utf-16"), "rows.tsv: this is UTF-16 text"),
        ("label\ttext_a\n1\t好的\n".encode("gb18030"), "rows.tsv:2: not UTF-8 at byte 15"),
        ("label\ttext_a\n1\tcafé\n".encode("windows-1252"), "perhaps windows-1252"),
        (b"\x1f\x8b\x08\x00", "this is a gzip archive"),
        (b"label\ttext_a\n1\tx\0y\n", "rows.tsv:2: a NUL byte"),
    ],
)
def test_other_encodings_are_named(data, expected):
    assert expected in problems(data)[0]


def test_an_endless_line_is_refused(monkeypatch):
    monkeypatch.setattr("pipeline.text.tables.MAX_LINE_BYTES", 1 << 20)
    assert problems(b"x" * (1 << 21)) == ["rows.tsv:1: a line of over 1 MB"]


def test_json_lines_have_the_same_names():
    rows, _ = read('{"text_a": "好\\t的", "label": 1, "n": 2.5}\n', json_lines=True)
    assert rows == [(1, {"label": "1", "text_a": "好\t的"})]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"text_a": "好", "label": NaN}', "rows.tsv:1: not JSON: NaN is not JSON"),
        ('{"text_a": "好", "label": 1, "label": 2}', "key 'label' stands twice"),
        ('{"text_a": "好", "label": 1,}', "rows.tsv:1:2"),
        ('{"text_a": "好", "lab', "rows.tsv:1:17: not JSON"),
        ('{"text_a": "好"}', "rows.tsv:1: no key label; found text_a"),
        ("[1]", "rows.tsv:1: a JSON list; expected an object with label, text_a"),
        ('{"text_a": ["好"], "label": 1}', "text_a is ['好']; expected a string"),
        ("[" * 70 + "]" * 70, "nested 70 deep"),
    ],
)
def test_broken_json_lines_follow_the_policy(line, expected):
    good = '{"text_a": "坏", "label": 0}\n'
    assert expected in problems(f"{line}\n{good}", json_lines=True)[0]
    rows, ledger = read(f"{line}\n{good}", policy="skip", json_lines=True)
    assert len(rows) == 1
    assert sum(ledger.skipped.values()) == 1


def test_ids_must_differ():
    ledger = RowLedger("rows.tsv")
    ledger.claim_id("a", 2)
    with pytest.raises(DataError, match=r"rows.tsv:5: id 'a' stands already in 2"):
        ledger.claim_id("a", 5)


def test_names_decide_the_format():
    assert is_json_lines(Path("a.jsonl"))
    assert not is_json_lines(Path("a.tsv"))


def test_gold_is_required_optional_or_ignored():
    assert gold_columns("required", ["a"], ["b"]) == (("label", "a"), ("b",))
    assert gold_columns("optional", ["a"], ["b"]) == (("a",), ("b", "label"))
    assert gold_columns("ignored", ["a"], ["b"]) == (("a",), ("b",))


def test_files_that_are_none(tmp_path):
    with pytest.raises(MissingError, match="no such file"):
        list(iter_records(tmp_path / "no.tsv", ("a",), (), RowLedger("no.tsv")))
    with pytest.raises(DataError, match="not a regular file"):
        list(iter_records(tmp_path, ("a",), (), RowLedger("folder")))


FIELD = st.text(st.characters(exclude_characters="\t\n\r\0", exclude_categories=["Cs"]))


@given(st.lists(st.tuples(FIELD, FIELD.filter(bool))))
def test_what_is_written_is_read(pairs):
    text = "label\ttext_a\n" + "".join(f"{a}\t{b}\n" for a, b in pairs)
    rows, ledger = read(text)
    assert [(fields["label"], fields["text_a"]) for _, fields in rows] == pairs
    assert ledger.rows == ledger.used == len(pairs)
