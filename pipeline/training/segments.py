"""The three files of a checkpoint, between which a pre-training run is cut into segments.

`step_{step}.safetensors` the weights, `.optimizer.safetensors` what the next segment needs
besides, `.json` losses, counts and the digests of both; published in the order optimizer, weights,
record, so that a record vouches for the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.artifacts import first_difference, read_json_artifact, write_json
from pipeline.errors import ArtifactError, ConfigError
from pipeline.training.checkpoint import load_tensors, save_tensors


@dataclass(frozen=True)
class Checkpoint:
    """Everything at a step: weights, AdamW's moments, and the record of the segment before it."""

    weights: dict[str, Tensor]
    moments: dict[str, Tensor]
    record: dict[str, Any]


class SegmentFiles:
    """The files of the checkpoint at `step` in the folder of a recipe."""

    def __init__(self, folder: Path, step: int):
        stem = folder / f"step_{step:08d}"
        self.step = step
        self.weights = stem.with_suffix(".safetensors")
        self.optimizer = stem.with_suffix(".optimizer.safetensors")
        self.record = stem.with_suffix(".json")

    def exist(self) -> bool:
        """Return whether all three are there."""
        return all(path.exists() for path in (self.weights, self.optimizer, self.record))

    def load(self, stamp: Mapping[str, Any]) -> Checkpoint:
        """Return the verified checkpoint.

        Raises MissingError, ArtifactError (damaged, or files of different runs), ConfigError (made
        for other settings or inputs than `stamp` says: the first difference).
        """
        record = read_json_artifact(self.record, "pretrain")
        if different := first_difference(stamp, record["stamp"]):
            raise ConfigError(f"{self.record}: made for other settings or inputs: {different}")
        weights, weights_data = load_tensors(self.weights)
        moments, optimizer_data = load_tensors(self.optimizer)
        for path, data, key in (
            (self.weights, weights_data, "weights"),
            (self.optimizer, optimizer_data, "optimizer"),
        ):
            if data["weights"] != record[key]:
                raise ArtifactError(
                    f"{path}: SHA-256 {data['weights'][:12]}..., {self.record.name} says "
                    f"{record[key][:12]}...; they are of different runs"
                )
        return Checkpoint(weights, moments, record)

    def publish(self, checkpoint: Checkpoint, metadata: Mapping[str, Any]) -> None:
        """Publish optimizer, weights and record, each by rename, in this order."""
        data = {**metadata, "step": self.step}
        optimizer = save_tensors(self.optimizer, checkpoint.moments, data)
        weights = save_tensors(self.weights, checkpoint.weights, data)
        write_json(self.record, {**checkpoint.record, "weights": weights, "optimizer": optimizer})
