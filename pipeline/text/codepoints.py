"""What each code point does when text is cut into tokens, looked up for whole blocks at once.

Most of a Chinese text is ideographs and punctuation, and each of those is one token whatever
stands beside it. Only the rest (letters, digits, marks, other scripts), called runs, needs an
algorithm that looks at more than one code point.
"""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

# Values of a table below 0; from 0 on they are tokens.
SPACE, NEWLINE, UNSEEN, RUN = -1, -2, -3, -4

_UNICODE_SIZE = 0x110000


def code_points(text: str) -> np.ndarray:
    """Return the code points of `text`, (characters,) uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


class CodePointTable:
    """A value for each code point, asked from `values` the first time the code point is seen.

    values: characters -> a value for each, of type `kind`. A line feed is always NEWLINE.
    """

    def __init__(self, values: Callable[[list[str]], list[int]], kind: type = np.int32):
        self._values = values
        self._table: np.ndarray = np.full(_UNICODE_SIZE, UNSEEN, kind)
        self._table[ord("\n")] = NEWLINE

    def look_up(self, codes: np.ndarray) -> np.ndarray:
        """Return the values of code points."""
        values = self._table[codes]
        unseen = values == UNSEEN
        if unseen.any():
            mark = np.zeros(_UNICODE_SIZE, bool)
            mark[codes[unseen]] = True
            new = np.flatnonzero(mark)
            self._table[new] = self._values(list(map(chr, new.tolist())))
            values = self._table[codes]
        return values


class BertCutting:
    """How Google BERT cleans and cuts text, as the library `tokenizers` has it.

    Source: google-research/bert tokenization.py (BasicTokenizer). Special tokens written out in a
    text are plain text.
    """

    def __init__(self, lowercase: bool):
        self.normalizer = BertNormalizer(lowercase=lowercase)
        self.pre_tokenizer = BertPreTokenizer()

    def words(self, text: str) -> list[str]:
        """Return the normalised words and punctuation marks of a text."""
        cut = self.pre_tokenizer.pre_tokenize_str(self.normalizer.normalize_str(text))
        return [word for word, _ in cut]

    def singles(self, characters: list[str]) -> list[str | int]:
        """Return of each character its normalised form if it is a token by itself, SPACE or RUN.

        RUN is always right, only slower: marks that combine with a neighbour are left to it.
        """
        ideographs = [character for character in characters if "\u4e00" <= character <= "\u9fff"]
        # All at once, unless this library's Unicode drops one of them as unassigned.
        known = self.normalizer.normalize_str("".join(ideographs)).split() == ideographs
        plain = set(ideographs) if known else set()
        return [char if char in plain else self._single(char) for char in characters]

    def _single(self, character: str) -> str | int:
        if unicodedata.category(character) == "Cs":  # only in str made from broken JSON escapes
            return SPACE
        normal = self.normalizer.normalize_str(character)
        alone = normal.strip(" ")
        if not alone:
            return SPACE if normal else RUN
        stands_apart = normal != alone or len(self.words(f"a{alone}a")) == 3
        combines = any(map(unicodedata.combining, unicodedata.normalize("NFD", character)))
        return alone if len(alone) == 1 and stands_apart and not combines else RUN


@dataclass(frozen=True)
class Runs:
    """Stretches of a block that need more than a look-up: words[i] is text[starts[i]:ends[i]]."""

    words: list[str]
    starts: np.ndarray
    ends: np.ndarray


def find_runs(text: str, inside: np.ndarray) -> Runs:
    """Return the maximal stretches of `text` in which `inside` (one bool a character) is true."""
    edges = np.zeros(len(inside) + 2, np.int8)
    edges[1:-1] = inside
    changes = np.flatnonzero(edges[1:] != edges[:-1])
    starts, ends = changes[::2], changes[1::2]
    pairs = zip(starts.tolist(), ends.tolist(), strict=True)
    return Runs([text[start:end] for start, end in pairs], starts, ends)


def inner_spaces(codes: np.ndarray, blank: np.ndarray) -> np.ndarray:
    """Return the positions of blanks with something before and behind them in their line.

    blank: one bool a character, false for line feeds.
    """
    positions = np.flatnonzero(blank)
    solid = np.flatnonzero(~blank)
    after = np.searchsorted(solid, positions)
    inside = (after > 0) & (after < len(solid))
    newline = codes[solid] == ord("\n")
    after = np.clip(after, 1, max(len(solid) - 1, 1))
    inside &= ~newline[after - 1] & ~newline[after] if len(solid) > 1 else False
    return positions[inside]


def _invisible(characters: list[str]) -> list[int]:
    return [
        int(unicodedata.category(character)[0] == "C" and character not in "\t\r")
        for character in characters
    ]


_INVISIBLE = CodePointTable(_invisible, np.int8)


def count_invisible(codes: np.ndarray) -> int:
    """Return how many code points are controls, format marks, private use or unassigned."""
    return int(np.count_nonzero(_INVISIBLE.look_up(codes) == 1))
