"""How much text there is for recipes, from the best that is at hand: counted, measured, assumed."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import xxhash

from pipeline.artifacts import read_json_artifact
from pipeline.catalog import Catalog
from pipeline.errors import PipelineError
from pipeline.sources import DEFAULT_MIRROR, PARTS, Source
from pipeline.text.locate import Places, locate

# Measured on Chinese reviews: a token is a character but for Latin words and numbers.
TOKENS_PER_CHARACTER = 0.97
# Read in places all over a file, which may have its long texts, or one label, at the beginning.
SAMPLE_BYTES, SAMPLE_PLACES = 1 << 20, 32
# Up to here text is read whole where its repeats will be dropped; a sample does not show them.
WHOLE_BYTES = 64 << 20
MAX_LENGTHS = 2000


@dataclass(frozen=True)
class TextSize:
    """How much text there is, how its rows are long, and how that is known."""

    tokens: int
    rows: int
    lengths: list[int]
    """Tokens of sample rows."""
    known_from: str

    @property
    def mean_length(self) -> float:
        """Tokens of a row."""
        return self.tokens / self.rows if self.rows else sum(self.lengths) / len(self.lengths)


class Texts:
    """Sizes of corpora and data sets, from the best that is at hand."""

    def __init__(self, catalog: Catalog, results: Path, data: Path, mirror: Path | None):
        self.catalog, self.results, self.data = catalog, results, data
        self.places = Places(mirror or DEFAULT_MIRROR, data / "datasets", data)

    def instances(self, name: str) -> TextSize:
        """Return the size of an instance set: counted, from its text, or assumed."""
        section = self.catalog.instances[name]
        manifest = self.results / "2_instances" / name / "manifest.json"
        whole = _joined([self._corpus(corpus) for corpus in section.corpora])
        if whole:
            # Rows of the other kinds are cut off, those of sentences and long lines go on.
            split = section.kind in ("lines", "sentences")
            split &= section.options().get("long_documents") != "truncate"
            whole = _cut(whole, section.seq_length, split)
        if manifest.exists():
            record = read_json_artifact(manifest)
            tokens, rows = record["tokens"], max(1, record["rows"])
            lengths = whole.lengths if whole else [max(1, tokens // rows)]
            return TextSize(tokens, rows, lengths, "counted in instances")
        if whole is None:
            return TextSize(0, 0, [section.seq_length], "text not at hand, full rows assumed")
        return whole

    def part(self, dataset: str, part: str) -> TextSize | None:
        """Return the size of a part of a data set, None where its text is not at hand."""
        for path in sorted((self.data / "datasets" / dataset).glob(f"{part}.*")):
            return _measure([path])
        section = self.catalog.datasets[dataset]
        share = section.split.shares.get(part) if section.split else None  # type: ignore[call-overload]
        file = getattr(section.files, "train" if share else part) if section.files else None
        sources = section.split.sources if section.split and share else []
        whole = self._files(sources or ([file] if file else []), section.drops_duplicates)
        if whole is None or share is None:
            return whole
        return replace(whole, tokens=round(whole.tokens * share), rows=round(whole.rows * share))

    def _corpus(self, name: str) -> TextSize | None:
        section = self.catalog.corpora[name]
        documents = section.format == "documents"
        fetched = self.data / "corpora" / f"{name}.txt"
        if fetched.exists():
            return _measure([fetched], documents=documents)
        files = [source for source in section.sources if not source.dataset]
        drop, documents = section.duplicates == "drop", documents and not section.sentences
        return _joined(
            [self.part(s.dataset, s.part or PARTS[0]) for s in section.sources if s.dataset]
            + ([self._files(files, drop, documents)] if files else [])
        )

    def _files(
        self, sources: Sequence[Source], drop: bool, documents: bool = False
    ) -> TextSize | None:
        # Nothing is downloaded for a plan.
        if any(s.url and not (s.path and self.catalog.place(s.path).exists()) for s in sources):
            return None
        try:
            paths = [locate(source, self.places).path for source in sources]
        except PipelineError:
            return None
        return _measure(paths, drop, documents)


def _joined(sizes: Sequence[TextSize | None]) -> TextSize | None:
    """Return the size of several texts together, None where one is not known."""
    known = [size for size in sizes if size]
    if not known or len(known) < len(sizes):
        return None
    tokens, rows = (sum(getattr(size, key) for size in known) for key in ("tokens", "rows"))
    lengths = [length for size in known for length in size.lengths]
    return TextSize(tokens, rows, lengths, "; ".join(dict.fromkeys(s.known_from for s in known)))


def _cut(size: TextSize, seq_length: int, split: bool) -> TextSize:
    """Return the size of text in rows of at most seq_length tokens; longer ones split or cut."""
    if split:
        lengths = [n for length in size.lengths for n in _pieces(length, seq_length)]
    else:
        lengths = [min(length, seq_length) for length in size.lengths]
    shares = sum(lengths) / sum(size.lengths), len(lengths) / len(size.lengths)
    tokens, rows = (round(n * s) for n, s in zip((size.tokens, size.rows), shares, strict=True))
    return TextSize(tokens, rows, lengths, size.known_from)


def _pieces(length: int, most: int) -> list[int]:
    whole, rest = divmod(length, most)
    return [most] * whole + [rest] * bool(rest)


def _measure(paths: Sequence[Path], drop: bool = False, documents: bool = False) -> TextSize | None:
    """Return the size of text files: from a sample, or read whole where repeats are dropped.

    documents: rows are not lines, but groups of lines between blank ones.
    """
    size = sum(path.stat().st_size for path in paths)
    whole = drop and size <= WHOLE_BYTES
    known_from = "estimated from text"
    if drop and not whole:
        known_from += f" (over {WHOLE_BYTES >> 20} MB: taken to have no repeats)"
    seen: set[int] = set()
    tokens = rows = 0.0
    lengths: list[int] = []
    row_end = b"\n\n" if documents else b"\n"
    for path in paths:
        text = path.read_bytes() if whole else _sample(path, row_end)
        scale = path.stat().st_size / max(1, len(text))
        counts = list(_row_tokens(text.split(row_end), seen if whole else None))
        tokens += sum(counts) * scale
        rows += len(counts) * scale
        lengths += counts[:: math.ceil(len(counts) / MAX_LENGTHS) or 1]
    return TextSize(round(tokens), round(rows), lengths, known_from) if lengths else None


def _sample(path: Path, row_end: bytes) -> bytes:
    """Return whole rows from places all over a file, the file itself if it is small."""
    size = path.stat().st_size
    if size <= SAMPLE_BYTES:
        return path.read_bytes()
    found = []
    with path.open("rb") as file:
        for place in range(SAMPLE_PLACES):
            file.seek(place * (size // SAMPLE_PLACES))
            text = file.read(SAMPLE_BYTES // SAMPLE_PLACES)
            begin = text.find(row_end) + len(row_end) if place else 0
            found.append(text[begin : text.rfind(row_end) + len(row_end)])
    return b"".join(found)


def _row_tokens(rows: Sequence[bytes], seen: set[int] | None) -> Iterator[int]:
    """Yield the tokens of each row that is not blank, nor among those seen before."""
    for row in rows:
        if not row.strip():
            continue
        if seen is not None:
            known = len(seen)
            seen.add(xxhash.xxh3_64_intdigest(row))
            if len(seen) == known:
                continue
        yield max(1, round(len(row.strip(b"\n").decode("utf-8", "ignore")) * TOKENS_PER_CHARACTER))
