"""Classification: label maps, the head, and scores beside scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from pipeline.errors import ConfigError, DataError
from pipeline.tasks import TaskSettings
from pipeline.tasks.classify import ClassifyTask, LabelPrediction
from pipeline.text.examples import TextExample
from pipeline.text.tables import RowLedger
from pipeline.text.tokenizers import build_tokenizer
from pipeline.text.vocabulary import build_vocabulary

VOCABULARY = build_vocabulary(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"书很好看不失望"])


def make(labels=("0", "1"), counts=(1, 1), config=None, **settings):
    return ClassifyTask(
        ClassifyTask.Config(**(config or {})),
        TaskSettings(16, VOCABULARY.token_ids, labels, counts, **settings),
    )


def examples(*labels, text="书"):
    return [TextExample(n, str(n), text, None, label) for n, label in enumerate(labels, 2)]


def predictions(task, *labels):
    order = task.settings.labels
    return [LabelPrediction(label, np.eye(len(order))[order.index(label)]) for label in labels]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["2", "10", "0", "2"], {"0": 1, "2": 2, "10": 1}),
        (["pos", "neg", "pos"], {"neg": 1, "pos": 2}),
        (["10", "2", "x"], {"10": 1, "2": 1, "x": 1}),
        (["好", "坏"], {"坏": 1, "好": 1}),
    ],
)
def test_label_maps_are_sorted(labels, expected):
    found = ClassifyTask.count_labels(examples(*labels), "train.tsv")
    assert list(found.items()) == list(expected.items())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["1", "1"], "train.tsv: only one class in training, '1'; expected two or more"),
        (["1", "-1"], "train.tsv:3: label -1 is negative"),
        ([str(n) for n in range(10_001)], "10001 distinct labels; at most 10000"),
    ],
)
def test_label_maps_that_cannot_be(labels, message):
    with pytest.raises(DataError, match=message):
        ClassifyTask.count_labels(examples(*labels), "train.tsv")


def test_foreign_labels_follow_the_policy():
    task = make()
    strict, lenient = RowLedger("dev.tsv"), RowLedger("dev.tsv", "skip")
    task.accept(examples("0", "7", None), strict)
    with pytest.raises(DataError, match=r"dev.tsv:3: label '7' does not appear in training"):
        strict.close()
    kept = task.accept(examples("0", "7", None), lenient)
    assert [example.label for example in kept] == ["0", None]
    assert lenient.skipped == {"label unseen in training": 1}


def test_a_whole_other_label_map_is_another_setting():
    with pytest.raises(ConfigError, match="found neg, pos, the model has 0, 1"):
        make().accept(examples("pos", "neg"), RowLedger("dev.tsv"))


def test_pairs_do_not_meet_a_model_of_single_texts():
    pair = [TextExample(2, "2", "书", "好", "0")]
    with pytest.raises(ConfigError, match="trained on single texts"):
        make().accept(pair, RowLedger("dev.tsv"))
    with pytest.raises(ConfigError, match="trained on pairs"):
        make(pairs=True).accept(examples("0"), RowLedger("dev.tsv"))


def test_rows_are_encoded_with_what_was_cut():
    ledger = RowLedger("train.tsv")
    tokenizer = build_tokenizer("bert", VOCABULARY)
    rows = make().encode([*examples("1", None), *examples("0", text="好" * 20)], tokenizer, ledger)
    assert rows.column("label").tolist() == [1, -1, 0]
    assert rows.lengths.tolist() == [3, 3, 16]
    assert ledger.noted == {"truncated": 1}
    strict = make(config={"long_texts": "fail"})
    with pytest.raises(DataError, match=r"train.tsv:2: 1 texts are longer than seq_length 16"):
        strict.encode(examples("0", text="好" * 20), tokenizer, ledger)


@pytest.mark.parametrize(
    ("option", "expected"),
    [("none", [1.0, 1.0]), ("balanced", [2 / 3, 2.0]), ({"0": 0.5, "1": 4.0}, [0.5, 4.0])],
)
def test_label_weights_scale_the_loss(option, expected):
    task = make(counts=(3, 1), config={"class_weights": option})
    torch.manual_seed(0)
    head = task.build_head(4)
    hidden = torch.randn(2, 3, 4)
    batch = {"lengths": torch.tensor([3, 2]), "labels": torch.tensor([0, 1])}
    logits, output = head(hidden, batch)
    losses = -torch.log_softmax(logits, 1)[[0, 1], [0, 1]]
    assert output.loss_sum.item() == pytest.approx((losses * torch.tensor(expected)).sum().item())
    assert "label_weights" not in head.state_dict()


def test_label_weights_name_the_labels():
    task = make(config={"class_weights": {"0": 1.0, "2": 1.0}})
    with pytest.raises(ConfigError, match=r"task.class_weights: '1' is not both a label and a key"):
        task.build_head(4)


GOLD = ["0", "0", "1", "2", "2", "2", "0", "1"]
FOUND = ["0", "1", "1", "2", "0", "2", "0", "2"]


@pytest.mark.parametrize(
    ("gold", "found"),
    [
        (GOLD, FOUND),
        (GOLD, ["0"] * 8),
        (["0"] * 8, FOUND),
        (["1"] * 3, ["0"] * 3),
        (["0"], ["0"]),
    ],
)
def test_scores_equal_those_of_scikit_learn(gold, found):
    task = make(labels=("0", "1", "2", "3"), counts=(1, 1, 1, 1))
    scores = task.score(examples(*gold), predictions(task, *found))
    labels = list(task.settings.labels)
    columns = precision_recall_fscore_support(gold, found, labels=labels, zero_division=0)
    assert scores.metrics["accuracy"] == pytest.approx(accuracy_score(gold, found))
    assert scores.details["confusion"] == confusion_matrix(gold, found, labels=labels).tolist()
    for name, values in zip(("precision", "recall", "f1", "support"), columns, strict=True):
        ours = [scores.details["per_label"][label][name] for label in labels]
        assert ours == pytest.approx(values.tolist())
        if name != "support":
            assert scores.metrics[f"macro_{name}"] == pytest.approx(values.mean())


def test_unlabelled_rows_are_not_scored():
    task = make()
    scores = task.score(examples("0", None), predictions(task, "0", "1"))
    assert (scores.scored, scores.unscored) == (1, {"no label": 1})
    assert scores.metrics["accuracy"] == 1.0
    nothing = task.score([], [])
    assert (nothing.scored, nothing.metrics["accuracy"]) == (0, 0.0)


def test_predictions_are_readable():
    task = make(labels=("neg", "pos"))
    (prediction,) = task.predict(examples("pos"), None, [np.array([0.25, 0.75])])
    assert task.describe(examples("pos")[0], prediction) == {
        "id": "2",
        "text_a": "书",
        "gold": "pos",
        "predicted": "pos",
        "probability": 0.75,
        "probabilities": {"pos": 0.75, "neg": 0.25},
    }
