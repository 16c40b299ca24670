"""Two language models: one predicts the next token, the other the previous one."""

import torch
from torch import Tensor, nn

from pipeline.layers import TargetOutput, VocabularyOutput
from pipeline.registry import TARGETS, ComponentConfig
from pipeline.text.order import RowRandom
from pipeline.text.rows import Rows
from pipeline.text.vocabulary import TokenIds


@TARGETS.register("bilm")
class BilmTarget(nn.Module):
    """The first half of a hidden state predicts the next token, the second half the previous one.

    One softmax for both. Source: Peters et al. 2018, section 3.1 (arXiv:1802.05365); the 2020
    reference's `bilm`. Differs: the loss is a sum over tokens, both predictions of a token added.
    """

    instance_kinds = frozenset({"lines", "sentences", "labelled"})
    replaces_tokens = False
    sees = "halves"

    class Config(ComponentConfig):
        """Settings of the two language models."""

        boundaries: bool = False
        """Predict [SEP] after the last token and [CLS] before the first, as the 2020 reference.
        Not for long documents that are split, whose pieces do not end there."""
        tied: bool = False
        """Use the word embedding as the softmax matrix; needs embedding.size = hidden_size / 2."""

    def __init__(self, config: Config, hidden_size: int, token_ids: TokenIds):
        super().__init__()
        self.boundaries, self.token_ids = config.boundaries, token_ids
        self.output = VocabularyOutput(hidden_size // 2, token_ids.vocab_size, config.tied)

    def collate(self, rows: Rows, batch: dict[str, Tensor], rng: RowRandom) -> int:
        """Add bilm_{next,previous}_{positions,labels}, (N,) int64; return N, predicted tokens."""
        token_ids, lengths = batch["token_ids"], batch["lengths"][:, None]
        columns = torch.arange(token_ids.shape[1])
        following, preceding = token_ids.roll(-1, 1), token_ids.roll(1, 1)
        inside, ends = columns < lengths, columns == lengths - 1
        if self.boundaries:
            following = following.masked_fill(ends, self.token_ids.sep)
            preceding = preceding.masked_fill(columns == 0, self.token_ids.cls)
            with_next = with_previous = inside
        else:
            with_next, with_previous = inside & ~ends, inside & (columns > 0)
        for name, mask, labels in (
            ("next", with_next, following),
            ("previous", with_previous, preceding),
        ):
            positions = mask.flatten().nonzero().squeeze(1)
            batch[f"bilm_{name}_positions"] = positions
            batch[f"bilm_{name}_labels"] = labels.flatten()[positions]
        return len(batch["bilm_next_positions"])

    def forward(self, hidden: Tensor, batch: dict[str, Tensor]) -> TargetOutput:
        """Return the sum of both cross-entropies, and both accuracies. hidden: (B, T, D)."""
        states = hidden.flatten(0, 1)
        loss_sum = torch.zeros((), device=hidden.device)
        metrics = {}
        for name, half in zip(("next", "previous"), states.chunk(2, 1), strict=True):
            scored = half.index_select(0, batch[f"bilm_{name}_positions"])
            output = self.output.score(scored, batch[f"bilm_{name}_labels"], f"bilm_{name}")
            loss_sum = loss_sum + output.loss_sum
            metrics.update(output.metrics)
        return TargetOutput(loss_sum, metrics)
