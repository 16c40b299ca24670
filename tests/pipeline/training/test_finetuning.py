"""Parts of fine-tuning that the command line does not show."""

import pytest

from pipeline.training.finetuning import Best
from pipeline.training.runs import layer_depths


def test_depths_of_a_transformer():
    names = [
        "head.output.weight",
        "encoder.norm.weight",
        "encoder.layers.0.attention.query.weight",
        "encoder.layers.2.feedforward.inner.bias",
        "embedding.word.weight",
    ]
    assert list(layer_depths(names).values()) == [0, 1, 3, 1, 4]


def test_depths_of_recurrent_layers_and_of_none():
    names = ["weight_ih_l0", "weight_hh_l1_reverse", "bias_ih_l1"]
    assert list(layer_depths([f"encoder.rnn.{n}" for n in names]).values()) == [2, 1, 1]
    assert layer_depths(["encoder.dense.weight", "embedding.word.weight"]) == {
        "encoder.dense.weight": 1,
        "embedding.word.weight": 2,
    }


@pytest.mark.parametrize(
    ("score", "rate", "better"),
    [
        (0.6, 0.1, True),
        (0.5, 0.01, False),
        (0.5, 0.001, True),
        (0.5, 0.1, False),
        (0.4, 1e-4, False),
    ],
)
def test_the_higher_score_wins_then_the_smaller_rate(score, rate, better):
    assert Best(0.5, 0.01, 1).beaten_by(score, rate) is better
