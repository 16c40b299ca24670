"""Vocabularies: one token a line, line number = id; special ids are looked up, never assumed."""

import heapq
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pipeline.artifacts import digest_bytes
from pipeline.errors import DataError, from_os_error, printable

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MAX_VOCAB_SIZE = 2_000_000
MAX_VOCAB_BYTES = 256 << 20

# What a special token is for, in the message about a vocabulary that lacks it.
_PURPOSES = {
    "[PAD]": "every batch is padded with it",
    "[UNK]": "unknown words become it",
    "[CLS]": "it starts the rows of targets nsp, cls and of every task",
    "[SEP]": "it ends the texts of targets nsp, cls, s2s and of every task",
    "[MASK]": "target mlm hides words behind it",
}


@dataclass(frozen=True)
class TokenIds:
    """What a model needs to know of a vocabulary: its size and its special ids."""

    vocab_size: int
    pad: int
    unk: int
    cls: int
    sep: int
    mask: int


@dataclass(frozen=True)
class Vocabulary:
    """Tokens in the order of their ids.

    digest: of the tokens, so that line ends and a byte order mark do not matter.
    """

    tokens: list[str]
    ids: dict[str, int]
    digest: str

    @cached_property
    def token_ids(self) -> TokenIds:
        """The size and the special ids."""
        return TokenIds(len(self.tokens), *(self.ids[token] for token in SPECIAL_TOKENS))

    @property
    def id_type(self) -> np.dtype:
        """The narrowest unsigned type that holds every id."""
        return np.min_scalar_type(max(len(self.tokens) - 1, 0))


def build_vocabulary(tokens: Sequence[str], where: str = "vocabulary") -> Vocabulary:
    """Return the vocabulary of `tokens`; `where` names it in messages.

    Raises DataError for repeated tokens, missing special ones, or more than MAX_VOCAB_SIZE.
    """
    if len(tokens) > MAX_VOCAB_SIZE:
        raise DataError(f"{where}: {len(tokens)} tokens; at most {MAX_VOCAB_SIZE}")
    ids = {token: index for index, token in enumerate(tokens)}
    if len(ids) < len(tokens):
        raise DataError(*_repeats(tokens, where))
    if missing := [token for token in SPECIAL_TOKENS if token not in ids]:
        raise DataError(*(f"{where}: no {token}; {_PURPOSES[token]}" for token in missing))
    return Vocabulary(list(tokens), ids, digest_bytes("\n".join(tokens).encode()))


def _repeats(tokens: Sequence[str], where: str) -> list[str]:
    first: dict[str, int] = {}
    problems = []
    for line, token in enumerate(tokens, 1):
        if token in first:
            shown = printable(token)
            problems.append(
                f"{where}:{line}: token '{shown}' already stands in line {first[token]}"
            )
        first.setdefault(token, line)
    return problems[:10]


def read_vocabulary(path: Path) -> Vocabulary:
    """Return the vocabulary in a text file: one token a line, the whole line, UTF-8.

    Lines end at \\n only, since tokens such as U+2028 and U+3000 are kept as they are; \\r\\n and
    a byte order mark are dropped. Raises MissingError, and DataError for what would shift ids or
    could be read in two ways: blank lines, repeats, blanks around a token, other kinds of file.
    """
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: not a regular file")
        if (size := path.stat().st_size) > MAX_VOCAB_BYTES:
            raise DataError(f"{path}: {size} bytes; at most {MAX_VOCAB_BYTES}")
        data = path.read_bytes()
    except OSError as error:
        raise from_os_error(error, path) from None
    return build_vocabulary(_read_tokens(data, path), str(path))


def _read_tokens(data: bytes, path: Path) -> list[str]:
    if kind := _other_kind(data):
        raise DataError(f"{path}: {kind}; a vocabulary of plain tokens, one a line, is needed")
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        bad = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{bad}: not UTF-8 at byte {error.start}") from None
    if not text:
        raise DataError(f"{path}: empty; one token a line is needed")
    lines = text.removesuffix("\n").split("\n")
    if lines[0].endswith("\r"):
        lines = [line.removesuffix("\r") for line in lines]
    for number, line in enumerate(lines, 1):
        if not _is_clear(line):
            raise DataError(f"{path}:{number}: {_why_unclear(line)}")
    return lines


def _is_clear(line: str) -> bool:
    return bool(line) and line[0] not in " \r" and line[-1] not in " \r" and "\t" not in line


def _why_unclear(line: str) -> str:
    if not line:
        return "blank line; every line is a token, and leaving one out would shift the ids after it"
    shown = printable(repr(line))
    return f"{shown} holds a blank at an end or a tab; it is unclear what the token is"


def _other_kind(data: bytes) -> str | None:
    """Return what a file is that is taken for a vocabulary by mistake, else None."""
    if re.match(rb"\s*[{\[]\s*(\"|\{|\})", data[:200]):
        return "a JSON file (tokenizer.json or vocab.json)"
    if data.startswith(b"#version:"):
        return "a list of byte-pair merges"
    if b"\n\xe2\x96\x81" in data[:2000] and b"\t" in data[:2000]:
        return "a SentencePiece vocabulary with scores"
    if b"\0" in data[:2000]:
        found = "SentencePiece model" if b"<unk>" in data[:200] else "binary file"
        return f"a {found}"
    return None


def choose_tokens(
    counts: Callable[[], Iterable[tuple[str, int]]],
    pieces: bool,
    characters: bool,
    size: int | None,
    min_count: int,
) -> list[str]:
    """Return the tokens of a new vocabulary: the special ones, then the others by count.

    counts: gives (token, count) pairs anew at each call, tokens distinct. pieces: words are cut by
    longest match, so every character of a word is added, plain where it starts a word and with ##
    elsewhere; then any word over seen characters can be cut, and a frequent one stays whole.
    characters: the characters of the tokens alone. Equal counts stand in the order of their code
    points. Raises DataError for more than MAX_VOCAB_SIZE tokens without a size.
    """
    letters: Counter[str] = Counter()
    if pieces or characters:
        for token, count in counts():
            for place, character in enumerate(token):
                letters["##" + character if place and not characters else character] += count
    whole = () if characters else counts()
    # A word of one character is already there as a letter.
    others = ((t, n) for t, n in whole if not (pieces and len(t) == 1))
    candidates = (
        (token, count)
        for token, count in itertools.chain(letters.items(), others)
        if count >= min_count and token not in SPECIAL_TOKENS and _is_clear(token)
    )
    limit = min(size or MAX_VOCAB_SIZE + 1, MAX_VOCAB_SIZE + 1) - len(SPECIAL_TOKENS)
    chosen = heapq.nsmallest(limit, candidates, key=lambda pair: (-pair[1], pair[0]))
    if len(chosen) + len(SPECIAL_TOKENS) > MAX_VOCAB_SIZE:
        raise DataError(f"over {MAX_VOCAB_SIZE} tokens; give a size, or raise min_count")
    return [*SPECIAL_TOKENS, *(token for token, _ in chosen)]
