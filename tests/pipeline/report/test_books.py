"""Ledgers as books."""

from typing import Any

from pipeline.report.books import books_of, label_counts, notes_of

LEDGER: dict[str, Any] = {
    "documents_in": 100,
    "documents_out": 80,
    "held_out": 5,
    "dropped": {"empty": 5, "repeat": 10},
    "sentences_in": 300,
    "sentences_out": 290,
    "dropped_sentences": {"too long": 9},
    "invisible_characters": 3,
}


def test_books_of_documents_balance_with_what_is_held_out() -> None:
    documents, _ = books_of(LEDGER)
    assert (documents.unit, documents.count_in, documents.balanced) == ("documents", 100, True)
    assert [(entry.what, entry.count) for entry in documents.dropped] == [
        ("repeat", 10),
        ("empty", 5),
    ]
    assert documents.held_out is not None and documents.held_out.count == 5
    assert (documents.out.count, documents.out.share) == (80, 0.8)


def test_books_with_one_unit_lost_do_not_balance() -> None:
    _, sentences = books_of(LEDGER)
    assert (sentences.unit, sentences.balanced) == ("sentences", False)
    assert sentences.held_out is None


def test_an_empty_ledger_balances() -> None:
    (books,) = books_of({"documents_in": 0, "documents_out": 0, "dropped": {}})
    assert (books.balanced, books.out.share) == (True, 0.0)
    assert books_of({"rows": 4}) == []


def test_other_counts_are_notes() -> None:
    assert notes_of(LEDGER) == {"invisible characters": 3}


def test_labels_are_counted_in_order_and_the_rare_ones_together() -> None:
    assert label_counts({"labels": {"1": 1200, "0": 7}}) == "0: 7, 1: 1,200"
    many = {f"label_{number}": number for number in range(1, 11)}
    assert label_counts({"labels": many}).startswith("label_10: 10, label_9: 9")
    assert label_counts({"labels": many}).endswith("and 2 labels more")
    assert label_counts({}) == ""
