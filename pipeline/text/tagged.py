"""Sentences cut into tokens with a tag for each: records of a file, and rows of pieces."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from pipeline.text.inputs import keep_first
from pipeline.text.passages import UNIT
from pipeline.text.rows import Ragged
from pipeline.text.tables import Gold, RowLedger, gold_columns, iter_records

OUTSIDE = "O"


class Encoder(Protocol):
    """What is needed of a tokenizer."""

    def encode(self, texts: Sequence[str]) -> Ragged:
        """Return the ids of each text."""
        ...


@dataclass(frozen=True)
class TaggedSentence:
    """A sentence cut into tokens, with a tag for each where the file has them."""

    line: int
    id: str
    tokens: tuple[str, ...]
    tags: tuple[str, ...] | None = None

    @property
    def content(self) -> str:
        """Return what makes two sentences the same."""
        return " ".join(self.tokens)

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the sentence as it may stand in a corpus: running text, or words with spaces."""
        return "".join(self.tokens), self.content


def iter_tagged_sentences(
    source: Path | BinaryIO, ledger: RowLedger, gold: Gold, json_lines: bool
) -> Iterator[TaggedSentence]:
    """Yield a sentence for each good row: columns text_a and label, lists separated by spaces.

    Where gold is ignored a row may have running text in a column `text` instead: ideographs and
    symbols then are tokens by themselves, other letters and digits are cut at blanks.
    """
    columns = gold_columns(gold, [] if gold == "ignored" else ["text_a"], ["id"])
    if gold == "ignored":
        columns = (), ("text_a", "text", "id")
    for line, fields in iter_records(source, *columns, ledger, json_lines):
        tokens = fields["text_a"].split(" ") if "text_a" in fields else _cut(fields.get("text", ""))
        tags = fields["label"].split(" ") if "label" in fields else None
        if problem := _row_problem(tokens, tags):
            ledger.refuse(line, *problem)
            continue
        if "id" in fields:
            ledger.claim_id(fields["id"], line)
        name = fields.get("id", str(line))
        yield TaggedSentence(line, name, tuple(tokens), tuple(tags) if tags else None)


def _cut(text: str) -> list[str]:
    return UNIT.findall(text) or [""]


def _row_problem(tokens: list[str], tags: list[str] | None) -> tuple[str, str] | None:
    """Return (reason, message) if a row cannot be used."""
    if not any(token.strip() for token in tokens):
        return "empty text", "text_a is empty; expected tokens separated by spaces"
    if "" in tokens:
        return "empty token", "two spaces stand together in text_a; expected one between tokens"
    if tags is not None and len(tags) != len(tokens):
        return (
            "tokens without tags",
            f"{len(tokens)} tokens and {len(tags)} tags; expected one tag for each token",
        )
    return None


def loose_insides(example: TaggedSentence) -> int:
    """Return how many I- tags follow neither a B- nor an I- tag of their type."""
    previous = OUTSIDE
    loose = 0
    for tag in example.tags or ():
        if tag.startswith("I-") and previous not in {tag, "B" + tag[1:], "M" + tag[1:]}:
            loose += 1
        previous = tag
    return loose


def cut_tokens(
    examples: Sequence[TaggedSentence], tokenizer: Encoder, unknown: int, limit: int
) -> Ragged:
    """Return the ids of each token, all sentences' tokens in a row; at least 1, at most `limit`.

    A token of which the tokenizer leaves nothing is one unknown piece.
    """
    numbers: dict[str, int] = {}
    places = [numbers.setdefault(t, len(numbers)) for example in examples for t in example.tokens]
    distinct = tokenizer.encode(list(numbers))
    empty = distinct.lengths == 0
    values = np.insert(distinct.values, distinct.offsets[:-1][empty], unknown)
    offsets = distinct.offsets + np.concatenate([[0], np.cumsum(empty)])
    pieces = Ragged(values, offsets).take(np.array(places, np.int64))
    return keep_first(pieces, np.minimum(pieces.lengths, limit))


def token_windows(sizes: np.ndarray, room: int) -> list[tuple[int, int]]:
    """Return (first, end) tokens of consecutive windows of at most `room` pieces.

    sizes: pieces of each token, each at most `room`.
    """
    ends = np.cumsum(sizes)
    windows = []
    start = 0
    while start < len(sizes):
        limit = room + (int(ends[start - 1]) if start else 0)
        end = int(np.searchsorted(ends, limit, side="right"))
        windows.append((start, end))
        start = end
    return windows


def slices(values: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Ragged:
    """Return the lists values[start:end]."""
    offsets = np.concatenate([[0], np.cumsum(ends - starts)])
    shift = np.repeat(starts - offsets[:-1], ends - starts)
    return Ragged(values[shift + np.arange(len(shift))], offsets)
