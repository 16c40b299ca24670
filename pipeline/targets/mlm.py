"""Masked language model: some tokens are hidden and predicted from the rest."""

from typing import Literal

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.layers import (
    Activation,
    Linear,
    NormKind,
    TargetOutput,
    VocabularyOutput,
    activate,
    build_norm,
)
from pipeline.registry import TARGETS, ComponentConfig
from pipeline.text.order import RowRandom
from pipeline.text.rows import Rows
from pipeline.text.vocabulary import TokenIds


@TARGETS.register("mlm")
class MlmTarget(nn.Module):
    """Predict hidden tokens: linear map, activation, norm, softmax.

    Source: Devlin et al. 2019, section 3.1 and appendix A.1; whole words: google-research/bert,
    2019; spans: Joshi et al. 2020 (arXiv:1907.10529). Differs: masks are drawn anew each epoch,
    each unit for itself, so their number varies; the softmax is not tied by default.
    """

    instance_kinds = frozenset({"lines", "sentences", "labelled"})
    replaces_tokens = True
    sees = "all"

    class Config(ComponentConfig):
        """Settings of the masked language model."""

        share: float = Field(0.15, gt=0, lt=1)
        """Share of the tokens to predict."""
        mask_share: float = Field(0.8, ge=0, le=1)
        """Of these, the share that [MASK] stands for."""
        random_share: float = Field(0.1, ge=0, le=1)
        """Of these, the share that a random token stands for; the rest stay as they are."""
        unit: Literal["token", "word", "span"] = "token"
        """What is chosen as a whole: tokens, words (the instances must hold `word_starts`), or
        spans of random length, all of whose tokens meet the same fate."""
        span_end: float = Field(0.2, gt=0, le=1)
        """Chance that a span ends after each of its tokens."""
        longest_span: int = Field(10, ge=1)
        """Tokens in the longest span."""
        tied: bool = False
        """Use the word embedding as the softmax matrix; needs embedding.size = hidden_size."""
        activation: Activation = "gelu"
        """After the linear map."""
        norm: NormKind = "layer"
        """layer, rms, or unbiased (the 2020 reference's)."""
        norm_epsilon: float = Field(1e-12, gt=0)
        """Added under the root of the norm."""

        @field_validator("random_share")
        @classmethod
        def _shares(cls, value: float, info: ValidationInfo) -> float:
            masked = info.data.get("mask_share", 0.0)
            if masked + value > 1:
                raise ValueError(f"{value} and mask_share {masked} together exceed 1")
            return value

    def __init__(self, config: Config, hidden_size: int, token_ids: TokenIds):
        super().__init__()
        self.config, self.token_ids = config, token_ids
        self.transform = Linear(hidden_size, hidden_size)
        self.norm = build_norm(config.norm, hidden_size, config.norm_epsilon)
        self.output = VocabularyOutput(hidden_size, token_ids.vocab_size, config.tied)

    def collate(self, rows: Rows, batch: dict[str, Tensor], rng: RowRandom) -> int:
        """Replace token_ids; add mlm_positions and mlm_labels, (N,) int64; return N.

        Positions count in the flattened (B, T). [CLS], [SEP], [MASK] and padding are never chosen.
        Raises ConfigError if words are wanted and the instances do not tell where they start.
        """
        original = batch["token_ids"].numpy()
        ids, width = self.token_ids, original.shape[1]
        fixed = np.isin(original, [ids.cls, ids.sep, ids.mask])
        fixed |= np.arange(width) >= batch["lengths"].numpy()[:, None]
        chosen, fate = self._choose(rows, fixed, rng)
        chosen &= ~fixed
        masked = chosen & (fate < self.config.mask_share)
        limit = self.config.mask_share + self.config.random_share
        swapped = chosen & ~masked & (fate < limit)
        replaced = np.where(swapped, self._random_ids(rng, width), original)
        positions = np.flatnonzero(chosen)
        batch["token_ids"] = torch.from_numpy(np.where(masked, ids.mask, replaced))
        batch["mlm_positions"] = torch.from_numpy(positions)
        batch["mlm_labels"] = torch.from_numpy(original.reshape(-1)[positions])
        return len(positions)

    def _choose(
        self, rows: Rows, fixed: np.ndarray, rng: RowRandom
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (which tokens are to be predicted, bool; what happens to them, in 0..1), (B, T).

        Every unit is chosen with the same chance, so the expected share of tokens is `share`.
        """
        share, width = self.config.share, fixed.shape[1]
        draws = rng.uniform("mlm", width)
        if self.config.unit == "token":
            return draws < share, draws / share
        if self.config.unit == "word":
            starts = self._word_starts(rows, width)
        else:
            starts = rng.uniform("mlm_ends", width) < self.config.span_end
        starts = starts | fixed
        starts[:, 1:] |= fixed[:, :-1]
        unit = _unit_starts(starts, width)
        if self.config.unit == "span":
            columns = np.arange(width)
            unit = columns - (columns - unit) % self.config.longest_span
        draws = np.take_along_axis(draws, unit, 1)
        fate = draws / share if self.config.unit == "span" else rng.uniform("mlm_fate", width)
        return draws < share, fate

    def _word_starts(self, rows: Rows, width: int) -> np.ndarray:
        if "word_starts" not in rows.columns:
            raise ConfigError(
                "targets.mlm.unit: word, but the instances do not hold word_starts; build them "
                "with word_starts: true, or use unit: token or span"
            )
        return rows.ragged("word_starts").padded(width).astype(bool)

    def _random_ids(self, rng: RowRandom, width: int) -> np.ndarray:
        """Return (B, T) int64 ids, uniform over the vocabulary without its special tokens."""
        ids = self.token_ids
        special = sorted({ids.pad, ids.cls, ids.sep, ids.mask})
        drawn = rng.uniform("mlm_ids", width) * (ids.vocab_size - len(special))
        drawn = drawn.astype(np.int64)
        for token in special:
            drawn += drawn >= token
        return drawn

    def forward(self, hidden: Tensor, batch: dict[str, Tensor]) -> TargetOutput:
        """Return the sum of cross-entropies at hidden tokens and their accuracy.

        hidden: (B, T, D).
        """
        scored = hidden.flatten(0, 1).index_select(0, batch["mlm_positions"])
        return self.output.score(self._features(scored), batch["mlm_labels"], "mlm")

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the scores of every token for hidden states, (..., D) -> (..., V)."""
        return self.output.logits(self._features(hidden))

    def _features(self, hidden: Tensor) -> Tensor:
        return self.norm(activate(self.transform(hidden), self.config.activation))


def _unit_starts(starts: np.ndarray, width: int) -> np.ndarray:
    """Return (B, T) int64, for each position where its unit starts; starts: (B, T) bool."""
    return np.maximum.accumulate(np.where(starts, np.arange(width), 0), axis=1)
