"""Units of a corpus from one of its sources: what fetch compares, drops and writes."""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.sources import CorpusSpec, Source
from pipeline.text.corpus import Corpus
from pipeline.text.fields import iter_fields, labelled_problem, parallel_problem
from pipeline.text.ledger import Ledger
from pipeline.text.tables import RowLedger, iter_records
from pipeline.text.tagged_words import PLAIN

_ROWS_AT_ONCE = 10_000
# Required and optional columns of a data set's part, by the format of the corpus.
_COLUMNS = {
    "lines": (("text_a",), ("text_b",)),
    "labelled": (("label", "text_a"), ("text_b",)),
    "parallel": (("text_a", "text_b"), ()),
}
# Behind a full stop and the quotes or brackets that close after it.
_STOP = re.compile(r"(?<=[。！？!?；;…])(?![。！？!?；;…”’」』）)])|(?<=[。！？!?；;…][”’」』）)])")


def iter_units(
    spec: CorpusSpec, source: Source, path: Path, ledger: Ledger
) -> Iterator[list[bytes]]:
    r"""Yield lists of units: lines, or documents with \n between sentences, none of them empty.

    Counts lines, bytes and what is dropped in `ledger`; what is yielded is not yet counted.
    """
    if source.dataset:
        yield from _from_dataset(spec, source, path, ledger)
    elif spec.format == "documents" and not spec.sentences:
        corpus = Corpus([path], documents=True, bad_rows=spec.bad_rows)
        for block in corpus.iter_blocks(0, 1, ledger):
            documents = (part.strip(b"\n") for part in block.raw.split(b"\n\n"))
            yield [document for document in documents if document]
    elif spec.format in {"labelled", "parallel"} and source.label is None:
        problem = labelled_problem if spec.format == "labelled" else parallel_problem
        skip = spec.bad_rows == "skip"
        for block in Corpus([path], bad_rows=spec.bad_rows).iter_blocks(0, 1, ledger):
            fields = iter_fields(block, problem, skip, ledger)
            yield ["\t".join(line).encode() for _, line in fields]
    else:
        for lines in iter_plain_lines(source, path, spec.bad_rows, ledger):
            if spec.format == "labelled":
                lines = [f"{source.label}\t{line}" for line in lines]
            elif spec.sentences:
                lines = ["\n".join(cut_sentences(line, spec.sentences)) for line in lines]
            yield [line.encode() for line in lines]


def iter_plain_lines(
    source: Source, path: Path, bad_rows: str, ledger: Ledger
) -> Iterator[list[str]]:
    """Yield lists of the lines of a file of plain texts; blank ones are counted and left out.

    Of tagged words those lines keep the words alone, where the source says so.
    """
    for block in Corpus([path], bad_rows=bad_rows).iter_blocks(0, 1, ledger):
        lines = block.text.split("\n")[:-1]
        full = [line for line in lines if line.strip(" \t")]
        ledger.count("blank_lines", len(lines) - len(full))
        yield list(map(PLAIN[source.words], full)) if source.words in PLAIN else full


def cut_sentences(text: str, where: str) -> list[str]:
    """Return the sentences of a text, cut in the middle (as the reference did) or behind stops."""
    if where == "middle":
        parts = [text[: len(text) // 2], text[len(text) // 2 :]]
    else:
        parts = _STOP.split(text)
    return [part.strip() for part in parts if part.strip()]


def _from_dataset(
    spec: CorpusSpec, source: Source, path: Path, ledger: Ledger
) -> Iterator[list[bytes]]:
    """Yield the texts of a part of a data set."""
    required, optional = _COLUMNS.get(spec.format, _COLUMNS["lines"])
    records = iter_records(path, required, optional, RowLedger(str(path)))
    while some := list(islice(records, _ROWS_AT_ONCE)):
        ledger.count("lines", len(some))
        yield [_unit(spec, fields).encode() for _, fields in some]


def _unit(spec: CorpusSpec, fields: dict[str, str]) -> str:
    texts = [fields[name] for name in ("text_a", "text_b") if name in fields]
    if spec.format == "labelled":
        return "\t".join([fields["label"], *texts])
    if spec.format == "parallel":
        return "\t".join(texts)
    if spec.format == "lines":
        return texts[0]
    if not spec.sentences and len(texts) == 1:
        raise ConfigError(
            "format documents from a data set of single texts: give sentences: middle or stops"
        )
    cut = [cut_sentences(text, spec.sentences) if spec.sentences else [text] for text in texts]
    return "\n".join(sentence for sentences in cut for sentence in sentences)
