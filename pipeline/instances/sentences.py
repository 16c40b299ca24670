"""Sentences: pairs of text segments, the second one following or from elsewhere; mlm and nsp."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
import xxhash
from pydantic import Field

from pipeline.errors import ConfigError
from pipeline.instances import BuildSettings, InstanceKind, Table, choose_held_out
from pipeline.registry import INSTANCES, ComponentConfig
from pipeline.spec import CorpusFormat, Share
from pipeline.text.corpus import Block
from pipeline.text.inputs import cut_pairs, join_pieces
from pipeline.text.ledger import Ledger
from pipeline.text.manifest import ColumnType
from pipeline.text.order import name_counter, uniform
from pipeline.text.rows import Column, Ragged, concatenate_columns

# With fewer documents than this in a block, partners come from the head of the corpus as well.
MIN_PARTNERS = 100
_HEAD_BYTES = 256 << 10
_STREAM = name_counter("sentence")
# Columns of the draws of a chunk.
_SHORT, _LENGTH, _SPLIT, _NEXT, _PARTNER, _START, _FRONT_A, _FRONT_B = range(8)


@INSTANCES.register("sentences")
class SentencesInstances(InstanceKind):
    """Rows [CLS] A [SEP] B [SEP] with `first_length`, tokens up to the first [SEP], `is_random`.

    A document is cut into chunks of about seq_length tokens, a chunk into A and B; for half of
    them, and those of one sentence, B comes from another document of the same block instead, and
    what it replaces starts the next chunk. Draws depend on the seed and the document's digest.
    Source: google-research/bert create_pretraining_data.py; the reference's bert instances.
    Differs: masks are drawn in training, so dup_factor is 1 unless new pairs are wanted; the last
    document of a range is not lost; how much is cut off a front is drawn at once, uniformly.
    """

    class Config(ComponentConfig):
        """Options of the kind."""

        short_seq_prob: Share = 0.1
        """Share of documents whose chunks get a random shorter length."""
        dup_factor: Annotated[int, Field(ge=1, le=100)] = 1
        """Passes over each document, each with its own chunks and pairs."""

    documents: ClassVar[bool] = True
    formats: ClassVar[tuple[CorpusFormat, ...]] = ("documents",)
    columns: ClassVar[dict[str, ColumnType]] = {
        "token_ids": "ids",
        "first_length": "uint16",
        "is_random": "uint8",
    }
    block_bytes: ClassVar[int] = 2 << 20
    config: Config

    def __init__(self, config: Config, settings: BuildSettings):
        super().__init__(config, settings)
        self._room = settings.seq_length - 3
        if self._room < 2:
            raise ConfigError(
                f"seq_length {settings.seq_length}: a pair takes at least 5, three special tokens "
                "and one of each text"
            )

    @cached_property
    def _head(self) -> str:
        """The first documents of the corpus."""
        blocks = self.settings.corpus.iter_blocks(0, 1, Ledger(), _HEAD_BYTES)
        return next((block.text for block in blocks), "")

    def build(self, block: Block, ledger: Ledger) -> Table:
        """Return the pairs of a block of documents."""
        own = _cut_documents(block.text, self.settings)
        pool = own
        if len(own.contents) < MIN_PARTNERS:
            pool = _cut_documents(f"{block.text}\n{self._head}", self.settings)
        tables, documents = [], []
        for number in range(self.config.dup_factor):
            pairs = np.array(list(self._pairs(pool, len(own.contents), number)), np.int64)
            pairs = pairs.reshape(-1, len(_Pair._fields))
            tables.append(self._rows(pool, pairs, number))
            documents.append(pairs[:, 0])
        _count(own, documents[0], ledger)
        ledger.count("blank_lines", block.raw.count(b"\n") - own.lines)
        columns = concatenate_columns(tables)
        return Table(columns, np.concatenate(documents), lambda: own.contents)

    def problem(self, ledger: Ledger) -> str | None:
        """Return why the whole set is of no use: no document has a sentence that follows one."""
        counts = ledger.counts
        single = counts["one_sentence_documents"]
        if single < counts["documents_out"] + counts["held_out"]:
            return None
        return (
            f"all {single} documents have one sentence; target nsp needs sentences that follow one "
            "another: a sentence a line, a blank line between documents"
        )

    def _draws(self, pool: "_Documents", own: int, number: int) -> np.ndarray:
        """Return draws in [0, 1), (sentences, 8), for chunks that begin at each sentence."""
        sizes = np.diff(pool.first[: own + 1])
        document = np.repeat(np.arange(own), sizes)
        place = np.arange(len(document)) - pool.first[document]
        keys = (self.settings.seed, _STREAM, pool.digests[document][:, None], number)
        return uniform(*keys, place[:, None], np.arange(8)[None, :])

    def _pairs(self, pool: "_Documents", own: int, number: int) -> Iterator["_Pair"]:
        """Yield the pairs of the first `own` documents in one pass."""
        draws = self._draws(pool, own, number)
        offsets, firsts = pool.sentences.offsets.tolist(), pool.first.tolist()
        for document in range(own):
            lonely = pool.lonely(document)
            begin, stop = firsts[document], firsts[document + 1]
            target = self._room
            if begin < stop and draws[begin, _SHORT] < self.config.short_seq_prob:
                target = 2 + int(draws[begin, _LENGTH] * (self._room - 1))
            while begin < stop:
                draw = draws[begin].tolist()
                end = _fill(offsets, begin, stop, target)
                split = begin + 1 + int(draw[_SPLIT] * (end - begin - 1))
                follows = end - begin > 1 and (lonely or draw[_NEXT] >= 0.5)
                if follows:
                    yield _Pair(document, begin, begin, split, split, end, 0)
                elif not lonely:
                    other = pool.partner(document, draw[_PARTNER])
                    first, last = firsts[other], firsts[other + 1]
                    first += int(draw[_START] * (last - first))
                    wanted = target - (offsets[split] - offsets[begin])
                    last = _fill(offsets, first, last, wanted)
                    yield _Pair(document, begin, begin, split, first, last, 1)
                begin = end if follows else split

    def _rows(self, pool: "_Documents", pairs: np.ndarray, number: int) -> dict[str, Column]:
        """Return the columns of the rows of pairs, cut to length."""
        document, chunk, *bounds, is_random = pairs.T
        a, a_end, b, b_end = (pool.sentences.offsets[bound] for bound in bounds)
        kept_a, kept_b = cut_pairs(a_end - a, b_end - b, self._room)
        draws = self._draws(pool, int(document.max(initial=-1)) + 1, number)[chunk]
        a = a + (draws[:, _FRONT_A] * (a_end - a - kept_a + 1)).astype(np.int64)
        b = b + (draws[:, _FRONT_B] * (b_end - b - kept_b + 1)).astype(np.int64)
        ids = self.settings.token_ids
        pieces = [_slice(pool.sentences.values, *part) for part in ((a, kept_a), (b, kept_b))]
        rows = join_pieces([ids.cls, pieces[0], ids.sep, pieces[1], ids.sep])
        return {"token_ids": rows, "first_length": kept_a + 2, "is_random": is_random}


class _Pair(NamedTuple):
    """A pair, as sentence numbers: A is a to a_end, B is b to b_end, cut from `chunk` on."""

    document: int
    chunk: int
    a: int
    a_end: int
    b: int
    b_end: int
    is_random: int


@dataclass(frozen=True)
class _Documents:
    """Documents as sentences of ids; document d has the sentences first[d] to first[d + 1]."""

    sentences: Ragged
    first: np.ndarray
    digests: np.ndarray
    contents: list[bytes]
    held_out: np.ndarray
    lines: int

    @cached_property
    def _usable(self) -> np.ndarray:
        return np.diff(self.first) > 0

    @cached_property
    def _too_few(self) -> tuple[bool, bool]:
        """Whether documents (in training, held out) have no other to be paired with."""
        sides = (self._usable & ~self.held_out, self._usable)
        few = [len(np.unique(self.digests[side])) < 2 for side in sides]
        return few[0], few[1]

    def lonely(self, document: int) -> bool:
        """Return whether there is no other document to be paired with."""
        return self._too_few[int(self.held_out[document])]

    def partner(self, document: int, draw: float) -> int:
        """Return another document with other content, the first one from a random place on.

        What is held out must not enter training as a partner.
        """
        size = len(self.contents)
        other = int(draw * size)
        while (
            self.digests[other] == self.digests[document]
            or not self._usable[other]
            or (self.held_out[other] and not self.held_out[document])
        ):
            other = (other + 1) % size
        return other


def _cut_documents(text: str, settings: BuildSettings) -> _Documents:
    parts = [part for part in (part.strip("\n") for part in text.split("\n\n")) if part]
    counts = [part.count("\n") + 1 for part in parts]
    sentences = settings.tokenizer.encode_lines("\n".join([*parts, ""]) if parts else "")
    full = np.flatnonzero(sentences.lengths)
    owners = np.repeat(np.arange(len(parts)), counts)[full]
    contents = [part.encode() for part in parts]
    return _Documents(
        Ragged(sentences.values, np.append(sentences.offsets[full], sentences.offsets[-1])),
        np.searchsorted(owners, np.arange(len(parts) + 1)),
        np.fromiter(map(xxhash.xxh3_64_intdigest, contents), np.uint64, len(contents)),
        contents,
        choose_held_out(contents, settings.held_out),
        sum(counts),
    )


def _count(own: _Documents, documents: np.ndarray, ledger: Ledger) -> None:
    """Count documents and sentences of a block, and those from which no row was made."""
    sizes = np.diff(own.first)
    used = np.bincount(documents, minlength=len(sizes)) > 0
    lost = np.flatnonzero((sizes > 0) & ~used)
    ledger.count("documents_in", int(used.sum()))
    ledger.drop("no tokens", int(np.count_nonzero(sizes == 0)))
    ledger.drop("no other document", len(lost))
    ledger.count("one_sentence_documents", int(np.count_nonzero(sizes == 1)))
    left = int(sizes.sum())
    lost_sentences = int(sizes[lost].sum())
    ledger.count("sentences_in", left - lost_sentences)
    ledger.count("sentences_out", left - lost_sentences)
    ledger.drop("no other document", lost_sentences, unit="sentences")
    ledger.drop("no tokens", own.lines - left, unit="sentences")


def _fill(offsets: list[int], begin: int, stop: int, target: int) -> int:
    """Return the end of the shortest run of sentences from `begin` that holds `target` tokens."""
    return min(bisect_left(offsets, offsets[begin] + target, begin + 1, stop), stop)


def _slice(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> Ragged:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    shift = np.repeat(starts - offsets[:-1], lengths)
    return Ragged(values[shift + np.arange(offsets[-1])], offsets)
