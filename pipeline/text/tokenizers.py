"""Tokenizers: text to ids, whole blocks of lines at a time.

bert: words and pieces (Google BERT). char: one token a code point. space: text that was cut into
words beforehand. word: raw Chinese text, cut by the segmenter jieba (optional package).
"""

import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from tokenizers import Tokenizer as PieceTokenizer
from tokenizers.models import WordPiece

from pipeline.errors import ConfigError
from pipeline.text.codepoints import (
    NEWLINE,
    RUN,
    SPACE,
    BertCutting,
    CodePointTable,
    Runs,
    code_points,
    find_runs,
    inner_spaces,
)
from pipeline.text.rows import Ragged
from pipeline.text.vocabulary import Vocabulary

MAX_WORD_LENGTH = 100
_MAX_CACHED_CHARACTERS = 8 << 20

# Workers are processes of ours; threads of the library would only warn after a fork.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class Tokenizer(ABC):
    """Text to ids. No special tokens are added; those written out in a text are plain text."""

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary = vocabulary
        self.unknown = vocabulary.token_ids.unk

    @abstractmethod
    def encode_lines(self, text: str) -> Ragged:
        """Return the ids (int32) of each line; every line of `text` ends in \\n."""

    def encode(self, texts: Sequence[str]) -> Ragged:
        """Return the ids (int32) of each text; a line end in a text counts as a space."""
        lines = [text.replace("\n", " ") if "\n" in text else text for text in texts]
        return self.encode_lines("\n".join([*lines, ""]) if lines else "")

    def tokens(self, text: str) -> list[str]:
        """Return the tokens of a text, [UNK] for those that the vocabulary lacks."""
        return [self.vocabulary.tokens[index] for index in self.encode([text]).values.tolist()]


class BertTokenizer(Tokenizer):
    """Google BERT's tokenizer: clean, cut at ideographs and punctuation, longest pieces first.

    Equal, id for id, to the library `tokenizers`, which cuts the runs; the rest is looked up by
    code point. Source: Devlin et al. 2019; google-research/bert tokenization.py.
    Differs from the 2020 reference: [MASK] and the like in a text are plain text; a capital sigma
    becomes the same small letter everywhere; characters are classed by the library's Unicode.
    """

    def __init__(self, vocabulary: Vocabulary, lowercase: bool = True):
        super().__init__(vocabulary)
        cutting = BertCutting(lowercase)
        self._pieces = PieceTokenizer(
            WordPiece(vocabulary.ids, unk_token="[UNK]", max_input_chars_per_word=MAX_WORD_LENGTH)
        )
        self._pieces.normalizer = cutting.normalizer
        self._pieces.pre_tokenizer = cutting.pre_tokenizer
        self._table = CodePointTable(lambda chars: list(map(self._value, cutting.singles(chars))))
        self._runs = _RunCache(self._encode_runs)

    def _value(self, single: str | int) -> int:
        return single if isinstance(single, int) else self.vocabulary.ids.get(single, self.unknown)

    def _encode_runs(self, words: list[str]) -> list[list[int]]:
        encoded = self._pieces.encode_batch_fast(words, add_special_tokens=False)
        return [encoding.ids for encoding in encoded]

    def encode_lines(self, text: str) -> Ragged:
        """Return the ids (int32) of each line; every line of `text` ends in \\n."""
        ids = self._table.look_up(code_points(text))
        runs = find_runs(text, ids == RUN)
        return _by_line(_place(ids, runs, self._runs.look_up(runs.words)))


class CharTokenizer(Tokenizer):
    """One token a code point; blanks at the ends of a line are dropped, others are tokens."""

    def __init__(self, vocabulary: Vocabulary):
        super().__init__(vocabulary)
        self._table = CodePointTable(
            lambda characters: [SPACE if c.isspace() else self._id(c) for c in characters]
        )

    def _id(self, character: str) -> int:
        return self.vocabulary.ids.get(character, self.unknown)

    def encode_lines(self, text: str) -> Ragged:
        """Return the ids (int32) of each line; every line of `text` ends in \\n."""
        codes = code_points(text)
        ids = self._table.look_up(codes)
        inside = inner_spaces(codes, ids == SPACE)
        ids[inside] = [self._id(chr(code)) for code in codes[inside].tolist()]
        return _by_line(ids)


class SpaceTokenizer(Tokenizer):
    """Words between single spaces.

    Differs from the 2020 reference: nothing between two spaces is no token rather than [UNK].
    """

    def __init__(self, vocabulary: Vocabulary):
        super().__init__(vocabulary)
        self._table = word_table()

    def encode_lines(self, text: str) -> Ragged:
        """Return the ids (int32) of each line; every line of `text` ends in \\n."""
        runs, ids = cut_at_spaces(text, self._table)
        look_up = self.vocabulary.ids.get
        ids[runs.starts] = list(map(look_up, runs.words, itertools.repeat(self.unknown)))
        return _by_line(ids)


