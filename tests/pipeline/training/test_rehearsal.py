"""A rehearsal makes the trainer's own steps: those of one rank, on rows of the lengths given."""

import numpy as np
import pytest

from pipeline.spec import FinetuneSpec, PretrainSpec
from pipeline.text.rows import Rows
from pipeline.training import rehearsal
from pipeline.training.loop import Learner
from pipeline.training.rehearsal import rehearse_finetuning, rehearse_pretraining

LSTM = {"embedding": "word", "encoder": {"name": "lstm", "hidden_size": 8}}


@pytest.mark.parametrize("reduction", ["tree", "ddp"])
@pytest.mark.parametrize(("ranks", "share"), [(1, 8), (2, 4), (4, 2)])
def test_a_rank_trains_its_share_of_a_batch(
    monkeypatch: pytest.MonkeyPatch, ranks: int, share: int, reduction: str
) -> None:
    parts: list[int] = []
    update = Learner.update

    def watched(learner: Learner, step, batches, counts, rate):
        parts.append(len(batches))
        return update(learner, step, batches, counts, rate)

    monkeypatch.setattr(Learner, "update", watched)
    optimization = {"total_steps": 10, "checkpoint_steps": 5, "batch_size": 16}
    optimization |= {"reduction": reduction}
    spec = PretrainSpec(architecture=LSTM, targets=["lm"], optimization=optimization)
    found = rehearse_pretraining(spec, [5, 9, 20], 50, 16, 0.05, ranks)
    assert set(parts) == {share} and len(parts) > rehearsal.WARM_UP_STEPS
    assert found.tokens_per_second > 0


def test_fine_tuning_meets_short_and_long_rows_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []
    make_batch = rehearsal.make_batch

    def watched(rows: Rows, width: int | None, pad: int):
        seen.append(rows.lengths)
        return make_batch(rows, width, pad)

    monkeypatch.setattr(rehearsal, "make_batch", watched)
    spec = FinetuneSpec(architecture=LSTM, task="classify", batch_size=8, seq_length=30)
    rehearse_finetuning(spec, list(range(1, 61)), 50, 0.5)
    assert all(len(lengths) == 8 for lengths in seen)
    assert {int(lengths.max()) for lengths in seen} > {30}
    assert max(np.ptp(lengths) for lengths in seen) < 15
