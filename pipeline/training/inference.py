"""Fine-tuned models at work: opened from their own metadata, run over rows batched by length."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.errors import ConfigError, UsageError
from pipeline.model import Model, build_model
from pipeline.registry import TASKS
from pipeline.spec import ArchitectureSpec, FinetuneSpec
from pipeline.subencoders import characters_of
from pipeline.tasks import Task, TaskSettings
from pipeline.text.rows import Rows
from pipeline.text.tokenizers import Tokenizer, build_tokenizer
from pipeline.text.vocabulary import TokenIds, Vocabulary, read_vocabulary
from pipeline.training.batching import make_batch
from pipeline.training.checkpoint import (
    load_tensors,
    load_weights,
    model_file,
    require_vocabulary,
)
from pipeline.training.epochs import inference_batches
from pipeline.training.loop import autocast

BODY = ("embedding.", "subencoder.", "encoder.")
HEAD = "head."
SEEN = "seen.digests"


@dataclass(frozen=True)
class FinetunedModel:
    """A model with its head, its task and what it reads text with."""

    model: Model
    task: Task
    tokenizer: Tokenizer
    device: torch.device
    precision: str
    metadata: Mapping[str, Any]
    seen: np.ndarray
    """(N,) int64, sorted digests of the training examples."""

    def infer(self, rows: Rows) -> list[Any]:
        """Return the task's outcome of each row, in their order."""
        width = fixed_width(self.task.settings)
        return infer(self.model, self.task, rows, self.device, self.precision, width)


def open_finetuned(path: Path, vocab: Path | None, device: torch.device) -> FinetunedModel:
    """Return a fine-tuned model, every byte checked, ready to predict.

    path: a file, or a directory that holds its own vocab.txt. Raises MissingError, ArtifactError
    and ConfigError (another vocabulary, a model without a head).
    """
    tensors, metadata = load_tensors(model_file(path))
    if "task" not in metadata:
        raise ConfigError(f"{path}: a model without a task; fine-tune it first")
    vocabulary = find_vocabulary(path, vocab)
    require_vocabulary(metadata, vocabulary.digest, str(path))
    task = task_of(metadata)
    architecture = ArchitectureSpec.model_validate(metadata["architecture"])
    model = build_model(
        architecture,
        task.settings.token_ids,
        reference=task.settings.reference,
        characters=characters_of(tensors),
    )
    model.add_module("head", task.build_head(model.hidden_size))
    load_weights(model, tensors, str(path), (*BODY, HEAD))
    model.to(device).eval()
    return FinetunedModel(
        model,
        task,
        build_tokenizer(metadata["tokenizer"], vocabulary, metadata["lowercase"]),
        device,
        metadata["stamp"]["settings"]["precision"],
        metadata,
        tensors[SEEN].numpy(),
    )


def find_vocabulary(model: Path | None, vocab: Path | None) -> Vocabulary:
    """Return the vocabulary given, or the one in a model's directory. Raises UsageError."""
    if vocab is None:
        if model is None or not model.is_dir():
            raise UsageError("--vocab is missing; only a model directory has its own vocabulary")
        vocab = model / "vocab.txt"
    return read_vocabulary(vocab)


def task_of(metadata: Mapping[str, Any]) -> Task:
    """Return the task that a fine-tuned model's metadata describe."""
    task_class, config = TASKS.configure(metadata["task"], "task")
    settings = TaskSettings(
        seq_length=metadata["seq_length"],
        token_ids=TokenIds(**metadata["token_ids"]),
        labels=tuple(metadata["labels"]),
        label_counts=tuple(metadata["label_counts"]),
        pairs=metadata["pairs"],
        pooling=metadata["pooling"],
        reference=metadata["reference"],
    )
    return task_class(config, settings)


def task_metadata(task: Task) -> dict[str, Any]:
    """Return what `task_of` reads, as JSON values."""
    settings = task.settings
    return {
        "task": {"name": task.name, **task.config.model_dump(mode="json")},
        "seq_length": settings.seq_length,
        "labels": list(settings.labels),
        "label_counts": list(settings.label_counts),
        "pairs": settings.pairs,
        "pooling": settings.pooling,
        "reference": settings.reference,
    }


def fixed_width(settings: TaskSettings | FinetuneSpec) -> int | None:
    """Return the width all batches are padded to, None where the longest row decides."""
    return settings.seq_length if settings.reference == "uer-2020" else None


@torch.no_grad()
def infer(
    model: Model,
    task: Task,
    rows: Rows,
    device: torch.device,
    precision: str,
    width: int | None = None,
) -> list[Any]:
    """Return the task's outcome of each row, in their order; dropout is off.

    Rows of like length share a batch, so that little of it is padding.
    """
    model.eval()
    head = model.get_submodule("head")
    outcomes: list[Any] = [None] * len(rows)
    for part in inference_batches(rows.lengths, width):
        chosen = rows.take(part)
        batch = make_batch(chosen, width, task.settings.token_ids.pad)
        task.collate(chosen, batch)
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        with autocast(device, precision):
            logits, _ = head(model.encode(batch), batch)
        found = task.decode(head, logits, batch)
        for position, outcome in zip(part.tolist(), found, strict=True):
            outcomes[position] = outcome
    return outcomes
