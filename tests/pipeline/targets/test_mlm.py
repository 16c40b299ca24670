"""Masking: shares, fates, units, and what is never masked."""

from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.registry import TARGETS
from pipeline.text.rows import Rows
from pipeline.text.vocabulary import TokenIds
from pipeline.training.batching import make_batch
from tests.pipeline.networks import ragged, rng

IDS = TokenIds(1000, pad=0, unk=1, cls=2, sep=3, mask=4)
MANY, WIDTH = 400, 60


def target(**options: Any) -> Any:
    cls, config = TARGETS.configure({"name": "mlm", **options})
    return cls(config, 4, IDS)


def rows_of(texts: list[list[int]], **columns: Any) -> Rows:
    return Rows(np.arange(len(texts)), {"token_ids": ragged(*texts), **columns})


def many_rows() -> Rows:
    random = np.random.RandomState(0)
    return rows_of([[2, *random.randint(5, 1000, WIDTH - 2), 3] for _ in range(MANY)])


def mask(rows: Rows, epoch: int = 0, **options: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (original ids, ids as the encoder sees them, chosen), each (B, T)."""
    batch = make_batch(rows)
    original = batch["token_ids"].numpy().copy()
    units = target(**options).collate(rows, batch, rng(rows, epoch))
    chosen = np.zeros(original.size, bool)
    positions = batch["mlm_positions"].numpy()
    assert units == len(positions) == len(set(positions.tolist()))
    chosen[positions] = True
    assert np.array_equal(batch["mlm_labels"].numpy(), original.reshape(-1)[positions])
    return original, batch["token_ids"].numpy(), chosen.reshape(original.shape)


@pytest.mark.parametrize("options", [{}, {"unit": "span"}, {"share": 0.4}, {"span_end": 0.5}])
def test_shares_are_those_of_the_settings(options: dict[str, Any]) -> None:
    original, seen, chosen = mask(many_rows(), **options)
    maskable = MANY * (WIDTH - 2)
    share = options.get("share", 0.15)
    # 4 standard deviations; spans of 5 tokens on average make the share that much less certain.
    spread = 4 * (share * (1 - share) * 5 / maskable) ** 0.5
    assert chosen.sum() / maskable == pytest.approx(share, abs=spread)
    fates = seen[chosen]
    assert (fates == IDS.mask).mean() == pytest.approx(0.8, abs=0.05)
    assert (fates == original[chosen]).mean() == pytest.approx(0.1, abs=0.03)
    assert np.array_equal(seen[~chosen], original[~chosen])


def test_all_masked_or_all_kept() -> None:
    original, seen, chosen = mask(many_rows(), mask_share=1.0, random_share=0.0)
    assert (seen[chosen] == IDS.mask).all()
    original, seen, chosen = mask(many_rows(), mask_share=0.0, random_share=0.0)
    assert np.array_equal(seen, original)
    assert chosen.any()


def test_special_tokens_and_padding_are_never_chosen() -> None:
    texts = [[2, 7, 3, 4, 8, 3], [2, 9, 3], [2, 3], [1, 1, 1, 1]]
    original, seen, chosen = mask(rows_of(texts), share=0.999)
    assert chosen.tolist() == [
        [False, True, False, False, True, False],
        [False, True, False, False, False, False],
        [False] * 6,
        [True, True, True, True, False, False],
    ]
    assert np.array_equal(seen[~chosen], original[~chosen])


def test_random_ids_are_uniform_and_never_special() -> None:
    _, seen, chosen = mask(many_rows(), share=0.9, mask_share=0.0, random_share=1.0)
    drawn = seen[chosen]
    assert not set(drawn.tolist()) & {0, 2, 3, 4}
    assert drawn.min() == IDS.unk
    assert drawn.max() == IDS.vocab_size - 1
    assert drawn.mean() == pytest.approx(502, abs=10)
    assert drawn.std() == pytest.approx(996 / 12**0.5, abs=10)


def test_masks_are_new_in_each_epoch_and_the_same_in_any_company() -> None:
    rows = many_rows()
    first, second = mask(rows)[2], mask(rows, epoch=1)[2]
    both = (first & second).sum() / first.sum()
    assert both == pytest.approx(0.15, abs=0.03)
    alone = mask(rows.take(np.array([17, 3])))[2]
    assert np.array_equal(alone, first[[17, 3]])


def test_spans_are_runs_with_one_fate() -> None:
    original, seen, chosen = mask(
        many_rows(), unit="span", share=0.1, mask_share=0.5, random_share=0.0, longest_span=4
    )
    masked = seen == IDS.mask
    lengths, mixed = [], 0
    for row in range(MANY):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], chosen[row], [0]]).astype(int)))
        for start, end in edges.reshape(-1, 2):
            lengths.append(end - start)
            mixed += 0 < masked[row, start:end].sum() < end - start
    # Neighbouring spans look like one; with a share of 0.1 few are neighbours.
    assert np.mean(np.array(lengths) <= 4) > 0.85
    assert 2.5 < np.mean(lengths) < 4
    assert mixed / len(lengths) < 0.1
    assert np.array_equal(seen[~chosen], original[~chosen])


def test_spans_do_not_cross_separators() -> None:
    text = [2, 10, 11, 12, 3, 13, 14, 15, 3]
    crossings = 0
    for epoch in range(200):
        _, _, chosen = mask(rows_of([text]), epoch, unit="span", span_end=0.01, share=0.5)
        left, right = chosen[0, 1:4], chosen[0, 5:8]
        assert left.all() or not left[:-1].any() or left.any()
        crossings += left.all() and right.all()
    assert crossings / 200 == pytest.approx(0.25, abs=0.12)


def test_words_are_chosen_whole() -> None:
    words = [[2], [10], [11, 12, 13], [14, 15], [16], [3]]
    text = [token for word in words for token in word]
    starts = [number == 0 for word in words for number in range(len(word))]
    column = ragged([int(start) for start in starts])
    counts = np.zeros(len(text))
    for epoch in range(300):
        rows = rows_of([text], word_starts=column)
        _, _, chosen = mask(rows, epoch, unit="word", share=0.3)
        assert len(set(chosen[0, 2:5])) == len(set(chosen[0, 5:7])) == 1
        counts += chosen[0]
    assert counts[0] == counts[-1] == 0
    assert counts[1:-1] / 300 == pytest.approx(np.full(7, 0.3), abs=0.1)


def test_words_need_to_be_known() -> None:
    with pytest.raises(ConfigError, match=r"targets\.mlm\.unit: word, but the instances do not"):
        mask(rows_of([[2, 7, 3]]), unit="word")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0.0}, "target.share: "),
        ({"share": 1.0}, "target.share: "),
        ({"mask_share": 0.8, "random_share": 0.3}, "target.random_share: 0.3 and mask_share 0.8"),
        ({"unit": "sentence"}, "target.unit: "),
    ],
)
def test_wrong_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TARGETS.configure({"name": "mlm", **options})
    assert caught.value.problems[0].startswith(message)


def test_scores_by_hand() -> None:
    torch.manual_seed(0)
    head = target()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    hidden = torch.randn(1, 3, 4)
    batch = {"mlm_positions": torch.tensor([0, 2]), "mlm_labels": torch.tensor([7, 900])}
    features = torch.nn.functional.gelu(hidden[0] @ head.transform.weight.t() + head.transform.bias)
    logits = head.norm(features) @ head.output.weight.t() + head.output.bias
    expected = -logits.log_softmax(1)[[0, 2], [7, 900]].sum()
    assert head(hidden, batch).loss_sum.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(head.logits(hidden[0]), logits, atol=1e-5)
