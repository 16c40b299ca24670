"""Models in other programs' formats: read into ours, written out of ours.

A converter is one class in one file. What goes out carries a record (`conversion.json`) of what its
format cannot say; read back unchanged, the model is the same bits.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
import yaml
from torch import Tensor

from pipeline.artifacts import first_difference
from pipeline.converters.comparing import (
    LONGEST,
    Batch,
    largest_differences,
    make_batch,
    run_model,
)
from pipeline.converters.sections import ROOMS, replace_sections, state_modes
from pipeline.errors import ConfigError
from pipeline.model import Model, build_model
from pipeline.registry import ComponentConfig
from pipeline.spec import ArchitectureSpec, Component, ConvertSpec
from pipeline.subencoders import characters_of
from pipeline.text.vocabulary import TokenIds, Vocabulary
from pipeline.training.checkpoint import load_weights
from pipeline.training.inference import BODY

RECORD = "conversion.json"
VOCABULARY = "vocab.txt"
ARCHITECTURE = "architecture.yaml"
WORD = "embedding.word.weight"
POSITION = "embedding.position.weight"
SEGMENT = "embedding.segment.weight"


@dataclass
class PortableModel:
    """A model on its way from one format to another, in our terms."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]
    """What travels with the weights (training/pretraining.py: model_metadata)."""
    vocabulary: Vocabulary
    source: str
    """SHA-256 of the tensors as they were found."""
    notes: list[str] = field(default_factory=list)
    """What a person should know."""
    recorded: bool = False
    """Whether it went out from here and comes back unchanged, its record beside it."""

    @property
    def architecture(self) -> ArchitectureSpec:
        """The network's architecture."""
        return ArchitectureSpec.model_validate(self.metadata["architecture"])

    @property
    def targets(self) -> list[Component]:
        """The targets whose heads travel too."""
        return [Component.model_validate(section) for section in self.metadata.get("targets", [])]

    def build(self) -> Model:
        """Return the network with its targets and weights. Raises ConfigError, DataError."""
        ids = TokenIds(**self.metadata["token_ids"])
        reference = self.metadata.get("reference", "none")
        model = build_model(
            self.architecture, ids, self.targets, reference, characters_of(self.tensors)
        )
        load_weights(model, self.tensors, "weights", (*BODY, "targets."))
        return model.eval()

    def gap(self, sections: Mapping[str, Mapping[str, Any]]) -> float:
        """Return how far hidden states would be off if the parts had these settings."""
        other = replace(self, metadata=replace_sections(self.metadata, sections))
        batch = make_batch(self.metadata["token_ids"], self.longest())
        ours, theirs = (run_model(model.build(), batch) for model in (self, other))
        return largest_differences(ours, theirs, batch)["hidden"]

    def longest(self) -> int:
        """Return the most tokens that a row may have, at most those that comparisons use."""
        table = self.tensors.get(POSITION)
        return LONGEST if table is None else min(LONGEST, len(table))

    def architecture_text(self) -> str:
        """Return the architecture as YAML, with the modes of the reference written out."""
        parts = {k: v for k, v in self.metadata["architecture"].items() if v is not None}
        if self.metadata.get("reference") == "uer-2020":
            parts = {where: state_modes(ROOMS[where], part) for where, part in parts.items()}
        return yaml.safe_dump(parts, sort_keys=False, allow_unicode=True)

    def inputs(self) -> dict[str, str]:
        """Return the digests of what it was made of, for a stamp."""
        return {"weights": self.source, "vocabulary": self.vocabulary.digest}

    def padding_segment(self) -> list[float] | None:
        """Return the padding's row of the table of segments, None if it is zero or not there."""
        row = self.tensors[SEGMENT][0] if SEGMENT in self.tensors else torch.zeros(1)
        return row.tolist() if row.any() else None


class Converter(ABC):
    """One format. Subclasses are registered; the options of a conversion are ConvertSpec's."""

    Config: ClassVar[type[ComponentConfig]] = ComponentConfig
    name: ClassVar[str]
    files: ClassVar[frozenset[str]]
    """What `write` may write, besides vocabulary, architecture and record."""
    weights: ClassVar[str]
    """The file among them without which there is no model."""
    has_padding_segment: ClassVar[bool] = True
    """Whether the table of segments has a row for padding, as ours has."""

    @abstractmethod
    def read(self, source: Path, vocab: Path | None, spec: ConvertSpec) -> PortableModel:
        """Return the model at `source`, every tensor accounted for.

        vocab: the vocabulary where the source has none. Raises the errors of reliability part E.
        """

    @abstractmethod
    def write(self, model: PortableModel, folder: Path) -> str:
        """Write the model's files into a folder; return the SHA-256 of the tensors written.

        Notes go to `model.notes`. Raises ConfigError if the format has no such model.
        """

    def run(self, folder: Path, batch: Batch) -> dict[str, Tensor] | str:
        """Return what the format's own program computes from a folder, or why it cannot run here.

        hidden (B, T, D), and of mlm (B, T, V) and nsp (B, 2) those that the model has.
        """
        return f"no program for the format {self.name} runs here"


def require_as_stated(metadata: Mapping[str, Any], spec: ConvertSpec, where: str) -> None:
    """Raise ConfigError if a spec states otherwise what a model says of itself."""
    stated = spec.model_dump(mode="json", exclude_unset=True, exclude={"ignore"})
    stated = {key: value for key, value in stated.items() if value is not None}
    found = {"reference": "none", **metadata}
    if different := first_difference(stated, {key: found.get(key) for key in stated}):
        raise ConfigError(f"{where}: made with other settings than the spec's: {different}")
