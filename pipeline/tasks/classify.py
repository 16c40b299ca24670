"""Classification of a text or of a pair of texts, any number of labels."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pipeline.errors import ConfigError, DataError, printable
from pipeline.layers import Dropout, TargetOutput, pool
from pipeline.registry import TASKS, ComponentConfig
from pipeline.tasks import Scores, Task, TaskSettings, Tokenizer
from pipeline.text.examples import TextExample, iter_text_examples
from pipeline.text.inputs import build_inputs, number_rows
from pipeline.text.rows import Rows
from pipeline.text.tables import Gold, RowLedger, gold_columns

MAX_LABELS = 10_000
SHOWN_LABELS = 5
WHOLE_NUMBER = re.compile(r"-?\d+")


class LabelPrediction(NamedTuple):
    """The most probable label and the probabilities of all, in the order of the labels."""

    label: str
    probabilities: np.ndarray


class TextHead(nn.Module):
    """Pool, dropout, linear, tanh, linear.

    Source: the 2020 reference's classifier. Differs: pools each row's own tokens only, unless
    read_padding.
    """

    def __init__(
        self,
        hidden_size: int,
        settings: TaskSettings,
        dropout: float,
        weights: Sequence[float] | None,
    ):
        super().__init__()
        self.pooling = settings.pooling
        self.read_padding = settings.reference == "uer-2020"
        self.dropout = Dropout(dropout)
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.output = nn.Linear(hidden_size, len(settings.labels))
        # Of the loss only: a loaded model needs no weights to predict.
        weight = None if weights is None else torch.tensor(weights)
        self.register_buffer("label_weights", weight, persistent=False)
        self.label_weights: Tensor | None

    def forward(
        self, hidden: Tensor, batch: dict[str, Tensor]
    ) -> tuple[Tensor, TargetOutput | None]:
        """Return logits (B, L), and the summed cross-entropy and accuracy where `labels` is there.

        hidden: (B, T, D); batch: lengths (B,), labels (B,) int64.
        """
        pooled = pool(hidden, batch["lengths"], self.pooling, self.read_padding)
        logits = self.output(torch.tanh(self.dense(self.dropout(pooled)))).float()
        if "labels" not in batch:
            return logits, None
        labels = batch["labels"]
        loss = F.cross_entropy(logits, labels, self.label_weights, reduction="sum")
        correct = (logits.argmax(1) == labels).sum()
        return logits, TargetOutput(loss, {"accuracy": (correct, labels.new_tensor(len(labels)))})


@TASKS.register("classify")
class ClassifyTask(Task):
    """One label for each text or pair. Metrics: accuracy, macro precision, recall and F1."""

    class Config(ComponentConfig):
        """Options of the task."""

        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
        """Share of the pooled vector dropped in training."""
        class_weights: Literal["none", "balanced"] | dict[str, Annotated[float, Field(gt=0)]] = (
            "none"
        )
        """Factors on the loss of each label; balanced: rows / (labels * rows of the label)."""
        long_texts: Literal["truncate", "fail"] = "truncate"
        """What a text of more than seq_length tokens does: it is cut and counted, or an error."""

    config: Config
    pools = True

    @classmethod
    def iter_examples(
        cls, source: Path | BinaryIO, ledger: RowLedger, gold: Gold, json_lines: bool = False
    ) -> Iterator[TextExample]:
        """Yield a text or a pair for each row: columns text_a, label, perhaps text_b and id."""
        columns = gold_columns(gold, ["text_a"], ["text_b", "id"])
        return iter_text_examples(source, ledger, *columns, json_lines)

    @classmethod
    def count_labels(cls, examples: Sequence[TextExample], where: str) -> dict[str, int]:
        """Return label -> count, whole numbers in numeric order, other names by code point.

        Raises DataError for one label only, too many, or negative numbers.
        """
        counts = Counter(example.label for example in examples if example.label is not None)
        if len(counts) < 2:
            only = ", ".join(printable(name) for name in counts)
            raise DataError(f"{where}: only one class in training, {only!r}; expected two or more")
        if len(counts) > MAX_LABELS:
            raise DataError(
                f"{where}: {len(counts)} distinct labels; at most {MAX_LABELS}. Is a text taken "
                "for the column `label`?"
            )
        if all(WHOLE_NUMBER.fullmatch(name) for name in counts):
            order = sorted(counts, key=lambda name: (int(name), name))
            if negative := [name for name in order if name.startswith("-")]:
                line = next(e.line for e in examples if e.label == negative[0])
                raise DataError(
                    f"{where}:{line}: label {negative[0]} is negative, which often means unknown; "
                    "a label map needs names or numbers from 0"
                )
        else:
            order = sorted(counts)
        return {name: counts[name] for name in order}

    def accept(self, examples: Sequence[TextExample], ledger: RowLedger) -> list[TextExample]:
        """Return the examples without a label or with one of the model's.

        Raises ConfigError (78) if no label at all is the model's, or if pairs meet a model of
        single texts; a single foreign label follows the ledger's policy (65).
        """
        known = set(self.settings.labels)
        found = {example.label for example in examples if example.label is not None}
        if found and not found & known:
            theirs, ours = (", ".join(sorted(names)[:5]) for names in (found, known))
            raise ConfigError(
                f"{ledger.where}: its labels are not the model's label map; found "
                f"{printable(theirs)}, the model has {printable(ours)}"
            )
        kinds = ("single texts", "pairs (text_a and text_b)")
        if examples and (pairs := examples[0].text_b is not None) != self.settings.pairs:
            raise ConfigError(
                f"{ledger.where}: found {kinds[pairs]}, the model was trained on {kinds[not pairs]}"
            )
        return [e for e in examples if self._is_known(e, known, ledger)]

    def _is_known(self, example: TextExample, known: set[str], ledger: RowLedger) -> bool:
        if example.label is None or example.label in known:
            return True
        ledger.refuse(
            example.line,
            "label unseen in training",
            f"label {printable(example.label)!r} does not appear in training; the label map has "
            f"{printable(', '.join(self.settings.labels))}",
        )
        return False

    def encode(
        self, examples: Sequence[TextExample], tokenizer: Tokenizer, ledger: RowLedger
    ) -> Rows:
        """Return one row for each example: token_ids, first_length of pairs, label (-1: none)."""
        settings = self.settings
        first = tokenizer.encode([example.text_a for example in examples])
        second = None
        if settings.pairs:
            second = tokenizer.encode([example.text_b or "" for example in examples])
        columns, cut = build_inputs(
            first, second, settings.token_ids, settings.seq_length, settings.reference
        )
        if cut.any() and self.config.long_texts == "fail":
            line = examples[int(np.argmax(cut))].line
            raise DataError(
                f"{ledger.where}:{line}: {int(cut.sum())} texts are longer than seq_length "
                f"{settings.seq_length}, this is the first; raise it or set long_texts: truncate"
            )
        ledger.note("truncated", int(cut.sum()))
        places = {label: place for place, label in enumerate(settings.labels)}
        labels = [-1 if e.label is None else places[e.label] for e in examples]
        columns["label"] = np.array(labels, np.int64)
        columns["example"] = np.arange(len(examples), dtype=np.int64)
        return number_rows(columns)

    def build_head(self, hidden_size: int) -> nn.Module:
        """Return the head; its loss weights labels as configured."""
        return TextHead(hidden_size, self.settings, self.config.dropout, self._weights())

    def _weights(self) -> list[float] | None:
        labels, counts = self.settings.labels, self.settings.label_counts
        wanted = self.config.class_weights
        if isinstance(wanted, dict):
            if strange := sorted(set(wanted) ^ set(labels)):
                raise ConfigError(
                    f"task.class_weights: {printable(strange[0])!r} is not both a label and a key; "
                    f"the labels are {printable(', '.join(labels))}"
                )
            return [wanted[label] for label in labels]
        if wanted == "none":
            return None
        return [sum(counts) / (len(counts) * max(1, count)) for count in counts]

    def collate(self, rows: Rows, batch: dict[str, Tensor]) -> int:
        """Add labels (B,) if every row has one; the units are rows."""
        labels = rows.column("label")
        if (labels >= 0).all():
            batch["labels"] = torch.from_numpy(labels)
        return len(rows)

    def decode(self, head: nn.Module, logits: Tensor, batch: dict[str, Tensor]) -> list[np.ndarray]:
        """Return the probabilities (L,) float64 of each row."""
        return list(torch.softmax(logits.double(), 1).cpu().numpy())

    def predict(
        self, examples: Sequence[TextExample], rows: Rows, outcomes: Sequence[np.ndarray]
    ) -> list[LabelPrediction]:
        """Return the most probable label of each example; of equals the first."""
        labels = self.settings.labels
        return [LabelPrediction(labels[int(p.argmax())], p) for p in outcomes]

    def score(
        self, examples: Sequence[TextExample], predictions: Sequence[LabelPrediction]
    ) -> Scores:
        """Return accuracy, macro P/R/F1 over the label map, confusion; 0/0 counts as 0."""
        pairs = [
            (example.label, prediction.label)
            for example, prediction in zip(examples, predictions, strict=True)
            if example.label is not None
        ]
        missing = len(examples) - len(pairs)
        confusion = confusion_matrix(pairs, self.settings.labels)
        per_label = label_scores(confusion, self.settings.labels)
        metrics = {"accuracy": ratio(int(confusion.trace()), len(pairs))}
        for name in ("precision", "recall", "f1"):
            values = [scores[name] for scores in per_label.values()]
            metrics[f"macro_{name}"] = ratio(sum(values), len(values))
        return Scores(
            metrics,
            scored=len(pairs),
            unscored={"no label": missing} if missing else {},
            details={
                "labels": list(self.settings.labels),
                "confusion": confusion.tolist(),
                "per_label": per_label,
            },
        )

    def describe(self, example: TextExample, prediction: LabelPrediction) -> dict[str, Any]:
        """Return the texts, gold and predicted label, and the probabilities of the best labels."""
        labels, shares = self.settings.labels, prediction.probabilities
        best = np.argsort(-shares, kind="stable")[:SHOWN_LABELS].tolist()
        return {
            "id": example.id,
            "text_a": example.text_a,
            **({} if example.text_b is None else {"text_b": example.text_b}),
            **({} if example.label is None else {"gold": example.label}),
            "predicted": prediction.label,
            "probability": round(float(shares.max()), 6),
            "probabilities": {labels[place]: round(float(shares[place]), 6) for place in best},
        }


def ratio(part: float, whole: float) -> float:
    """Return part / whole, 0 where whole is 0."""
    return float(part / whole) if whole else 0.0


def confusion_matrix(pairs: Sequence[tuple[str, str]], labels: Sequence[str]) -> np.ndarray:
    """Return (L, L) int64 counts of (gold, predicted): rows gold, columns predicted."""
    places = {label: place for place, label in enumerate(labels)}
    matrix = np.zeros((len(labels), len(labels)), np.int64)
    for gold, predicted in pairs:
        matrix[places[gold], places[predicted]] += 1
    return matrix


def label_scores(confusion: np.ndarray, labels: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return label -> precision, recall, f1, support; 0/0 counts as 0."""
    scores: dict[str, dict[str, float]] = {}
    for place, label in enumerate(labels):
        hits = int(confusion[place, place])
        predicted, support = int(confusion[:, place].sum()), int(confusion[place].sum())
        scores[label] = {
            "precision": ratio(hits, predicted),
            "recall": ratio(hits, support),
            "f1": ratio(2 * hits, predicted + support),
            "support": support,
        }
    return scores
