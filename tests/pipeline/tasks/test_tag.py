"""Sequence labelling: rows, decoding, and scores beside seqeval's own front door."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.scheme import IOB2, IOBES

from pipeline.errors import ConfigError, DataError
from pipeline.tasks import TaskSettings
from pipeline.tasks.tag import TagPrediction, TagTask
from pipeline.text.tables import RowLedger
from pipeline.text.tagged import TaggedSentence
from pipeline.text.tokenizers import build_tokenizer
from pipeline.text.vocabulary import build_vocabulary
from pipeline.training.batching import make_batch

VOCABULARY = build_vocabulary(
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"张三在北京上海", "ab", "##c"]
)
TOKENIZER = build_tokenizer("bert", VOCABULARY)
LABELS = ("O", "B-LOC", "B-PER", "I-LOC", "I-PER")


def make(labels=LABELS, seq_length=8, reference="none", **config):
    return TagTask(
        TagTask.Config(**config),
        TaskSettings(
            seq_length, VOCABULARY.token_ids, labels, (1,) * len(labels), reference=reference
        ),
    )


def sentence(tokens, tags, line=2):
    return TaggedSentence(
        line, str(line), tuple(tokens.split()), tuple(tags.split()) if tags else None
    )


def found(*tags):
    return [TagPrediction(line.split(), [1.0] * len(line.split())) for line in tags]


LONG = sentence("张 三 在 abc 北 京 上 海", "B-PER I-PER O O B-LOC I-LOC B-LOC I-LOC")


def test_long_sentences_are_split_and_put_together_again():
    task, ledger = make(), RowLedger("train.tsv")
    rows = task.encode([LONG, sentence("张 三", None, 3)], TOKENIZER, ledger)
    assert rows.lengths.tolist() == [8, 5, 4]
    assert rows.column("example").tolist() == [0, 0, 1]
    assert rows.ragged("places").values.tolist() == [1, 2, 3, 4, 6, 1, 2, 3, 1, 2]
    assert rows.ragged("tags").values.tolist() == [2, 4, 0, 0, 1, 3, 1, 3, -1, -1]
    assert ledger.noted == {"split": 1}
    outcomes = [(np.full(n, tag), np.full(n, 0.5)) for n, tag in ((5, 4), (3, 3), (2, 2))]
    whole, short = task.predict([LONG, sentence("张 三", None, 3)], rows, outcomes)
    assert whole.tags == [LABELS[4]] * 5 + [LABELS[3]] * 3
    assert short.tags == [LABELS[2]] * 2


@pytest.mark.parametrize("reference", ["none", "uer-2020"])
def test_gold_that_truncation_cuts_off_is_missed(reference):
    task = make(reference=reference, seq_length=5, long_sentences="truncate")
    ledger = RowLedger("x")
    rows = task.encode([LONG], TOKENIZER, ledger)
    assert len(rows) == 1
    assert ledger.noted == {"truncated": 1}
    kept = len(rows.ragged("places").values)
    gold = [LABELS.index(tag) for tag in LONG.tags[:kept]]
    (prediction,) = task.predict([LONG], rows, [(np.array(gold), np.ones(kept))])
    assert prediction.tags[kept:] == ["O"] * (8 - kept)
    metrics = task.score([LONG], [prediction]).metrics
    assert metrics["precision"] == 1.0
    assert metrics["recall"] == pytest.approx(1 / 3)


def test_the_reference_has_no_special_tokens():
    rows = make(reference="uer-2020").encode([sentence("张 三", "O O")], TOKENIZER, RowLedger("x"))
    assert rows.ragged("token_ids").values.tolist() == [5, 6]
    assert rows.ragged("places").values.tolist() == [0, 1]


@pytest.mark.parametrize("crf", [False, True])
def test_padding_changes_nothing(crf):
    task = make(crf=crf)
    short = sentence("张 三", "B-PER I-PER", 3)
    rows = task.encode([LONG, short], TOKENIZER, RowLedger("x"))
    torch.manual_seed(1)
    head = task.build_head(4).eval()
    hidden = torch.randn(3, 7, 4)
    together, alone = make_batch(rows), make_batch(rows.take(np.array([2])))
    assert task.collate(rows, together) == 10
    assert task.collate(rows.take(np.array([2])), alone) == 2
    _, whole = head(hidden, together)
    logits, own = head(hidden[2:, :4], alone)
    rest = {name: tensor[:2] for name, tensor in together.items()}
    _, others = head(hidden[:2], rest)
    assert whole.loss_sum.item() == pytest.approx((own.loss_sum + others.loss_sum).item(), rel=1e-5)
    ((tags, shares),) = task.decode(head, logits.detach(), alone)
    assert len(tags) == len(shares) == 2
    assert ((shares > 0) & (shares <= 1)).all()


def test_label_maps():
    counts = TagTask.count_labels([LONG], "train.tsv")
    assert list(counts.items()) == [
        ("O", 2),
        ("B-LOC", 2),
        ("B-PER", 1),
        ("I-LOC", 2),
        ("I-PER", 1),
    ]
    with pytest.raises(DataError, match="only one class in training, 'O'"):
        TagTask.count_labels([sentence("张", "O")], "train.tsv")
    many = [sentence("张", f"B-{n}") for n in range(1001)]
    with pytest.raises(DataError, match="1001 distinct tags; at most 1000"):
        TagTask.count_labels(many, "train.tsv")


def test_foreign_tags_follow_the_policy():
    rows = [sentence("张 三", "B-PER I-PER"), sentence("张 三", "O B-GPE", 3)]
    ledger = RowLedger("dev.tsv", "skip")
    assert make().accept(rows, ledger) == rows[:1]
    assert ledger.skipped == {"label unseen in training": 1}
    strict = RowLedger("dev.tsv")
    make().accept(rows, strict)
    with pytest.raises(DataError, match=r"dev.tsv:3: tag 'B-GPE' does not appear in training"):
        strict.close()
    with pytest.raises(ConfigError, match="found B-GPE, the model has B-LOC"):
        make().accept(rows[1:], RowLedger("dev.tsv"))


def test_odd_tags_are_counted():
    labels = ("O", "B-A", "I-A", "thing")
    ledger = RowLedger("dev.tsv")
    make(labels).accept([sentence("张 三 在 北", "I-A O thing I-A")], ledger)
    assert ledger.noted == {"tags outside the scheme": 1, "inside tags without a begin": 2}


TAG = st.sampled_from(LABELS)
SENTENCES = st.lists(st.lists(st.tuples(TAG, TAG), min_size=1, max_size=8), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)
@given(SENTENCES)
def test_scores_equal_those_of_seqeval(pairs):
    gold, guess = ([[pair[side] for pair in tags] for tags in pairs] for side in (0, 1))
    rows = [sentence("张 " * len(tags), " ".join(tags)) for tags in gold]
    metrics = make().score(rows, found(*(" ".join(tags) for tags in guess))).metrics
    options = {"mode": "strict", "scheme": IOB2, "zero_division": 0}
    assert metrics["f1"] == pytest.approx(float(f1_score(gold, guess, **options)))
    assert metrics["precision"] == pytest.approx(float(precision_score(gold, guess, **options)))
    assert metrics["recall"] == pytest.approx(float(recall_score(gold, guess, **options)))


def test_scores_by_hand_and_by_type():
    gold = "B-PER I-PER O O B-LOC I-LOC B-LOC I-LOC"
    guess = "B-PER I-PER O O B-LOC O B-LOC I-LOC"
    scores = make().score([LONG], found(guess))
    assert LONG.tags == tuple(gold.split())
    assert scores.metrics["f1"] == pytest.approx(2 / 3)
    assert scores.metrics["token_accuracy"] == 7 / 8
    assert scores.details["per_label"]["LOC"] == {
        "precision": 0.5,
        "recall": 0.5,
        "f1": 0.5,
        "support": 2,
    }
    assert scores.details["entities"] == 3


@pytest.mark.parametrize(
    ("gold", "guess"), [("O O", "O O"), ("B-PER O", "O O"), ("O O", "B-PER O"), ("I-PER O", "O O")]
)
def test_nothing_found_or_nothing_there_is_0(gold, guess):
    assert make().score([sentence("张 三", gold)], found(guess)).metrics["f1"] == 0.0
    assert make().score([], []).metrics["f1"] == 0.0


def test_single_and_end_tags_are_another_scheme():
    labels = ("O", "B-A", "M-A", "E-A", "S-A")
    task = make(labels)
    scores = task.score([sentence("张 三 在 北 京", "B-A M-A E-A O S-A")], found("B-A M-A E-A O O"))
    assert scores.details["scheme"] == "bioes"
    gold, guess = [["B-A", "I-A", "E-A", "O", "S-A"]], [["B-A", "I-A", "E-A", "O", "O"]]
    expected = f1_score(gold, guess, mode="strict", scheme=IOBES)
    assert scores.metrics["f1"] == pytest.approx(float(expected))


def test_predictions_are_readable():
    (prediction,) = found("B-PER I-PER O O B-LOC I-LOC O O")
    shown = make().describe(LONG, prediction)
    assert shown["entities"] == "张三/PER 北京/LOC"
    assert shown["gold"] == " ".join(LONG.tags)
    assert shown["probability"] == 1.0
