"""Parts of a labelled data set: rows of tables, or paragraphs of questions, read, cut, written."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from pipeline.errors import DataError, printable
from pipeline.sources import PARTS, Part, Source
from pipeline.strict import canonical_json, read_json
from pipeline.text.gathering import iter_plain_lines
from pipeline.text.ledger import Ledger
from pipeline.text.order import name_counter
from pipeline.text.tables import RowLedger, is_json_lines, iter_records
from pipeline.text.tagged_words import entities

MAX_COUNTED_LABELS = 1000
COLUMNS = ("id", "qid", "label", "text_a", "text_b")
_SPLIT = name_counter("split")
_BLANKS = str.maketrans("\t\n\r", "   ")


@dataclass(frozen=True)
class Item:
    """One row or paragraph. content: decides its part. identity, label: tell repeats."""

    content: bytes
    identity: bytes
    label: bytes
    value: Any


class PartFile:
    """Writes the items of one part, for a task, to `path` and keeps count of them."""

    def __init__(self, path: Path, where: str, task: str):
        self.rows = 0
        self.labels: Counter[str] = Counter()
        self._file = path.open("wb")
        self._writer = (_ParagraphWriter if task == "span" else _TableWriter)(self._file, where)
        self._labelled = task in {"classify", "rank"}
        self._contents: list[int] = []

    def write(self, item: Item) -> None:
        """Add an item."""
        self.rows += 1
        self._writer.write(item)
        self._contents.append(xxhash.xxh3_64_intdigest(item.content))
        if self._labelled and len(self.labels) < MAX_COUNTED_LABELS:
            self.labels[item.label.decode()] += 1

    def close(self) -> None:
        """Complete the file."""
        self._writer.finish()
        self._file.close()

    def count_shared(self, other: "PartFile") -> int:
        """Return how many items have a text that stands in the other part too."""
        mine, theirs = (np.array(part._contents, np.uint64) for part in (self, other))
        return int(np.count_nonzero(np.isin(mine, theirs)))


def choose_part(content: bytes, shares: Mapping[Part, float]) -> Part:
    """Return the part of a text: a function of its digest, so that equal texts never part."""
    place = xxhash.xxh3_64_intdigest(content, _SPLIT) / 2**64
    parts = [part for part in PARTS if shares.get(part)]
    for part in parts:
        place -= shares[part]
        if place < 0:
            return part
    return parts[-1]


def iter_items(
    task: str, source: Source, path: Path, bad_rows: str, ledger: Ledger
) -> Iterator[Item]:
    """Yield the items of a file for a task: paragraphs for span, rows for the others.

    What is left out is counted in `ledger`; what is yielded is not yet counted.
    """
    if task == "span":
        yield from _iter_paragraphs(path)
    else:
        yield from _iter_rows(source, path, bad_rows, ledger)


def _iter_rows(source: Source, path: Path, bad_rows: str, ledger: Ledger) -> Iterator[Item]:
    """Yield the rows of a table with a header, or of a file of plain lines."""
    if source.words == "entities":
        for lines in iter_plain_lines(source, path, bad_rows, ledger):
            for text, tags in map(entities, lines):
                yield _row({"label": tags, "text_a": text})
    elif source.label is not None:
        for lines in iter_plain_lines(source, path, bad_rows, ledger):
            # A line of wide blanks (U+3000) is a line, and no text that anyone could label.
            texts = [line for line in lines if line.strip()]
            ledger.drop("blank", len(lines) - len(texts))
            yield from (_row({"label": str(source.label), "text_a": text}) for text in texts)
    else:
        rows = RowLedger(str(path), bad_rows)
        optional = [name for name in COLUMNS if name != "text_a"]
        for _, fields in iter_records(path, ["text_a"], optional, rows, is_json_lines(path)):
            yield _row(fields)
        for reason, number in rows.skipped.items():
            ledger.drop(reason, number)


def _row(fields: Mapping[str, str]) -> Item:
    texts = [fields[name] for name in ("qid", "text_a", "text_b") if name in fields]
    # The candidates for an answer stay together with their question.
    content = fields["text_a"] if "qid" in fields else "\t".join(texts)
    return Item(
        _encode(content), _encode("\t".join(texts)), _encode(fields.get("label", "")), fields
    )


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "replace")  # JSON may escape half of a character


class _TableWriter:
    """Writes rows as TSV: a header, the columns in the order of COLUMNS, literal fields."""

    def __init__(self, file: BufferedWriter, where: str):
        self._file = file
        self._where = where
        self._names: list[str] = []

    def write(self, item: Item) -> None:
        """Add a row; all rows have the columns of the first."""
        names = [name for name in COLUMNS if name in item.value]
        if not self._names:
            self._names = names
            self._file.write(("\t".join(names) + "\n").encode())
        if names != self._names:
            raise DataError(
                f"{self._where}: a row has columns {', '.join(names)}, the first one has "
                f"{', '.join(self._names)}"
            )
        # Rows of JSON lines may hold tabs and line ends.
        fields = [item.value[name].translate(_BLANKS) for name in names]
        self._file.write(_encode("\t".join(fields) + "\n"))

    def finish(self) -> None:
        """Write the header of an empty part."""
        if not self._names:
            self._file.write(b"label\ttext_a\n")


def _iter_paragraphs(path: Path) -> Iterator[Item]:
    """Yield the paragraphs of a SQuAD-style JSON file, each with the article that it is from."""
    value = read_json(path)
    try:
        for number, article in enumerate(value["data"]):
            about = {key: item for key, item in article.items() if key != "paragraphs"}
            for paragraph in article["paragraphs"]:
                context = _encode(paragraph["context"])
                identity = canonical_json(paragraph).encode()
                yield Item(context, identity, b"", (str(path), number, about, paragraph))
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: not in the form data, paragraphs, context ({printable(error)})"
        ) from None


class _ParagraphWriter:
    """Writes paragraphs as SQuAD-style JSON, those of one article together."""

    def __init__(self, file: BufferedWriter, where: str):
        self._file = file
        self._articles: list[dict[str, Any]] = []
        self._last: tuple[str, int] | None = None

    def write(self, item: Item) -> None:
        """Add a paragraph."""
        path, number, about, paragraph = item.value
        if (path, number) != self._last:
            self._last = (path, number)
            self._articles.append({**about, "paragraphs": []})
        self._articles[-1]["paragraphs"].append(paragraph)

    def finish(self) -> None:
        """Write the file."""
        text = json.dumps({"data": self._articles}, ensure_ascii=False, allow_nan=False)
        self._file.write(_encode(text + "\n"))
