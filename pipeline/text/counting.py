"""How often tokens occur in corpora, in bounded memory, the same for any number of processes.

Each worker counts its byte ranges and spills sorted counts to files; merging them is a sum, so
order and number of workers do not matter.
"""

import heapq
import itertools
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from pipeline.errors import from_os_error
from pipeline.text.codepoints import (
    RUN,
    SPACE,
    BertCutting,
    CodePointTable,
    code_points,
    find_runs,
)
from pipeline.text.corpus import Corpus
from pipeline.text.ledger import Ledger
from pipeline.text.tokenizers import (
    MAX_WORD_LENGTH,
    cut_at_spaces,
    cut_words,
    load_segmenter,
    word_table,
)
from pipeline.text.workers import iter_parallel

# Distinct tokens that a worker holds before it spills them: some 50 MB of short strings.
MAX_DISTINCT = 300_000
MAX_OPEN_FILES = 128

_LABEL = re.compile(r"^[^\t\n]*\t", re.MULTILINE)


class Counting(Protocol):
    """Counts the tokens of blocks of lines; those over MAX_WORD_LENGTH are left out."""

    @property
    def distinct(self) -> int:
        """How many distinct strings are held."""

    def add(self, text: str) -> None:
        """Count the tokens of lines, each ending in \\n."""

    def take(self) -> Counter[str]:
        """Return the counts since the last call, and start anew."""


class _CharacterCounts:
    """Counts values of code points: tokens that are single characters."""

    def __init__(self) -> None:
        self._counts = np.zeros(0, np.int64)

    def add(self, values: np.ndarray) -> None:
        counts = np.bincount(values[values >= 0])
        if len(counts) > len(self._counts):
            counts[: len(self._counts)] += self._counts
            self._counts = counts
        else:
            self._counts[: len(counts)] += counts

    def take(self) -> Counter[str]:
        counts, self._counts = self._counts, np.zeros(0, np.int64)
        return Counter({chr(code): int(counts[code]) for code in np.flatnonzero(counts).tolist()})


class _BertCounting:
    def __init__(self, lowercase: bool):
        self._cutting = BertCutting(lowercase)
        self._table = CodePointTable(self._values)
        self._characters = _CharacterCounts()
        self._runs: Counter[str] = Counter()
        self._words: Counter[str] = Counter()

    def _values(self, characters: list[str]) -> list[int]:
        singles = self._cutting.singles(characters)
        return [single if isinstance(single, int) else ord(single) for single in singles]

    @property
    def distinct(self) -> int:
        return len(self._runs) + len(self._words)

    def add(self, text: str) -> None:
        values = self._table.look_up(code_points(text))
        self._characters.add(values)
        runs = find_runs(text, values == RUN).words
        self._runs.update(run for run in runs if len(run) <= MAX_WORD_LENGTH)
        for run in runs:
            if len(run) > MAX_WORD_LENGTH:
                self._add_words(run, 1)

    def _add_words(self, run: str, number: int) -> None:
        for word in self._cutting.words(run):
            if len(word) <= MAX_WORD_LENGTH:
                self._words[word] += number

    def take(self) -> Counter[str]:
        for run, number in self._runs.items():
            self._add_words(run, number)
        counts = self._words + self._characters.take()
        self._runs, self._words = Counter(), Counter()
        return counts


class _CharCounting:
    def __init__(self) -> None:
        self._table = CodePointTable(
            lambda characters: [SPACE if char.isspace() else ord(char) for char in characters]
        )
        self._characters = _CharacterCounts()

    @property
    def distinct(self) -> int:
        return 0

    def add(self, text: str) -> None:
        self._characters.add(self._table.look_up(code_points(text)))

    def take(self) -> Counter[str]:
        return self._characters.take()


class _WordCounting:
    def __init__(self, cut: Callable[[str], Iterable[str]]):
        self._cut = cut
        self._words: Counter[str] = Counter()

    @property
    def distinct(self) -> int:
        return len(self._words)

    def add(self, text: str) -> None:
        self._words.update(word for word in self._cut(text) if len(word) <= MAX_WORD_LENGTH)

    def take(self) -> Counter[str]:
        words, self._words = self._words, Counter()
        return words


