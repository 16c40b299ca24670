"""Machine reading: windows, the best span, and scores that keep every question."""

import math

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.tasks import TaskSettings
from pipeline.tasks.span import SpanPrediction, SpanTask
from pipeline.text.passages import Answer, Question
from pipeline.text.tables import RowLedger
from pipeline.text.tokenizers import WordTokenizer, build_tokenizer
from pipeline.text.vocabulary import build_vocabulary
from pipeline.training.batching import make_batch

CONTEXT = "张三生于北京，后来搬到上海住了十年。"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = build_vocabulary([*SPECIAL, *sorted({*CONTEXT, *"哪里"})])
TOKENIZER = build_tokenizer("bert", VOCABULARY)


def make(seq_length=16, reference="none", **config):
    settings = TaskSettings(seq_length, VOCABULARY.token_ids, reference=reference)
    return SpanTask(SpanTask.Config(**config), settings)


def ask(*answers, question="生于哪里", name="q"):
    gold = tuple(Answer(text, start) for text, start in answers) if answers else None
    return Question("data[0]", name, question, CONTEXT, gold)


def words(rows, row):
    ids = rows.ragged("token_ids")
    return [VOCABULARY.tokens[i] for i in ids.values[ids.offsets[row] : ids.offsets[row + 1]]]


def test_windows_overlap_and_know_whether_they_hold_the_answer():
    ledger = RowLedger("x")
    rows = make(stride=5).encode([ask(("北京", 4))], TOKENIZER, ledger)
    assert "".join(words(rows, 0)) == "[CLS]生于哪里[SEP]张三生于北京，后来[SEP]"
    assert "".join(words(rows, 1)) == "[CLS]生于哪里[SEP]京，后来搬到上海住[SEP]"
    assert len(rows) == 3
    assert rows.column("starts").tolist() == [10, 0, 0]
    assert rows.column("ends_at").tolist() == [11, 0, 0]
    assert rows.column("first_length").tolist() == [6, 6, 6]
    assert ledger.noted == {}


def test_unknown_answers_are_not_trained_on():
    task = make()
    gold, unlabelled, mislaid = ask(("北京", 4)), ask(), ask(("北京", None))
    rows = task.encode([gold, unlabelled, mislaid], TOKENIZER, RowLedger("x"))
    assert set(task.training_rows(rows).column("example").tolist()) == {0}
    assert (rows.column("starts")[rows.column("example") > 0] == -1).all()


def test_the_reference_trains_on_windows_with_the_answer_only():
    task = make(reference="uer-2020")
    rows = task.encode([ask(("北京", 4))], TOKENIZER, RowLedger("x"))
    chosen = task.training_rows(rows)
    assert len(chosen) < len(rows)
    assert (chosen.column("starts") > 0).all()


def test_what_is_cut_is_counted():
    ledger = RowLedger("x")
    task = make(seq_length=10, max_question_tokens=2)
    long = ask(("张三生于北京，后来搬到上海", 0), question="生于哪里")
    rows = task.encode([long], TOKENIZER, ledger)
    assert ledger.noted == {"questions truncated": 1, "answers in no window": 1}
    assert rows.lengths.max() <= 10


def test_a_segmenter_does_not_tell_characters():
    blind = WordTokenizer.__new__(WordTokenizer)
    with pytest.raises(ConfigError, match="word does not tell characters"):
        make().encode([ask()], blind, RowLedger("x"))


def plain_best(logits, place, size, longest):
    """Return the best span of a window by trying all."""
    scores = torch.log_softmax(logits, 0)
    return max(
        (float(scores[place + a, 0] + scores[place + b, 1]), a, b)
        for a in range(size)
        for b in range(a, min(size, a + longest))
    )


def test_the_best_span_equals_trying_all():
    task = make(max_answer_tokens=3)
    rows = task.encode([ask(("北京", 4)), ask(question="哪里")], TOKENIZER, RowLedger("x"))
    batch = make_batch(rows)
    task.collate(rows, batch)
    torch.manual_seed(3)
    logits = torch.randn(len(rows), int(rows.lengths.max()), 2) * 3
    for row, found in enumerate(task.decode(task.build_head(4), logits, batch)):
        place, size = (int(rows.column(n)[row]) for n in ("window_place", "window_size"))
        expected = plain_best(logits[row], place, size, 3)
        assert found[1:] == expected[1:]
        assert found[0] == pytest.approx(expected[0], rel=1e-5)


def test_answers_are_characters_of_the_passage():
    task = make(stride=5)
    rows = task.encode([ask(("北京", 4))], TOKENIZER, RowLedger("x"))
    outcomes = [(math.log(0.5), 4, 5), (math.log(0.9), 6, 7), (math.log(0.1), 0, 0)]
    (prediction,) = task.predict([ask()], rows, outcomes)
    assert prediction.text == "上海"
    assert CONTEXT[prediction.start :].startswith("上海")
    assert prediction.probability == pytest.approx(0.9)


def test_padding_and_the_question_cannot_be_chosen():
    task = make()
    rows = task.encode([ask(("北京", 4)), ask(("上海", 11))], TOKENIZER, RowLedger("x"))
    batch = make_batch(rows, width=20)
    assert task.collate(rows, batch) == len(rows)
    torch.manual_seed(1)
    logits, output = task.build_head(4)(torch.randn(len(rows), 20, 4), batch)
    shares = torch.softmax(logits, 1)
    allowed = 1 + batch["window_size"].max()
    assert ((shares > 0).sum(1) <= allowed).all()
    assert (shares[:, 1 : int(rows.column("window_place")[0])] == 0).all()
    assert torch.isfinite(output.loss_sum)


def test_scores_take_the_best_answer_and_keep_every_question():
    questions = [
        ask(("北京", 4), ("北京，", 4), name="a"),
        ask(("上海", 11), name="b"),
        ask(("十年", None), name="c"),
        ask(name="d"),
    ]
    found = [SpanPrediction(text, 0, 0.5) for text in ("北京", "搬到上海", "", "x")]
    scores = make().score(questions, found)
    assert scores.metrics["exact_match"] == pytest.approx(1 / 3)
    assert scores.metrics["f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert scores.metrics["average"] == pytest.approx((1 / 3 + 5 / 9) / 2)
    assert (scores.scored, scores.unscored) == (3, {"no answer": 1})
    assert make().score([], []).metrics["average"] == 0.0


def test_predictions_are_readable():
    question = ask(("北京", 4), ("北京", 4), ("北京，", 4))
    shown = make().describe(question, SpanPrediction("上海", 11, 0.25))
    assert shown["gold"] == "北京 | 北京，"
    assert (shown["predicted"], shown["start"], shown["probability"]) == ("上海", 11, 0.25)
    assert shown["passage"] == CONTEXT


def test_a_passage_without_tokens_gives_no_answer():
    task = make()
    blank = Question("data[0]", "q", "哪里", "\u200b\u200b", None)
    rows = task.encode([blank], TOKENIZER, RowLedger("x"))
    batch = make_batch(rows)
    task.collate(rows, batch)
    outcomes = task.decode(task.build_head(4), torch.zeros(1, 5, 2), batch)
    (prediction,) = task.predict([blank], rows, outcomes)
    assert prediction == SpanPrediction("", 0, 0.0)
    assert np.isneginf(outcomes[0][0])
