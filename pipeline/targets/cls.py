"""Classification of whole rows by their label."""

import torch
from pydantic import Field
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.layers import Pooling, RowClassifier, TargetOutput
from pipeline.registry import TARGETS, ComponentConfig
from pipeline.text.order import RowRandom
from pipeline.text.rows import Rows
from pipeline.text.vocabulary import TokenIds


@TARGETS.register("cls")
class ClsTarget(RowClassifier):
    """Predict the label of a row from its pooled hidden states.

    Source: the 2020 reference's `cls`. Differs: the loss is a sum over rows.
    """

    instance_kinds = frozenset({"labelled"})
    replaces_tokens = False
    sees = "all"

    class Config(ComponentConfig):
        """Settings of the classification."""

        num_labels: int = Field(ge=2)
        """Labels are 0 to num_labels - 1."""
        pooling: Pooling = "first"
        """Which hidden states are looked at; a left-to-right encoder needs last, mean or max."""
        read_padding: bool = False
        """mean, max and last over the padding too."""

    def __init__(self, config: Config, hidden_size: int, token_ids: TokenIds):
        super().__init__(hidden_size, config.num_labels, True, config.pooling, config.read_padding)
        self.num_labels = config.num_labels

    def collate(self, rows: Rows, batch: dict[str, Tensor], rng: RowRandom) -> int:
        """Add cls_labels (B,) int64; return B. Raises ConfigError for a label out of range."""
        labels = rows.column("label").astype("int64")
        if len(labels) and not 0 <= labels.min() <= labels.max() < self.num_labels:
            raise ConfigError(
                f"targets.cls.num_labels: {self.num_labels}, and the instances hold labels "
                f"up to {labels.max()}; use {labels.max() + 1}"
            )
        batch["cls_labels"] = torch.from_numpy(labels)
        return len(rows)

    def forward(self, hidden: Tensor, batch: dict[str, Tensor]) -> TargetOutput:
        """Return the sum of cross-entropies over rows and the accuracy. hidden: (B, T, D)."""
        return self.score(hidden, batch["lengths"], batch["cls_labels"], "cls")
