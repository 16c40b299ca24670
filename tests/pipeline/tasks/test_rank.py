"""Ranking, beside plain formulas and scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from pipeline.errors import DataError
from pipeline.tasks import TaskSettings
from pipeline.tasks.classify import LabelPrediction
from pipeline.tasks.rank import RankTask, average_precision, positive_ranks
from pipeline.text.examples import TextExample
from pipeline.text.vocabulary import TokenIds

TASK = RankTask(RankTask.Config(), TaskSettings(16, TokenIds(9, 0, 1, 2, 3, 4), ("0", "1"), (1, 1)))


def score(*rows):
    """rows: (question, label, probability of being an answer)."""
    examples = [
        TextExample(n, str(n), "q", "a", label, qid) for n, (qid, label, _) in enumerate(rows)
    ]
    found = [LabelPrediction("01"[share > 0.5], np.array([1 - share, share])) for *_, share in rows]
    return TASK.score(examples, found)


def test_questions_need_not_stand_together():
    scores = score(
        ("a", "0", 0.9), ("b", "1", 0.8), ("a", "1", 0.4), ("b", "0", 0.1), ("a", "0", 0.2)
    )
    assert scores.metrics == {"mrr": 0.75, "map": 0.75, "top_1": 0.5, "accuracy": 0.6}
    assert scores.scored == 5


def test_questions_without_a_positive_candidate_are_counted_and_shift_nothing():
    scores = score(("a", "0", 0.9), ("a", "0", 0.8), ("b", "0", 0.7), ("b", "1", 0.6))
    assert scores.metrics["mrr"] == 0.5
    assert (scores.scored, scores.unscored) == (2, {"question without a positive candidate": 2})
    assert scores.details["questions"] == {
        "all": 2,
        "scored": 1,
        "without a positive candidate": 1,
    }
    nothing = score(("a", "0", 0.9))
    assert (nothing.metrics["mrr"], nothing.scored) == (0.0, 0)


def test_a_constant_score_gains_nothing():
    scores = score(("a", "1", 0.5), ("a", "0", 0.5), ("a", "0", 0.5))
    assert scores.metrics["mrr"] == pytest.approx(1 / 3)


def test_several_positive_candidates():
    assert positive_ranks([(0.9, 1), (0.8, 0), (0.7, 1), (0.6, 0)]) == [1, 3]
    assert average_precision([1, 3]) == pytest.approx((1 + 2 / 3) / 2)


CANDIDATES = st.lists(
    st.tuples(st.floats(0, 1, allow_subnormal=False), st.integers(0, 1)),
    min_size=1,
    max_size=12,
    unique_by=lambda candidate: candidate[0],
).filter(lambda candidates: any(positive for _, positive in candidates))


@given(CANDIDATES)
def test_ranks_equal_the_plain_formula_and_scikit_learn(candidates):
    ranks = positive_ranks(candidates)
    best = max(score for score, positive in candidates if positive)
    assert 1 / ranks[0] == 1 / (1 + sum(score > best for score, _ in candidates))
    scores, gold = zip(*candidates, strict=True)
    assert math.isclose(average_precision(ranks), average_precision_score(gold, scores))


def test_labels_are_0_and_1():
    examples = [TextExample(n, str(n), "q", "a", label, "1") for n, label in enumerate("012", 2)]
    with pytest.raises(DataError, match=r"train.tsv:4: label '2'; a candidate is 1"):
        RankTask.count_labels(examples, "train.tsv")
    assert RankTask.count_labels(examples[:2], "train.tsv") == {"0": 1, "1": 1}
