"""Questions about passages: SQuAD-style files, tokens that know their characters, windows."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np

from pipeline.errors import DataError, printable
from pipeline.strict import read_json
from pipeline.text.rows import Ragged
from pipeline.text.tables import Gold, RowLedger, iter_records, open_regular

IDEOGRAPHS = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f"
# What no tokenizer of single characters or of word pieces joins: an ideograph, a run of other
# letters and digits, a symbol.
UNIT = re.compile(rf"[{IDEOGRAPHS}]|[^\W{IDEOGRAPHS}]+|[^\w\s]")


class Answer(NamedTuple):
    """A gold answer; start is None where it does not stand at the offset that the file states."""

    text: str
    start: int | None


@dataclass(frozen=True)
class Question:
    """A question about a passage. answers is None where the file has none."""

    place: str
    id: str
    question: str
    context: str
    answers: tuple[Answer, ...] | None = None

    @property
    def content(self) -> str:
        """Return what makes two questions the same."""
        return f"{self.question}\t{self.context}"

    @property
    def texts(self) -> tuple[str, ...]:
        """Return question and passage by themselves, as they may stand in a corpus."""
        return self.question, self.context

    @property
    def located(self) -> Answer | None:
        """Return the first answer that stands at its offset, which is the one to train on."""
        return next((a for a in self.answers or () if a.start is not None), None)


class Encoder(Protocol):
    """What is needed of a tokenizer."""

    def encode(self, texts: Sequence[str]) -> Ragged:
        """Return the ids of each text."""
        ...

    def tokens(self, text: str) -> list[str]:
        """Return the tokens of a text."""
        ...


def iter_questions(
    source: Path | BinaryIO, ledger: RowLedger, gold: Gold, json_lines: bool
) -> Iterator[Question]:
    """Yield the questions of a SQuAD-style JSON file (`.json`), or unlabelled ones of a table.

    A table (TSV, JSON lines) has the columns question, context and perhaps id. An answer that does
    not stand at its offset is refused, or with policy skip kept for scoring and counted.
    """
    if isinstance(source, Path) and source.suffix == ".json":
        with open_regular(source):
            yield from _iter_squad(read_json(source), ledger, gold)
        ledger.close()
        return
    if gold == "required":
        raise DataError(f"{ledger.where}: answers stand in a SQuAD-style .json file; this is none")
    for line, fields in iter_records(source, ("question", "context"), ("id",), ledger, json_lines):
        blank = [name for name in ("question", "context") if not fields[name].strip()]
        if blank:
            ledger.refuse(line, "empty text", f"{blank[0]} is empty; expected text")
            continue
        if "id" in fields:
            ledger.claim_id(fields["id"], line)
        name = fields.get("id", str(line))
        yield Question(str(line), name, fields["question"], fields["context"])


def _iter_squad(value: Any, ledger: RowLedger, gold: Gold) -> Iterator[Question]:
    if not isinstance(value, Mapping) or "data" not in value:
        raise DataError(f"{ledger.where}: no key data at the top; expected SQuAD-style JSON")
    for a, article in enumerate(_list(value, "data", ledger.where)):
        place = f"{ledger.where}:data[{a}]"
        for p, paragraph in enumerate(_list(article, "paragraphs", place)):
            inner = f"data[{a}].paragraphs[{p}]"
            for q, item in enumerate(_list(paragraph, "qas", f"{ledger.where}:{inner}")):
                ledger.rows += 1
                question = _question(item, paragraph, f"{inner}.qas[{q}]", ledger, gold)
                if question is not None:
                    yield question


def _list(value: Any, key: str, where: str) -> list[Any]:
    found = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(found, list):
        raise DataError(f"{where}: no list {key}; expected SQuAD-style JSON")
    return found


def _question(
    item: Any, paragraph: Mapping[str, Any], place: str, ledger: RowLedger, gold: Gold
) -> Question | None:
    """Return a checked question, or None after telling the ledger what is wrong."""
    fields = {**item, "context": paragraph.get("context")} if isinstance(item, Mapping) else {}
    for name in ("question", "context"):
        if not isinstance(fields.get(name), str) or not fields[name].strip():
            ledger.refuse(place, "wrong fields", f"{name} is missing or empty; expected text")
            return None
    name = str(fields.get("id", place))
    ledger.claim_id(name, place)
    answers = () if gold == "ignored" else _answers(fields, place, name, ledger)
    if answers is None:
        return None
    if gold == "required" and not answers:
        ledger.refuse(place, "no answer", f"question {printable(name)!r} has no answer")
        return None
    return Question(place, name, fields["question"], fields["context"], answers or None)


def _answers(
    fields: Mapping[str, Any], place: str, name: str, ledger: RowLedger
) -> tuple[Answer, ...] | None:
    """Return the answers; None: one of them is malformed and was refused."""
    answers = []
    given = fields.get("answers", [])
    for item in given if isinstance(given, list) else [None]:
        text, start = (
            (item.get("text"), item.get("answer_start"))
            if isinstance(item, Mapping)
            else (None,) * 2
        )
        if not isinstance(text, str) or not text.strip() or type(start) is not int:
            ledger.refuse(place, "wrong fields", "an answer needs text and a whole answer_start")
            return None
        found = fields["context"][start : start + len(text)] if start >= 0 else ""
        if found == text:
            answers.append(Answer(text, start))
            continue
        ledger.note("answers not at their offset")
        if ledger.policy == "fail":
            ledger.refuse(
                place,
                "answer not at its offset",
                f"question {printable(name)!r}: answer {printable(text, 30)!r} does not stand at "
                f"answer_start {start}, found {printable(found, 30)!r}",
            )
            return None
        answers.append(Answer(text, None))
    return tuple(answers)


class TokenSpans(NamedTuple):
    """Tokens of a text with the characters they stand for."""

    ids: np.ndarray
    """(T,) int64."""
    begins: np.ndarray
    """(T,) int64, the first character of each token."""
    ends: np.ndarray
    """(T,) int64, one past the last character."""


def token_spans(
    texts: Sequence[str], tokenizer: Encoder, unit: re.Pattern[str]
) -> list[TokenSpans]:
    """Return the tokens of each text with their characters; a text given twice is cut once.

    unit: what is cut out of a text and tokenized by itself. Pieces of a unit whose lengths do not
    add up to the unit's (an unknown word, letters taken apart) each stand for the whole unit.
    """
    distinct = list(dict.fromkeys(texts))
    found = [[(m.start(), m[0]) for m in unit.finditer(text)] for text in distinct]
    units = list({name: None for spans in found for _, name in spans})
    pieces = _unit_pieces(units, tokenizer)
    result = {}
    for text, spans in zip(distinct, found, strict=True):
        table = [
            (token, start + begin, start + end)
            for start, name in spans
            for token, begin, end in pieces[name]
        ]
        columns = np.array(table, np.int64).reshape(-1, 3)
        result[text] = TokenSpans(columns[:, 0], columns[:, 1], columns[:, 2])
    return [result[text] for text in texts]


def _unit_pieces(units: Sequence[str], tokenizer: Encoder) -> dict[str, list[tuple[int, int, int]]]:
    """Return unit -> (id, first character, end) of its pieces."""
    encoded = tokenizer.encode(units)
    values, offsets = encoded.values.tolist(), encoded.offsets.tolist()
    pieces = {}
    for number, unit in enumerate(units):
        ids = values[offsets[number] : offsets[number + 1]]
        sizes = [len(unit)]
        if len(ids) > 1:
            sizes = [len(token.removeprefix("##")) for token in tokenizer.tokens(unit)]
        if sum(sizes) == len(unit) and len(sizes) == len(ids):
            ends = np.cumsum(sizes).tolist()
            pieces[unit] = [
                (token, end - size, end) for token, size, end in zip(ids, sizes, ends, strict=True)
            ]
        else:
            pieces[unit] = [(token, 0, len(unit)) for token in ids]
    return pieces


def answer_tokens(spans: TokenSpans, answer: Answer) -> tuple[int, int] | None:
    """Return (first, last) token of a located answer, None where no token covers it."""
    assert answer.start is not None
    end = answer.start + len(answer.text)
    covered = np.flatnonzero((spans.ends > answer.start) & (spans.begins < end))
    return (int(covered[0]), int(covered[-1])) if len(covered) else None


def window_starts(count: int, room: int, stride: int) -> list[int]:
    """Return where windows of `room` tokens begin so that they cover `count` tokens."""
    last = max(0, count - room)
    return [*range(0, last, stride), last]
