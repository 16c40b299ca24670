"""Next and previous tokens: which half predicts what."""

import numpy as np
import pytest
import torch

from pipeline.text.rows import Rows
from pipeline.training.batching import make_batch
from tests.pipeline.networks import HIDDEN_SIZE, IDS, compose, ragged, rng


def batch_of(boundaries: bool) -> tuple[dict[str, torch.Tensor], list[int]]:
    rows = Rows(np.arange(3), {"token_ids": ragged([5, 6, 7], [8], [9, 10])})
    batch = make_batch(rows)
    model = compose("bilstm", ["bilm"], target_options={"bilm": {"boundaries": boundaries}})
    return batch, model.collate(rows, batch, rng(rows))


def test_positions_and_labels_by_hand() -> None:
    batch, units = batch_of(boundaries=False)
    assert units == [3]
    assert batch["bilm_next_positions"].tolist() == [0, 1, 6]
    assert batch["bilm_next_labels"].tolist() == [6, 7, 10]
    assert batch["bilm_previous_positions"].tolist() == [1, 2, 7]
    assert batch["bilm_previous_labels"].tolist() == [5, 6, 9]


def test_boundaries_by_hand() -> None:
    batch, units = batch_of(boundaries=True)
    assert units == [6]
    assert batch["bilm_next_positions"].tolist() == [0, 1, 2, 3, 6, 7]
    assert batch["bilm_next_labels"].tolist() == [6, 7, IDS.sep, IDS.sep, 10, IDS.sep]
    assert batch["bilm_previous_positions"].tolist() == [0, 1, 2, 3, 6, 7]
    assert batch["bilm_previous_labels"].tolist() == [IDS.cls, 5, 6, IDS.cls, IDS.cls, 9]


def test_the_halves_predict_each_its_own() -> None:
    target = compose("bilstm", ["bilm"]).targets["bilm"]
    torch.manual_seed(0)
    hidden = torch.randn(1, 2, HIDDEN_SIZE)
    batch = {
        "bilm_next_positions": torch.tensor([0]),
        "bilm_next_labels": torch.tensor([6]),
        "bilm_previous_positions": torch.tensor([1]),
        "bilm_previous_labels": torch.tensor([5]),
    }
    half = HIDDEN_SIZE // 2
    forward = target.output.logits(hidden[0, 0, :half]).log_softmax(0)[6]
    backward = target.output.logits(hidden[0, 1, half:]).log_softmax(0)[5]
    output = target(hidden, batch)
    assert output.loss_sum.item() == pytest.approx(-(forward + backward).item(), rel=1e-5)
    assert set(output.metrics) == {"bilm_next", "bilm_previous"}


def test_nothing_leaks() -> None:
    """No half may see the token it predicts: its gradient there is zero."""
    model = compose("bilstm", ["bilm"]).eval()
    rows = Rows(np.arange(1), {"token_ids": ragged([5, 6, 7, 8, 9])})
    batch = make_batch(rows)
    emb = model.embedding(batch["token_ids"], batch["segment_ids"]).detach().requires_grad_()
    hidden = model.encoder(emb, batch["segment_ids"])
    half = HIDDEN_SIZE // 2
    for own, unseen in ((hidden[0, 2, :half], slice(3, None)), (hidden[0, 2, half:], slice(2))):
        (gradient,) = torch.autograd.grad(own.sum(), emb, retain_graph=True)
        assert gradient[0, unseen].abs().sum() == 0
        assert gradient.abs().sum() > 0
