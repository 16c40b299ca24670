"""Targets that label whole rows: nsp and cls."""

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.registry import TARGETS
from pipeline.text.rows import Rows
from pipeline.training.batching import make_batch
from tests.pipeline.networks import collated, compose, make_rows, ragged, rng


def test_labels_come_from_the_rows() -> None:
    model = compose("transformer", ["nsp"])
    batch, units = collated(model, make_rows())
    assert units == 4
    assert batch["nsp_labels"].tolist() == [0, 1, 0, 1]
    batch, _ = collated(compose("transformer", ["cls"]), make_rows())
    assert batch["cls_labels"].tolist() == [0, 1, 2, 0]


def test_the_loss_by_hand() -> None:
    model = compose("transformer", ["cls"], target_options={"cls": {"pooling": "mean"}}).eval()
    batch, _ = collated(model, make_rows((2, 4)))
    with torch.no_grad():
        hidden, target = model.encode(batch), model.targets["cls"]
        expected = 0.0
        for row, length in enumerate((2, 4)):
            pooled = target.pooler(hidden[row, :length].mean(0)).tanh()
            expected -= target.output(pooled).log_softmax(0)[row].item()
        assert model(batch)[0].loss_sum.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0]])
def test_labels_out_of_range(labels: list[int]) -> None:
    rows = Rows(np.arange(2), {"token_ids": ragged([5], [6]), "label": np.array(labels)})
    model = compose("transformer", ["cls"], target_options={"cls": {"num_labels": 3}})
    with pytest.raises(ConfigError, match=r"targets\.cls\.num_labels: 3, and the instances hold"):
        model.collate(rows, make_batch(rows), rng(rows))


def test_the_number_of_labels_must_be_given() -> None:
    with pytest.raises(ConfigError, match=r"^targets\.cls\.num_labels: field required$"):
        TARGETS.configure({"name": "cls"}, "targets.cls")


@pytest.mark.parametrize(
    ("targets", "reference", "pooler"),
    [
        (["nsp"], "none", True),
        (["nsp"], "uer-2020", False),
        (["mlm", "nsp"], "none", True),
        (["mlm", "nsp"], "uer-2020", True),
    ],
)
def test_the_reference_has_a_pooler_beside_mlm_only(
    targets: list[str], reference: str, pooler: bool
) -> None:
    model = compose("transformer", targets, reference=reference)
    assert (model.targets["nsp"].pooler is not None) == pooler
