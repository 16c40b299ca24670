"""Ranking of candidate answers: each question's pairs are scored, the positive ones should lead.

Composes classify: a pair is trained as a classification into 0 and 1; only the scoring differs.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.errors import DataError, printable
from pipeline.registry import TASKS
from pipeline.tasks import Scores
from pipeline.tasks.classify import ClassifyTask, LabelPrediction, ratio
from pipeline.text.examples import TextExample, iter_text_examples
from pipeline.text.tables import Gold, RowLedger, gold_columns

POSITIVE = "1"


@TASKS.register("rank")
class RankTask(ClassifyTask):
    """Candidates text_b for a question text_a, grouped by qid. Metrics: MRR, MAP, top-1.

    Source: the 2020 reference's DBQA. Differs: one rank for each question, ties count against the
    positive candidate, rows of a question need not stand together.
    """

    class Config(ClassifyTask.Config):
        """Options of the task: those of classify."""

    @classmethod
    def iter_examples(
        cls, source: Path | BinaryIO, ledger: RowLedger, gold: Gold, json_lines: bool = False
    ) -> Iterator[TextExample]:
        """Yield a candidate for each row: columns qid, text_a, text_b, label (0 or 1)."""
        columns = gold_columns(gold, ["qid", "text_a", "text_b"], ["id"])
        return iter_text_examples(source, ledger, *columns, json_lines)

    @classmethod
    def count_labels(cls, examples: Sequence[TextExample], where: str) -> dict[str, int]:
        """Return {0: ..., 1: ...}. Raises DataError for other labels or if one is missing."""
        counts = super().count_labels(examples, where)
        if strange := [label for label in counts if label not in {"0", POSITIVE}]:
            line = next(e.line for e in examples if e.label == strange[0])
            raise DataError(
                f"{where}:{line}: label {printable(strange[0])!r}; a candidate is 1 (answers the "
                "question) or 0"
            )
        return counts

    def fold_key(self, example: TextExample) -> str:
        """Return the question: its candidates are ranked together."""
        return example.group or ""

    def score(
        self, examples: Sequence[TextExample], predictions: Sequence[LabelPrediction]
    ) -> Scores:
        """Return means over the questions that have a positive candidate; others are counted."""
        questions: dict[str, list[tuple[float, int]]] = {}
        unlabelled = 0
        for example, prediction in zip(examples, predictions, strict=True):
            if example.label is None:
                unlabelled += 1
                continue
            candidates = questions.setdefault(example.group or "", [])
            candidates.append((self._relevance(prediction), int(example.label == POSITIVE)))
        answered = [c for c in questions.values() if any(positive for _, positive in c)]
        ranks = [positive_ranks(candidates) for candidates in answered]
        count = len(ranks)
        rows = sum(map(len, questions.values()))
        lost = rows - sum(map(len, answered))
        accuracy = super().score(examples, predictions).metrics["accuracy"]
        return Scores(
            {
                "mrr": ratio(sum(1 / places[0] for places in ranks), count),
                "map": ratio(sum(map(average_precision, ranks)), count),
                "top_1": ratio(sum(places[0] == 1 for places in ranks), count),
                "accuracy": accuracy,
            },
            scored=rows - lost,
            unscored={
                reason: number
                for reason, number in (
                    ("no label", unlabelled),
                    ("question without a positive candidate", lost),
                )
                if number
            },
            details={
                "questions": {
                    "all": len(questions),
                    "scored": count,
                    "without a positive candidate": len(questions) - count,
                }
            },
        )

    def _relevance(self, prediction: LabelPrediction) -> float:
        return float(prediction.probabilities[self.settings.labels.index(POSITIVE)])

    def describe(self, example: TextExample, prediction: LabelPrediction) -> dict[str, Any]:
        """Return question, candidate, gold, and the probability that the candidate answers."""
        fields = super().describe(example, prediction)
        del fields["probabilities"]
        return {
            "qid": example.group,
            **fields,
            "probability": round(self._relevance(prediction), 6),
        }


def positive_ranks(candidates: Sequence[tuple[float, int]]) -> list[int]:
    """Return the ranks from 1 of the positive candidates (score, 0 or 1), best score first.

    Among equal scores the negative candidates come first, so that a constant gains nothing.
    """
    ordered = sorted(candidates, key=lambda candidate: (-candidate[0], candidate[1]))
    return [place for place, (_, positive) in enumerate(ordered, 1) if positive]


def average_precision(ranks: Sequence[int]) -> float:
    """Return the mean of the precisions at the positive candidates' ranks."""
    return sum(number / rank for number, rank in enumerate(ranks, 1)) / len(ranks)