class WordTokenizer(Tokenizer):
    """Words as the segmenter jieba finds them in raw Chinese text; blanks are dropped."""

    def __init__(self, vocabulary: Vocabulary):
        super().__init__(vocabulary)
        self._cut = load_segmenter()

    def encode_lines(self, text: str) -> Ragged:
        """Return the ids (int32) of each line; every line of `text` ends in \\n."""
        lines = [list(map(self._id, cut_words(line, self._cut))) for line in text.split("\n")[:-1]]
        lengths = np.fromiter(map(len, lines), np.int64, len(lines))
        values = np.fromiter(itertools.chain.from_iterable(lines), np.int32, lengths.sum())
        return Ragged(values, np.concatenate([[0], np.cumsum(lengths)]))

    def _id(self, word: str) -> int:
        return self.vocabulary.ids.get(word, self.unknown)


def build_tokenizer(name: str, vocabulary: Vocabulary, lowercase: bool = True) -> Tokenizer:
    """Return the tokenizer called bert, char, space or word; `lowercase` concerns bert alone.

    Raises ConfigError where the package of the tokenizer word is not installed.
    """
    if name == "bert":
        return BertTokenizer(vocabulary, lowercase)
    kinds: dict[str, Callable[[Vocabulary], Tokenizer]] = {
        "char": CharTokenizer,
        "space": SpaceTokenizer,
        "word": WordTokenizer,
    }
    return kinds[name](vocabulary)


def word_table() -> CodePointTable:
    """Return the table of text that was cut into words beforehand, for `cut_at_spaces`."""
    return CodePointTable(lambda characters: [SPACE if c.isspace() else RUN for c in characters])


def cut_at_spaces(text: str, table: CodePointTable) -> tuple[Runs, np.ndarray]:
    """Return the words between spaces, and the values of all characters without the words.

    Other blanks (tabs, ideographic spaces) end a word only at the ends of a line.
    """
    codes = code_points(text)
    values = table.look_up(codes)
    outside = values == SPACE
    inside = inner_spaces(codes, outside)
    outside[inside] = codes[inside] == ord(" ")
    return find_runs(text, ~outside & (values != NEWLINE)), values


def load_segmenter() -> Callable[[str], list[str]]:
    """Return jieba's cutting function; its dictionary is read from the package alone.

    Raises ConfigError where it is not installed.
    """
    try:
        jieba: Any = import_module("jieba")
    except ImportError:
        raise ConfigError(
            "tokenizer: 'word' needs the package jieba, which is not installed; "
            "`pip install pretrain-zoo[word]`, or use char, or space on text cut beforehand"
        ) from None
    segmenter = jieba.Tokenizer()
    # Its own start-up would trust a cache file in the shared temporary folder.
    segmenter.FREQ, segmenter.total = segmenter.gen_pfdict(segmenter.get_dict_file())
    segmenter.initialized = True
    return segmenter.lcut


def cut_words(line: str, cut: Callable[[str], list[str]]) -> list[str]:
    """Return the words of a line without blanks."""
    return [word for word in cut(line) if not word.isspace()]


class _RunCache:
    """Ids of runs, each distinct run encoded once."""

    def __init__(self, encode: Callable[[list[str]], list[list[int]]]):
        self._encode = encode
        self._clear()

    def _clear(self) -> None:
        self._numbers: dict[str, int] = {}
        self._lists = Ragged(np.zeros(0, np.int32), np.zeros(1, np.int64))
        self._characters = 0

    def look_up(self, words: list[str]) -> Ragged:
        """Return the ids of each word."""
        numbers = list(map(self._numbers.get, words))
        if None in numbers:
            if self._characters > _MAX_CACHED_CHARACTERS:
                self._clear()
            self._learn([word for word in dict.fromkeys(words) if word not in self._numbers])
            numbers = list(map(self._numbers.get, words))
        return self._lists.take(np.array(numbers, np.int64))

    def _learn(self, words: list[str]) -> None:
        encoded = self._encode(words)
        self._numbers.update(zip(words, itertools.count(len(self._numbers))))
        self._characters += sum(map(len, words))
        ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
        new = np.fromiter(itertools.chain.from_iterable(encoded), np.int32)
        self._lists = Ragged(
            np.concatenate([self._lists.values, new]),
            np.concatenate([self._lists.offsets, self._lists.offsets[-1] + ends]),
        )


def _place(ids: np.ndarray, runs: Runs, lists: Ragged) -> np.ndarray:
    """Return `ids` with the ids of each run in the place of its characters."""
    lengths = lists.lengths
    starts = runs.starts
    longer = np.maximum(lengths - (runs.ends - runs.starts), 0)
    if longer.any():  # normalisation made the run longer: Hangul falls apart into letters
        ids = np.insert(ids, np.repeat(runs.ends, longer), SPACE)
        starts = starts + np.cumsum(longer) - longer
    inside = np.arange(len(lists.values)) - np.repeat(lists.offsets[:-1], lengths)
    ids[np.repeat(starts, lengths) + inside] = lists.values
    return ids


def _by_line(ids: np.ndarray) -> Ragged:
    """Return the ids (those from 0 on) of each line; NEWLINE ends a line."""
    kept = np.flatnonzero(ids >= 0)
    ends = np.searchsorted(kept, np.flatnonzero(ids == NEWLINE))
    return Ragged(ids[kept], np.concatenate([[0], ends]))
