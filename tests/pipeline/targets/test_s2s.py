"""Sequence to sequence: what the decoder is given and what it has to predict."""

import numpy as np
import pytest
import torch

from pipeline.text.rows import Rows
from pipeline.training.batching import make_batch
from tests.pipeline.networks import IDS, compose, ragged, rng

SOURCE = ragged([5, 6, 7], [8])
TARGET = ragged([9], [10, 11])


def collate(
    teacher: str, **columns: object
) -> tuple[dict[str, torch.Tensor], list[int], torch.nn.Module]:
    rows = Rows(np.arange(2), {"token_ids": SOURCE, **columns})  # type: ignore[dict-item]
    batch = make_batch(rows)
    model = compose("lstm", ["s2s"], target_options={"s2s": {"teacher": teacher}})
    return batch, model.collate(rows, batch, rng(rows)), model


def test_the_decoder_is_given_the_token_before() -> None:
    batch, units, _ = collate("previous", target_ids=TARGET)
    assert units == [5]
    assert batch["s2s_inputs"].tolist() == [[IDS.cls, 9, IDS.sep], [IDS.cls, 10, 11]]
    assert batch["s2s_positions"].tolist() == [0, 1, 3, 4, 5]
    assert batch["s2s_labels"].tolist() == [9, IDS.sep, 10, 11, IDS.sep]


def test_the_reference_gives_it_the_very_token() -> None:
    batch, units, _ = collate("same", target_ids=TARGET)
    assert units == [3]
    assert batch["s2s_inputs"].tolist() == [[9, 0], [10, 11]]
    assert batch["s2s_positions"].tolist() == [0, 2, 3]
    assert batch["s2s_labels"].tolist() == [9, 10, 11]


def test_without_target_texts_a_row_writes_itself() -> None:
    batch, units, _ = collate("previous")
    assert units == [6]
    assert batch["s2s_labels"].tolist() == [5, 6, 7, IDS.sep, 8, IDS.sep]


def test_no_prediction_sees_its_own_token() -> None:
    """Changing a target token changes predictions after it only."""
    _, _, model = collate("previous", target_ids=TARGET)
    target = model.get_submodule("targets.s2s")
    hidden = torch.randn(1, 2, 16)
    batch = {"lengths": torch.tensor([2]), "s2s_positions": torch.arange(4)}
    losses = []
    for second in (6, 9):
        inputs = torch.tensor([[IDS.cls, 5, second, 7]])
        scores = [
            target(
                hidden,
                {
                    **batch,
                    "s2s_inputs": inputs,
                    "s2s_positions": torch.tensor([t]),
                    "s2s_labels": torch.tensor([20]),
                },
            ).loss_sum.item()
            for t in range(4)
        ]
        losses.append(scores)
    assert losses[0][:2] == losses[1][:2]
    assert losses[0][2:] != losses[1][2:]


@pytest.mark.parametrize("read_padding", [False, True])
def test_it_starts_from_the_rows_last_token(read_padding: bool) -> None:
    options = {"s2s": {"read_padding": read_padding}}
    model = compose("transformer", ["s2s"], target_options=options)
    batch = {
        "lengths": torch.tensor([2]),
        "s2s_inputs": torch.tensor([[IDS.cls]]),
        "s2s_positions": torch.tensor([0]),
        "s2s_labels": torch.tensor([5]),
    }
    hidden = torch.randn(1, 3, 16, requires_grad=True)
    model.targets["s2s"](hidden, batch).loss_sum.backward()
    assert hidden.grad is not None
    read = hidden.grad[0].abs().sum(1).nonzero().flatten().tolist()
    assert read == ([2] if read_padding else [1])
