"""Sentences: pairs that follow one another or not, by draws that depend on the document alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.text.ledger import Ledger
from tests.pipeline.instances.building import LETTERS, build, texts


def document(letter, sentences, length=3):
    """Return a document whose sentences are `length` times a letter."""
    return "".join(f"{' '.join([letter] * length)}\n" for _ in range(sentences))


def corpus(documents=26, sentences=4, length=3):
    parts = [document(letter, sentences, length) for letter in LETTERS[:documents]]
    return "\n".join(parts)


def columns(tables, name):
    return np.concatenate([table.columns[name] for table in tables]).tolist()


def pairs(tables):
    """Return (A, B, is_random) of each row, as lists of tokens."""
    rows = [text.split() for table in tables for text in texts(table)]
    found = []
    for row, first, random in zip(
        rows, columns(tables, "first_length"), columns(tables, "is_random"), strict=True
    ):
        assert row[0] == "[CLS]" and row[first - 1] == row[-1] == "[SEP]"
        assert row.count("[SEP]") == 2
        found.append((row[1 : first - 1], row[first:-1], random))
    return found


def test_following_pairs_are_from_one_document_and_random_ones_are_not(tmp_path):
    tables, ledger, kind = build(tmp_path, corpus(), "sentences", 20, dup_factor=5)
    found = pairs(tables)
    for first, second, random in found:
        assert first and second
        assert (set(first) != set(second)) == bool(random)
    share = np.mean([random for *_, random in found])
    assert 0.5 < share < 0.75  # half by draw, and the last sentence of a document
    assert len(found) > 150
    assert ledger.record() == {
        "blank_lines": 25,
        "documents_in": 26,
        "one_sentence_documents": 0,
        "sentences_in": 104,
        "sentences_out": 104,
        "dropped": {},
    }
    ledger.count("documents_out", 26)
    assert kind.problem(ledger) is None


@given(st.integers(5, 40), st.integers(1, 30), st.integers(1, 3), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_rows_fit_and_every_sentence_is_used(tmp_path_factory, seq_length, length, passes, seed):
    content = corpus(documents=5, sentences=3, length=length)
    options = {"dup_factor": passes, "short_seq_prob": 0.3}
    folder = tmp_path_factory.mktemp("s")
    tables, ledger, _ = build(folder, content, "sentences", seq_length, seed, **options)
    found = pairs(tables)
    for first, second, _ in found:
        assert 2 <= len(first) + len(second) <= seq_length - 3
    assert set(np.concatenate([table.documents for table in tables]).tolist()) == set(range(5))
    ledger.count("documents_out", 5)
    ledger.check_balance("set")


def test_passes_differ(tmp_path):
    (table,), _, _ = build(tmp_path, corpus(), "sentences", 12, dup_factor=2)
    half = np.searchsorted(-np.diff(table.documents), 1)  # where the second pass starts
    rows = texts(table)
    assert rows[:half] != rows[half:]


def test_rows_of_a_document_depend_on_it_and_not_on_its_place(tmp_path):
    (table,), _, _ = build(tmp_path, corpus(), "sentences", 12)
    reverse = "\n".join(document(letter, 4) for letter in reversed(LETTERS))
    (other,), _, _ = build(tmp_path, reverse, "sentences", 12)
    firsts = [[row.split("[SEP]")[0] for row in texts(t)] for t in (table, other)]
    assert sorted(firsts[0]) == sorted(firsts[1])
    (again,), _, _ = build(tmp_path, corpus(), "sentences", 12)
    assert texts(again) == texts(table)
    (seeded,), _, _ = build(tmp_path, corpus(), "sentences", 12, seed=8)
    assert texts(seeded) != texts(table)


def test_few_documents_find_partners_at_the_head_of_the_corpus(tmp_path):
    content = corpus(documents=3)
    tables, _, kind = build(tmp_path, content, "sentences", 12)
    assert {letter for _, second, _ in pairs(tables) for letter in second} <= set("abc")
    last = next(kind.settings.corpus.iter_blocks(2, 3, Ledger(), 1))
    assert 0 < len(last.raw) < len(content)
    table = kind.build(last, Ledger())
    randoms = [second for _, second, random in pairs([table]) if random]
    assert randoms and all(set(second) != {"c"} for second in randoms)


def test_no_held_out_text_enters_training_as_a_partner(tmp_path):
    content = corpus(documents=26)
    (table,), _, _ = build(tmp_path, content, "sentences", 12, dup_factor=20, held_out=0.3)
    chosen = table.held_out(0.3)
    kept_out = {text[6] for text, held in zip(texts(table), chosen, strict=True) if held}
    assert 2 < len(kept_out) < 16
    training = [text for text, held in zip(texts(table), chosen, strict=True) if not held]
    assert len(training) > 500 and not any(set(text) & kept_out for text in training)


def test_a_single_document_has_no_random_pairs(tmp_path):
    tables, ledger, _ = build(tmp_path, document("a", 4), "sentences", 9)
    assert {random for *_, random in pairs(tables)} == {0}
    assert ledger.dropped["documents"] == {}


def test_a_single_sentence_alone_in_the_world_is_dropped(tmp_path):
    (table,), ledger, _ = build(tmp_path, "a b\n", "sentences")
    assert len(table.documents) == 0
    assert ledger.record() == {
        "blank_lines": 0,
        "documents_in": 1,
        "one_sentence_documents": 1,
        "sentences_in": 1,
        "sentences_out": 0,
        "dropped": {"no other document": 1},
        "dropped_sentences": {"no other document": 1},
    }


def test_documents_of_one_sentence_are_counted_and_useless_if_all_are(tmp_path):
    content = "\n".join(f"{letter}\n" for letter in "abc")
    tables, ledger, kind = build(tmp_path, content, "sentences")
    assert {random for *_, random in pairs(tables)} == {1}
    ledger.count("documents_out", 3)
    assert "all 3 documents have one sentence; target nsp needs" in kind.problem(ledger)


def test_empty_sentences_and_documents_are_counted(tmp_path):
    content = "a\n\u3000\nb\n\n\u3000\n\nc d\ne\n"
    _, ledger, _ = build(tmp_path, content, "sentences")
    assert ledger.record() == {
        "blank_lines": 2,
        "documents_in": 3,
        "one_sentence_documents": 0,
        "sentences_in": 6,
        "sentences_out": 4,
        "dropped": {"no tokens": 1},
        "dropped_sentences": {"no tokens": 2},
    }


def test_no_room_for_a_pair_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="seq_length 4: a pair takes at least 5"):
        build(tmp_path, "a\n", "sentences", 4)


def test_lengths_are_near_the_target(tmp_path):
    """Source: the short sequences of create_pretraining_data.py."""
    long = "\n".join(document(letter, 40) for letter in LETTERS)
    means = []
    for share in (0.0, 1.0):
        tables, _, _ = build(tmp_path, long, "sentences", 33, short_seq_prob=share)
        means.append(np.mean([len(a) + len(b) for a, b, _ in pairs(tables)]))
    assert means[0] > 25 and means[1] < 22
