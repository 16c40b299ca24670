"""Next tokens: which positions predict what."""

import numpy as np
import pytest
import torch

from pipeline.text.rows import Rows
from pipeline.training.batching import make_batch
from tests.pipeline.networks import collated, compose, make_rows, ragged, rng


def test_positions_and_labels_by_hand() -> None:
    rows = Rows(np.arange(3), {"token_ids": ragged([5, 6, 7], [8], [9, 10])})
    batch = make_batch(rows)
    assert compose("lstm", ["lm"]).collate(rows, batch, rng(rows)) == [3]
    assert batch["lm_positions"].tolist() == [0, 1, 6]
    assert batch["lm_labels"].tolist() == [6, 7, 10]


def test_the_loss_is_that_of_a_plain_loop() -> None:
    model = compose("lstm", ["lm"]).eval()
    batch, _ = collated(model, make_rows((4, 6)))
    with torch.no_grad():
        hidden = model.encode(batch)
        logits = model.targets["lm"].output.logits(hidden).log_softmax(-1)
        output = model(batch)[0]
    total, correct = 0.0, 0
    for row, length in enumerate((4, 6)):
        for t in range(length - 1):
            label = batch["token_ids"][row, t + 1]
            total -= logits[row, t, label].item()
            correct += int(logits[row, t].argmax() == label)
    assert output.loss_sum.item() == pytest.approx(total, rel=1e-5)
    assert output.metrics["lm"][0].item() == correct
