"""Downstream tasks: what a fine-tuned model does with a row.

A task is one class in one file. Fine-tuning, evaluation and prediction call it in this order:

    examples = list(task_class.iter_examples(source, ledger, gold))
    labels   = task_class.count_labels(examples, where)       training data only
    task     = task_class(config, TaskSettings(...))
    examples = task.accept(examples, ledger)                   gold labels fit the map
    rows     = task.encode(examples, tokenizer, ledger)        ids, in memory, never padded
    rows     = task.training_rows(rows)                        when training
    head     = task.build_head(hidden_size)                    `head.` in the state dict
    count    = task.collate(rows, batch)                       adds gold as tensors
    logits, output = head(hidden, batch)                       output: loss sum, (correct, total)
    outcomes = task.decode(head, logits, batch)                one for each row of the batch
    predictions = task.predict(examples, rows, outcomes)       one for each example
    scores   = task.score(examples, predictions)
    fields   = task.describe(example, prediction)              a line for a person

An example may be several rows (windows): the column `example` says whose a row is.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol

from torch import Tensor, nn

from pipeline.layers import Pooling
from pipeline.registry import ComponentConfig
from pipeline.text.rows import Ragged, Rows
from pipeline.text.tables import Gold, RowLedger
from pipeline.text.vocabulary import TokenIds


class Tokenizer(Protocol):
    """What a task needs of a tokenizer."""

    def encode(self, texts: Sequence[str]) -> Ragged:
        """Return the ids of each text, without special tokens."""
        ...

    def tokens(self, text: str) -> list[str]:
        """Return the tokens of one text."""
        ...


@dataclass(frozen=True)
class TaskSettings:
    """What a task is besides its own options; a fine-tuned model's metadata hold all of it."""

    seq_length: int
    """Longest row in tokens, special ones included."""
    token_ids: TokenIds
    labels: tuple[str, ...] = ()
    """Names in the order of the head's outputs."""
    label_counts: tuple[int, ...] = ()
    """How often each label stands in the training data."""
    pairs: bool = False
    """Whether an example is two texts."""
    pooling: Pooling = "first"
    """Which hidden states speak for a whole text."""
    reference: str = "none"
    """uer-2020 computes what the 2020 reference computed."""


@dataclass(frozen=True)
class Scores:
    """The scores of some predictions."""

    metrics: dict[str, float]
    """Name -> fraction of one; the first one is the task's main metric."""
    scored: int
    """Examples that the metrics are about."""
    unscored: dict[str, int] = field(default_factory=dict)
    """Reason -> examples left out of the metrics."""
    details: dict[str, Any] = field(default_factory=dict)
    """Tables as JSON values: labels, confusion, per_label, odd things counted."""


class Task(ABC):
    """One kind of downstream task. Subclasses are registered and have a nested Config."""

    Config: ClassVar[type[ComponentConfig]]
    name: ClassVar[str]
    pools: ClassVar[bool] = False
    """Whether the head looks at one pooled vector for a row."""

    def __init__(self, config: Any, settings: TaskSettings):
        self.config = config
        self.settings = settings

    @classmethod
    @abstractmethod
    def iter_examples(
        cls, source: Path | BinaryIO, ledger: RowLedger, gold: Gold, json_lines: bool = False
    ) -> Iterator[Any]:
        """Yield the examples of a file in its order; what is malformed goes to the ledger.

        Raises DataError (65) by the ledger's policy.
        """

    @classmethod
    def count_labels(cls, examples: Sequence[Any], where: str) -> dict[str, int]:
        """Return label -> count in the order of the head's outputs; {}: the task has none.

        Raises DataError if no head could be trained on these labels.
        """
        return {}

    def accept(self, examples: Sequence[Any], ledger: RowLedger) -> list[Any]:
        """Return the examples whose gold answers the model can give; others go to the ledger."""
        return list(examples)

    def fold_key(self, example: Any) -> str:
        """Return a text; examples with equal ones stay in one fold of a cross-validation."""
        return example.content

    @abstractmethod
    def encode(self, examples: Sequence[Any], tokenizer: Tokenizer, ledger: RowLedger) -> Rows:
        """Return rows with token_ids, `example` (B,) and what collate needs; notes what was cut."""

    def training_rows(self, rows: Rows) -> Rows:
        """Return the rows of `encode` to train on."""
        return rows

    @abstractmethod
    def build_head(self, hidden_size: int) -> nn.Module:
        """Return a module: (hidden (B, T, D), batch) -> (logits, TargetOutput or None).

        None stands for a batch without gold. Weights: torch's defaults from its global generator.
        """

    @abstractmethod
    def collate(self, rows: Rows, batch: dict[str, Tensor]) -> int:
        """Add gold and positions to a batch (CPU tensors); return the number of units."""

    @abstractmethod
    def decode(self, head: nn.Module, logits: Tensor, batch: dict[str, Tensor]) -> list[Any]:
        """Return what the logits say about each row of the batch, as plain or NumPy values."""

    @abstractmethod
    def predict(self, examples: Sequence[Any], rows: Rows, outcomes: Sequence[Any]) -> list[Any]:
        """Return one prediction for each example; outcomes stand in the order of rows."""

    @abstractmethod
    def score(self, examples: Sequence[Any], predictions: Sequence[Any]) -> Scores:
        """Return the scores; examples without gold are counted as unscored. No example: zeros."""

    @abstractmethod
    def describe(self, example: Any, prediction: Any) -> dict[str, Any]:
        """Return a prediction beside its text, for a person: column -> value."""
