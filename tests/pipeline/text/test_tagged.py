"""Tagged sentences: rows of a file, pieces of tokens, windows of long sentences."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DataError
from pipeline.text.tables import RowLedger
from pipeline.text.tagged import (
    TaggedSentence,
    cut_tokens,
    iter_tagged_sentences,
    loose_insides,
    token_windows,
)
from pipeline.text.tokenizers import build_tokenizer
from pipeline.text.vocabulary import build_vocabulary

VOCABULARY = build_vocabulary(
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "张", "三", "ab", "##c"]
)


def read(text, policy="fail", gold="required", json_lines=False):
    ledger = RowLedger("rows.tsv", policy)
    return list(iter_tagged_sentences(io.BytesIO(text.encode()), ledger, gold, json_lines)), ledger


def test_tokens_and_tags_stand_between_single_spaces():
    (sentence,), _ = read("label\ttext_a\nB-PER I-PER O\t张 三 \u3000\n")
    assert sentence.tokens == ("张", "三", "\u3000")
    assert sentence.tags == ("B-PER", "I-PER", "O")


@pytest.mark.parametrize(
    ("row", "problem", "reason"),
    [
        ("张 三\tO", "2 tokens and 1 tags; expected one tag for each token", "tokens without tags"),
        ("张  三\tO O O", "two spaces stand together in text_a", "empty token"),
        ("\tO", "text_a is empty", "empty text"),
    ],
)
def test_bad_rows_follow_the_policy(row, problem, reason):
    text = f"text_a\tlabel\n张\tO\n{row}\n"
    with pytest.raises(DataError, match=f"rows.tsv:3: {problem}"):
        read(text)
    sentences, ledger = read(text, "skip")
    assert len(sentences) == 1
    assert ledger.skipped == {reason: 1}


def test_running_text_is_cut_where_gold_is_ignored():
    (sentence,), _ = read("text\n张三，ab cd\n", gold="ignored")
    assert sentence.tokens == ("张", "三", "，", "ab", "cd")
    (sentence,), _ = read("text_a\tlabel\n张三 ab\tO O\n", gold="ignored")
    assert (sentence.tokens, sentence.tags) == (("张三", "ab"), None)


def test_pieces_of_tokens():
    tokenizer = build_tokenizer("bert", VOCABULARY)
    sentences = [TaggedSentence(2, "2", ("张", "ABC")), TaggedSentence(3, "3", ("\u200b", "三"))]
    pieces = cut_tokens(sentences, tokenizer, VOCABULARY.token_ids.unk, 2)
    assert pieces.values.tolist() == [5, 7, 8, 1, 6]
    assert pieces.lengths.tolist() == [1, 2, 1, 1]
    assert cut_tokens(sentences, tokenizer, 1, 1).values.tolist() == [5, 7, 1, 6]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=40), st.integers(5, 12))
def test_windows_cover_a_sentence_without_overlap(sizes, room):
    windows = token_windows(np.array(sizes), room)
    assert [first for first, _ in windows] == [0, *(end for _, end in windows[:-1])]
    assert windows[-1][1] == len(sizes)
    for first, end in windows:
        assert first < end
        assert sum(sizes[first:end]) <= room
        assert end == len(sizes) or sum(sizes[first : end + 1]) > room


@pytest.mark.parametrize(
    ("tags", "count"),
    [("O I-A I-A O", 1), ("B-A I-A", 0), ("B-A I-B", 1), ("B-A M-A I-A", 0), ("I-A", 1)],
)
def test_inside_tags_without_a_begin_are_counted(tags, count):
    names = tuple(tags.split())
    assert loose_insides(TaggedSentence(2, "2", names, names)) == count