def build_counting(tokenizer: str, lowercase: bool) -> Counting:
    """Return what counts the tokens of the tokenizer bert, char, space or word.

    For bert these are whole words, ideographs and punctuation marks, before they are cut to pieces.
    """
    if tokenizer == "bert":
        return _BertCounting(lowercase)
    if tokenizer == "char":
        return _CharCounting()
    if tokenizer == "space":
        table = word_table()
        return _WordCounting(lambda text: cut_at_spaces(text, table)[0].words)
    cut = load_segmenter()
    return _WordCounting(
        lambda text: itertools.chain.from_iterable(
            cut_words(line, cut) for line in text.split("\n")
        )
    )


@dataclass(frozen=True)
class CountingJob:
    """What a worker needs to count a part of the corpora."""

    corpus: Corpus
    labelled: frozenset[Path]
    tokenizer: str
    lowercase: bool
    scratch: Path
    parts: int


def count_tokens(job: CountingJob, processes: int) -> tuple[Path, Ledger]:
    """Return a file of all tokens with their counts, sorted by code points, and the ledger.

    The file stands in `job.scratch`, as `token<TAB>count` lines.
    """
    ledger = Ledger()
    spills: list[Path] = []
    for files, part in iter_parallel(_Part(job), range(job.parts), processes):
        spills += files
        ledger.add(part)
    return _merge_files(spills, job.scratch / "tokens"), ledger


class _Part:
    """Counts one part; a class, so that it travels to a worker."""

    def __init__(self, job: CountingJob):
        self.job = job

    def __call__(self, part: int) -> tuple[list[Path], Ledger]:
        try:
            return self._count(part)
        except OSError as error:
            raise from_os_error(error, self.job.scratch) from None

    def _count(self, part: int) -> tuple[list[Path], Ledger]:
        job, ledger, spills = self.job, Ledger(), list[Path]()
        counting = build_counting(job.tokenizer, job.lowercase)
        for block in job.corpus.iter_blocks(part, job.parts, ledger):
            text = _LABEL.sub("", block.text) if block.path in job.labelled else block.text
            counting.add(text)
            _count_documents(block.raw, ledger)
            if counting.distinct > MAX_DISTINCT:
                spills.append(job.scratch / f"part_{part}_{len(spills)}")
                _write_counts(spills[-1], counting.take())
        spills.append(job.scratch / f"part_{part}_{len(spills)}")
        _write_counts(spills[-1], counting.take())
        return spills, ledger


def _count_documents(raw: bytes, ledger: Ledger) -> None:
    """Count lines with and without anything but blanks."""
    codes = np.frombuffer(raw, np.uint8)
    ends = np.flatnonzero(codes == ord("\n"))
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)
    # Only a line that ends in a blank, or is empty, can be blank.
    likely = np.flatnonzero((starts == ends) | np.isin(codes[ends - 1], [ord(" "), ord("\t")]))
    lines = zip(starts[likely].tolist(), ends[likely].tolist(), strict=True)
    blank = sum(not raw[start:end].strip(b" \t") for start, end in lines)
    ledger.count("blank_lines", blank)
    for way in ("documents_in", "documents_out"):
        ledger.count(way, len(ends) - blank)


def _write_counts(path: Path, counts: Counter[str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{token}\t{counts[token]}\n" for token in sorted(counts))


def read_counts(path: Path) -> Generator[tuple[str, int]]:
    """Yield (token, count) of a file of counts, sorted by code points."""
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            token, _, count = line.rpartition("\t")
            yield token, int(count)


def _merge_files(paths: Sequence[Path], out: Path) -> Path:
    """Write the sums of sorted count files to `out`, a bounded number of files open at a time."""
    while len(paths) > MAX_OPEN_FILES:
        groups = [paths[i : i + MAX_OPEN_FILES] for i in range(0, len(paths), MAX_OPEN_FILES)]
        paths = [
            _merge_files(group, out.with_name(f"{out.name}_{len(paths)}_{number}"))
            for number, group in enumerate(groups)
        ]
    with ExitStack() as stack, out.open("w", encoding="utf-8", newline="\n") as file:
        streams = [stack.enter_context(closing(read_counts(path))) for path in paths]
        merged = heapq.merge(*streams)
        for token, group in itertools.groupby(merged, key=lambda pair: pair[0]):
            file.write(f"{token}\t{sum(count for _, count in group)}\n")
    return out
