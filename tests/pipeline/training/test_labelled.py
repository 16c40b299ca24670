"""Labelled files: choice by digest, and what is left when nothing is."""

import pytest

from pipeline.errors import DataError
from pipeline.tasks.classify import ClassifyTask
from pipeline.training.labelled import content_digests, first_groups, read_examples
from tests.pipeline.labelled import write_table


def table(tmp_path, rows, name="rows.tsv"):
    return write_table(tmp_path / name, "label|text_a", rows)


def test_the_choice_depends_on_texts_and_not_on_their_order(tmp_path):
    rows = [f"{n % 2}|text {n}" for n in range(40)]
    chosen = []
    for name, lines in (("a.tsv", rows), ("b.tsv", rows[::-1])):
        file = read_examples(ClassifyTask, table(tmp_path, lines, name), "fail", "required")
        chosen.append(file.first_by_digest(12))
    assert {e.text_a for e in chosen[0]} == {e.text_a for e in chosen[1]}
    assert [e.line for e in chosen[0]] == sorted(e.line for e in chosen[0])
    assert len(chosen[0]) == 12


def test_more_than_there_are_is_all(tmp_path):
    file = read_examples(ClassifyTask, table(tmp_path, ["0|a", "1|b"]), "fail", "required")
    assert file.first_by_digest(5) == file.first_by_digest(None) == file.examples


def test_a_group_is_chosen_whole():
    """As many groups as it takes to have 20 rows, and not one more."""
    rows = [(question, row) for row in range(6) for question in "abcdefgh"]
    chosen = first_groups(rows, lambda row: row[0], 20)
    questions = {question for question, _ in chosen}
    assert chosen == [row for row in rows if row[0] in questions]
    assert len(chosen) == 24 and len(questions) == 4
    assert first_groups(rows, lambda row: row[0], 48) is rows


def test_digests_leave_labels_out(tmp_path):
    file = read_examples(ClassifyTask, table(tmp_path, ["0|a", "1|a", "1|b"]), "fail", "required")
    first, second, third = content_digests(file.examples).tolist()
    assert first == second != third


def test_nothing_left_tells_why(tmp_path):
    path = table(tmp_path, ["0| ", "1"])
    with pytest.raises(DataError, match=r"no rows left of 2 \(1 empty text, 1 wrong number"):
        read_examples(ClassifyTask, path, "skip", "required")
