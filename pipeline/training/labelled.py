"""Labelled data ready for a task: examples read by it, their rows, and the books of both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from pipeline.artifacts import digest_file
from pipeline.errors import DataError
from pipeline.tasks import Task, Tokenizer
from pipeline.text.rows import Rows
from pipeline.text.tables import Gold, RowLedger, is_json_lines


@dataclass(frozen=True)
class LabelledSet:
    """Examples and their rows, with the books of the file they come from."""

    examples: Sequence[Any]
    rows: Rows
    ledger: RowLedger
    digest: str


@dataclass(frozen=True)
class ExampleFile:
    """The examples of a file as it stands, before a task turns them into rows."""

    path: Path
    examples: list[Any]
    ledger: RowLedger
    digest: str

    def first_by_digest(self, count: int | None) -> list[Any]:
        """Return the `count` examples with the smallest digests of their texts, in file order."""
        if count is None or count >= len(self.examples):
            return self.examples
        digests = content_digests(self.examples)
        chosen = np.argsort(digests.view(np.uint64), kind="stable")[:count]
        return [self.examples[place] for place in np.sort(chosen).tolist()]


def read_examples(task_class: type[Task], path: Path, policy: str, gold: Gold) -> ExampleFile:
    """Return the examples of a file. Raises DataError by the policy, and if there are none."""
    ledger = RowLedger(str(path), policy)
    examples = list(task_class.iter_examples(path, ledger, gold, is_json_lines(path)))
    ledger.close()
    if not examples:
        skipped = ", ".join(f"{count} {reason}" for reason, count in ledger.skipped.items())
        reason = f" ({skipped})" if skipped else ""
        raise DataError(f"{path}: no rows left of {ledger.rows}{reason}; expected at least one")
    return ExampleFile(path, examples, ledger, digest_file(path))


def first_groups(
    examples: Sequence[Any], key: Callable[[Any], str], count: int | None
) -> Sequence[Any]:
    """Return the examples whose keys have the smallest digests, in file order.

    Those of equal keys stay together, so that there may be somewhat more than `count`.
    """
    if count is None or count >= len(examples):
        return examples
    digests = [xxhash.xxh3_64_intdigest(key(example).encode()) for example in examples]
    last = sorted(digests)[count - 1]
    return [example for example, digest in zip(examples, digests, strict=True) if digest <= last]


def encode_examples(
    task: Task, file: ExampleFile, examples: Sequence[Any], tokenizer: Tokenizer
) -> LabelledSet:
    """Return examples of a file as rows of the task; gold that it cannot give is refused."""
    kept = task.accept(examples, file.ledger)
    file.ledger.close()
    if not kept:
        raise DataError(f"{file.path}: no rows left of {file.ledger.rows}; expected at least one")
    rows = task.encode(kept, tokenizer, file.ledger)
    return LabelledSet(kept, rows, file.ledger, file.digest)


def encode_set(
    task: Task, examples: Sequence[Any], whole: LabelledSet, tokenizer: Tokenizer
) -> LabelledSet:
    """Return some examples of a set as a set of their own; the books stay those of the whole."""
    rows = task.encode(examples, tokenizer, RowLedger(whole.ledger.where))
    return LabelledSet(examples, rows, whole.ledger, whole.digest)


def content_digests(examples: Sequence[Any]) -> np.ndarray:
    """Return (N,) int64 digests of the examples' texts, labels left out."""
    digests = [xxhash.xxh3_64_intdigest(example.content.encode()) for example in examples]
    return np.array(digests, np.uint64).view(np.int64)
