"""Vocabularies: what a line is, what is refused, and how tokens are chosen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DataError, MissingError
from pipeline.text.vocabulary import (
    SPECIAL_TOKENS,
    TokenIds,
    build_vocabulary,
    choose_tokens,
    read_vocabulary,
)
from tests.pipeline.text.writing import vocabulary, written

HEAD = "".join(f"{token}\n" for token in SPECIAL_TOKENS)


def problem(path, content):
    with pytest.raises(DataError) as caught:
        read_vocabulary(written(path, content))
    return str(caught.value).replace(str(path), "F")


def test_special_ids_are_looked_up(tmp_path):
    text = "好\n[MASK]\n[SEP]\n[CLS]\n[UNK]\n[PAD]\n"
    read = read_vocabulary(written(tmp_path / "v.txt", text))
    assert read.token_ids == TokenIds(6, pad=5, unk=4, cls=3, sep=2, mask=1)
    assert read.tokens[0] == "好" and read.ids["好"] == 0


def test_lines_end_at_newlines_only(tmp_path):
    odd = ["\u2028", "##\u2028", "\u3000", "\x85", "\x0b", "a\x1cb", "\ufeff"]
    read = read_vocabulary(written(tmp_path / "v.txt", HEAD + "\n".join(odd)))
    assert read.tokens[5:] == odd


def test_crlf_and_a_byte_order_mark_change_neither_ids_nor_digest(tmp_path):
    plain = read_vocabulary(written(tmp_path / "a.txt", HEAD + "好\n"))
    other = "\ufeff" + (HEAD + "好\n").replace("\n", "\r\n")
    assert read_vocabulary(written(tmp_path / "b.txt", other)) == plain


def test_a_missing_last_newline_does_no_harm(tmp_path):
    assert read_vocabulary(written(tmp_path / "v.txt", HEAD + "好")).tokens[-1] == "好"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "F: empty; one token a line is needed"),
        (HEAD + "好\n坏\n好\n", "F:8: token '好' already stands in line 6"),
        (HEAD + "\n好\n", "F:6: blank line; every line is a token"),
        (HEAD + "好\n\n", "F:7: blank line"),
        (HEAD + "好 \n", r"F:6: '好 ' holds a blank at an end or a tab"),
        (HEAD + " \n", "F:6: ' ' holds a blank"),
        (HEAD + "好\t12\n", "holds a blank at an end or a tab"),
        (HEAD.encode() + b"\xb0\xa1\n", "F:6: not UTF-8 at byte 31"),
        ("[PAD]\n[UNK]\n[CLS]\n[SEP]\n", "F: no [MASK]; target mlm hides words behind it"),
        ('{"version": "1.0"}', "F: a JSON file (tokenizer.json or vocab.json)"),
        ('{\n  "version": "1.0"}', "F: a JSON file"),
        ("#version: 0.2\na b\n", "F: a list of byte-pair merges"),
        ("<unk>\t0\n<s>\t0\n\u2581的\t-3\n", "F: a SentencePiece vocabulary with scores"),
        (b"\n\x0e\n\x05<unk>\x15\0\0", "F: a SentencePiece model"),
    ],
)
def test_what_would_shift_ids_is_refused(tmp_path, content, message):
    assert message in problem(tmp_path / "v.txt", content)


def test_all_missing_special_tokens_are_told_at_once(tmp_path):
    with pytest.raises(DataError) as caught:
        read_vocabulary(written(tmp_path / "v.txt", "好\n"))
    assert len(caught.value.problems) == 5


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(MissingError, match="no such file"):
        read_vocabulary(tmp_path / "none.txt")
    with pytest.raises(DataError, match="not a regular file"):
        read_vocabulary(tmp_path)


def test_two_million_tokens_are_the_limit(monkeypatch):
    monkeypatch.setattr("pipeline.text.vocabulary.MAX_VOCAB_SIZE", 6)
    assert len(vocabulary("a").tokens) == 6
    with pytest.raises(DataError, match="7 tokens; at most 6"):
        vocabulary("a", "b")


@pytest.mark.parametrize(("size", "kind"), [(256, "uint8"), (257, "uint16"), (65537, "uint32")])
def test_ids_take_the_narrowest_type(size, kind):
    tokens = [*SPECIAL_TOKENS, *(f"t{number}" for number in range(size - 5))]
    assert build_vocabulary(tokens).id_type == kind


def choose(counts, pieces=False, characters=False, size=None, min_count=1):
    pairs = sorted(counts.items())
    return choose_tokens(lambda: iter(pairs), pieces, characters, size, min_count)[5:]


def test_tokens_stand_by_count_then_code_points():
    counts = {"b": 2, "a": 2, "c": 9, "\U0001f600": 2, "\uffee": 2}
    assert choose(counts) == ["c", "a", "b", "\uffee", "\U0001f600"]


def test_size_counts_the_special_tokens_and_cuts_ties_by_code_points():
    assert choose({"b": 2, "a": 2, "c": 9}, size=7) == ["c", "a"]


def test_rare_tokens_are_left_out():
    assert choose({"b": 1, "a": 2}, min_count=2) == ["a"]


def test_pieces_make_every_seen_word_cuttable():
    # a: starts "ab" twice and "ac" once and is a word 4 times; b and c continue.
    assert choose({"ab": 2, "ac": 1, "a": 4}, pieces=True) == ["a", "##b", "ab", "##c", "ac"]


def test_characters_of_the_tokens_alone():
    assert choose({"ab": 2, "b": 3}, characters=True) == ["b", "a"]


def test_what_no_vocabulary_file_can_hold_is_left_out():
    assert choose({"[MASK]": 9, "a\tb": 8, "": 7, " ": 6, "\u3000": 5}) == ["\u3000"]


def test_too_many_tokens_without_a_size_are_refused(monkeypatch):
    monkeypatch.setattr("pipeline.text.vocabulary.MAX_VOCAB_SIZE", 7)
    assert choose({"a": 1, "b": 1}) == ["a", "b"]
    with pytest.raises(DataError, match="over 7 tokens; give a size"):
        choose({"a": 1, "b": 1, "c": 1})


@given(st.lists(st.text("ab好\u2028\u3000é", min_size=1, max_size=3), unique=True))
def test_a_written_vocabulary_is_read_back(tmp_path_factory, tokens):
    built = vocabulary(*tokens) if tokens else build_vocabulary(SPECIAL_TOKENS)
    path = tmp_path_factory.mktemp("v") / "v.txt"
    assert read_vocabulary(written(path, "\n".join([*built.tokens, ""]))) == built
