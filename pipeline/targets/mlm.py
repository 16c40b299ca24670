"""Masked language model: some tokens are hidden and predicted from the rest."""

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

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

    Source: Devlin et al. 2019, section 3.1 and appendix A.1. Differs: masks are drawn anew each
    epoch, each position for itself, so their number varies; the softmax is not tied by default.
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
        """
        original = batch["token_ids"].numpy()
        masked, chosen = self._mask(original, batch["lengths"].numpy(), rng)
        positions = np.flatnonzero(chosen)
        batch["token_ids"] = torch.from_numpy(masked)
        batch["mlm_positions"] = torch.from_numpy(positions)
        batch["mlm_labels"] = torch.from_numpy(original.reshape(-1)[positions])
        return len(positions)

    def _mask(
        self, token_ids: np.ndarray, lengths: np.ndarray, rng: RowRandom
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (tokens as the encoder sees them, which are to be predicted), both (B, T)."""
        config, ids = self.config, self.token_ids
        width = token_ids.shape[1]
        special = np.isin(token_ids, [ids.cls, ids.sep, ids.mask])
        open_to_choice = ~special & (np.arange(width) < lengths[:, None])
        draws = rng.uniform("mlm", width)
        chosen = open_to_choice & (draws < config.share)
        fate = draws / config.share
        masked = np.where(chosen & (fate < config.mask_share), ids.mask, token_ids)
        swapped = chosen & (fate >= config.mask_share)
        swapped &= fate < config.mask_share + config.random_share
        return np.where(swapped, self._random_ids(rng, width), masked), chosen

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
        loss_sum, correct = self.output(self._features(scored), batch["mlm_labels"])
        total = torch.tensor(len(scored), device=hidden.device)
        return TargetOutput(loss_sum, {"mlm": (correct, total)})

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the scores of every token for hidden states, (..., D) -> (..., V)."""
        return self.output.logits(self._features(hidden))

    def _features(self, hidden: Tensor) -> Tensor:
        return self.norm(activate(self.transform(hidden), self.config.activation))
