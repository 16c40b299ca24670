"""The data sets of bench_finetune, and the same first rows of them for both sides.

Only rows that both sides can read are taken: the reference drops others silently, ours refuses.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.artifacts import digest_file

PARTS = ("train", "test", "dev")


@dataclass(frozen=True)
class Case:
    """A data set: what it is to us, where its parts stand, and the reference's script for it."""

    task: dict[str, Any]
    files: tuple[str, str, str]
    """Of train, test and dev; a file named twice gives its next rows to the later part."""
    script: str
    settings: dict[str, Any] = field(default_factory=dict)
    """Over those of the command line."""
    options: tuple[str, ...] = ()
    """More options of the script."""
    divisors: tuple[int, int] = (1, 1)
    """What the numbers of rows of train and of the other parts are divided by."""


CLASSIFY: dict[str, Any] = {"name": "classify"}
ROWS = ("train.tsv", "test.tsv", "dev.tsv")
CASES = {
    "douban_book_review": Case(CLASSIFY, ROWS, "run_classifier.py"),
    "ocnli": Case(CLASSIFY, ("train.tsv", "dev.tsv", "dev.tsv"), "run_classifier.py"),
    "afqmc": Case(CLASSIFY, ("train.tsv", "dev.tsv", "dev.tsv"), "run_classifier.py"),
    "msra_ner": Case({"name": "tag"}, ROWS, "run_ner.py"),
    "cmrc2018_dbqa": Case(
        {"name": "rank"}, ROWS, "run_classifier.py", options=("--mean_reciprocal_rank",)
    ),
    # Its windows are four times as long; characters, because the script counts offsets so.
    "cmrc2018": Case(
        {"name": "span", "stride": 128},
        ("trial.json", "dev.json", "trial.json"),
        "run_mrc.py",
        settings={"seq_length": 512, "batch_size": 8},
        options=("--doc_stride", "128", "--tokenizer", "char"),
        divisors=(5, 10),
    ),
}


class Cut(NamedTuple):
    """The rows of a case as files of their own."""

    train: Path
    test: Path
    dev: Path

    def digests(self) -> dict[str, str]:
        """Return part -> SHA-256."""
        return {part: digest_file(getattr(self, part), "sha256") for part in PARTS}


def counts(case: Case, rows: int, test_rows: int) -> tuple[int, int, int]:
    """Return the numbers of rows of train, test and dev; dev is a quarter of test."""
    train, test = rows // case.divisors[0], test_rows // case.divisors[1]
    return max(2, train), max(2, test), max(2, test // 4)


def cut(case: Case, source: Path, folder: Path, rows: int, test_rows: int) -> Cut:
    """Write the first rows of each part below `folder`; candidates of a question stay together."""
    folder.mkdir(parents=True, exist_ok=True)
    streams: dict[str, Iterator[Any]] = {}
    written = []
    for part, name, count in zip(PARTS, case.files, counts(case, rows, test_rows), strict=True):
        path = source / name
        is_json = path.suffix == ".json"
        if name not in streams:
            streams[name] = _questions(path) if is_json else _table_rows(path)
        written.append(folder / f"{part}{path.suffix}")
        if is_json:
            _write_squad(written[-1], islice(streams[name], count))
        elif case.task["name"] == "rank":
            _write_table(written[-1], _whole_questions(streams[name], count))
        else:
            _write_table(written[-1], islice(streams[name], count))
    return Cut(*written)


def _table_rows(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows that have all fields, none of them blank, and as many tags as tokens."""
    with path.open(encoding="utf-8", newline="\n") as file:
        names = next(file).rstrip("\n").split("\t")
        for line in file:
            fields = line.rstrip("\n").split("\t")
            if len(fields) != len(names) or not all(f.strip() for f in fields) or "\r" in line:
                continue
            row = dict(zip(names, fields, strict=True))
            tags = row["label"].split(" ")
            if len(tags) == 1 or len(tags) == len(row["text_a"].split(" ")):
                yield row


def _whole_questions(rows: Iterator[dict[str, str]], count: int) -> Iterator[dict[str, str]]:
    """Yield the candidates of the first questions with an answer, at most `count` of them."""
    taken = 0
    for _, group in groupby(rows, key=lambda row: row["qid"]):
        candidates = list(group)
        if not any(row["label"] == "1" for row in candidates):
            continue  # the reference shifts the gold of all later ones (D-20)
        taken += len(candidates)
        if taken > count and taken > len(candidates):
            return
        yield from candidates


def _write_table(path: Path, rows: Iterable[dict[str, str]]) -> None:
    lines: list[str] = []
    for row in rows:
        if not lines:
            lines.append("\t".join(row))
        lines.append("\t".join(row.values()))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def _questions(path: Path) -> Iterator[dict[str, Any]]:
    """Yield {context, qas: [one]} of the questions all of whose answers stand at their offset."""
    value = json.loads(path.read_text(encoding="utf-8"))
    for article in value["data"]:
        for paragraph in article["paragraphs"]:
            context = paragraph["context"]
            for question in paragraph["qas"]:
                if question["answers"] and all(
                    context.startswith(answer["text"], answer["answer_start"])
                    for answer in question["answers"]
                ):
                    yield {"context": context, "qas": [question]}


def _write_squad(path: Path, questions: Iterable[dict[str, Any]]) -> None:
    value = {"data": [{"paragraphs": list(questions)}]}
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def first_seen_labels(train: Path) -> list[str]:
    """Return the tags of a file in the order in which the reference numbers them, from 1."""
    tags = (tag for row in _table_rows(train) for tag in row["label"].split(" "))
    return list(dict.fromkeys(tags))
