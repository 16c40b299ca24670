"""What fine-tuning starts from: settings made whole by the initial model, data, labels, weights."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.artifacts import digest_bytes, first_difference
from pipeline.errors import ConfigError, DataError
from pipeline.model import Model, build_model, check_architecture, initialize
from pipeline.registry import TASKS
from pipeline.spec import ArchitectureSpec, FinetuneSpec
from pipeline.subencoders import characters_of, spell
from pipeline.tasks import Task, TaskSettings
from pipeline.text.order import name_counter, seed_of
from pipeline.text.rows import Rows
from pipeline.text.tokenizers import build_tokenizer
from pipeline.training.checkpoint import (
    load_tensors,
    load_weights,
    model_file,
    require_vocabulary,
)
from pipeline.training.finetuning import Round
from pipeline.training.inference import BODY, HEAD, find_vocabulary, task_metadata
from pipeline.training.labelled import (
    LabelledSet,
    content_digests,
    encode_examples,
    encode_set,
    first_groups,
    read_examples,
)

# Fields that an initial model settles; a spec may repeat them and not contradict them.
INHERITED = ("architecture", "tokenizer", "lowercase", "reference")


class Preparation:
    """Everything that is settled before the first update.

    The settings are checked when it is made (ConfigError), the data by `read` (DataError).
    """

    task: Task
    train: LabelledSet
    dev: LabelledSet
    training_rows: Rows

    def __init__(self, spec: FinetuneSpec, init: Path | None, vocab: Path | None):
        self.init_path = init
        self.initial: dict[str, Tensor] = {}
        self.initial_metadata: dict[str, Any] = {}
        if init is not None:
            self.initial, self.initial_metadata = load_tensors(model_file(init))
        self.vocabulary = find_vocabulary(init, vocab)
        if init is not None:
            require_vocabulary(self.initial_metadata, self.vocabulary.digest, str(init))
        self.spec = complete_spec(spec, self.initial_metadata, str(init))
        self.task_class, self.config = TASKS.configure(self.spec.task.section(), "task")
        size = self.vocabulary.token_ids.vocab_size
        check_architecture(self.architecture, [], size, self.spec.reference)
        self.tokenizer = build_tokenizer(self.spec.tokenizer, self.vocabulary, self.spec.lowercase)

    @property
    def architecture(self) -> ArchitectureSpec:
        """The network's architecture."""
        assert self.spec.architecture is not None, "complete_spec settles it"
        return self.spec.architecture

    def read(self, train: Path, dev: Path) -> None:
        """Read the data, settle the task, and encode the rows.

        The label map is that of the whole training file, whatever train_rows takes of it.
        """
        spec = self.spec
        file, dev_file = (
            read_examples(self.task_class, path, spec.bad_rows, "required") for path in (train, dev)
        )
        chosen = file.first_by_digest(spec.train_rows)
        labels = self.task_class.count_labels(file.examples, str(train))
        counts = self.task_class.count_labels(chosen, str(train)) if labels else {}
        settings = TaskSettings(
            seq_length=spec.seq_length,
            token_ids=self.vocabulary.token_ids,
            labels=tuple(labels),
            label_counts=tuple(counts.get(label, 0) for label in labels),
            pairs=getattr(chosen[0], "text_b", None) is not None,
            pooling=spec.pooling,
            reference=spec.reference,
        )
        self.task = self.task_class(self.config, settings)
        self.train = encode_examples(self.task, file, chosen, self.tokenizer)
        chosen_dev = first_groups(dev_file.examples, self.task.fold_key, spec.dev_rows)
        self.dev = encode_examples(self.task, dev_file, chosen_dev, self.tokenizer)
        self.training_rows = self.task.training_rows(self.train.rows)
        if not len(self.training_rows):
            raise DataError(f"{train}: no rows to train on; expected at least one with an answer")
        self.dev.ledger.note("also in training", self._repeats())
        self.build()

    def rounds(self) -> list[Round]:
        """Return the rounds of the cross-validation, if one is wanted, then that on all rows.

        Folds depend on digests of the texts; equal texts are in one fold.
        """
        folds, task = self.spec.folds or 0, self.task
        keys = [task.fold_key(example) for example in self.train.examples]
        places = np.array([int(digest_bytes(key.encode())[:15], 16) for key in keys])
        owners = self.training_rows.column("example")
        rounds = []
        for fold in range(folds):
            inside = np.flatnonzero(places % folds == fold)
            outside = np.flatnonzero(places[owners] % folds != fold)
            if not len(inside) or not len(outside):
                raise DataError(
                    f"folds: {folds} are too many for {len(set(keys))} distinct texts or questions"
                )
            examples = [self.train.examples[place] for place in inside.tolist()]
            left_out = encode_set(task, examples, self.train, self.tokenizer)
            rounds.append(Round(self.training_rows.take(outside), left_out))
        return [*rounds, Round(self.training_rows)]

    def _repeats(self) -> int:
        seen = np.unique(content_digests(self.train.examples))
        return int(np.isin(content_digests(self.dev.examples), seen).sum())

    def build(self) -> Model:
        """Return the model with its head, in the state in which every run starts.

        The head is the initial model's where task, labels and pooling are its; else it is new.
        """
        spec, ids = self.spec, self.vocabulary.token_ids
        characters = characters_of(self.initial or {})
        if self.architecture.subencoder and not self.initial:
            characters = spell(self.vocabulary)
        model = build_model(self.architecture, ids, reference=spec.reference, characters=characters)
        check_fit(spec, model, self.task.pools)
        torch.manual_seed(seed_of(spec.seed, name_counter("head")))
        head = self.task.build_head(model.hidden_size)
        if self.initial:
            load_weights(model, self.initial, str(self.init_path), BODY)
        else:
            initialize(model, spec.seed, spec.reference)
        model.add_module("head", head)
        if self.keeps_head:
            load_weights(model, self.initial, str(self.init_path), (HEAD,))
        return model

    @property
    def keeps_head(self) -> bool:
        """Whether the initial model was fine-tuned for this very task and these labels."""
        ours, theirs = task_metadata(self.task), self.initial_metadata
        return all(ours[key] == theirs.get(key) for key in ("task", "labels", "pairs", "pooling"))

    def inputs(self) -> dict[str, Any]:
        """Return the digests of everything read, for the stamp."""
        return {
            "train": self.train.digest,
            "dev": self.dev.digest,
            "vocabulary": self.vocabulary.digest,
            "init": self.initial_metadata.get("weights"),
        }

    def seen(self) -> Tensor:
        """Return the sorted digests of the training examples, (N,) int64."""
        return torch.from_numpy(np.unique(content_digests(self.train.examples)))

    def metadata(self, stamp: Mapping[str, Any]) -> dict[str, Any]:
        """Return what travels with the weights, so that later stages never ask again."""
        return {
            "stamp": dict(stamp),
            "architecture": self.architecture.model_dump(mode="json"),
            "tokenizer": self.spec.tokenizer,
            "lowercase": self.spec.lowercase,
            "vocabulary": self.vocabulary.digest,
            "token_ids": asdict(self.vocabulary.token_ids),
            **task_metadata(self.task),
            "rows": {
                part: {**data.ledger.record(), "chosen": len(data.examples)}
                for part, data in (("train", self.train), ("dev", self.dev))
            },
        }

    def warnings(self) -> list[str]:
        """Return what a person should know before training."""
        lines = []
        for name, data in (("train", self.train), ("dev", self.dev)):
            books = {**data.ledger.skipped, **data.ledger.noted}
            told = ", ".join(f"{count} {what}" for what, count in books.items())
            lines.append(f"{name}: {len(data.examples)} of {data.ledger.rows} rows used; {told}")
        return [line.removesuffix("; ") for line in lines]


def complete_spec(spec: FinetuneSpec, initial: Mapping[str, Any], where: str) -> FinetuneSpec:
    """Return a spec whose inherited fields are the initial model's.

    Raises ConfigError if the spec states one otherwise, or if no architecture is known.
    """
    if not initial:
        if spec.architecture is None:
            raise ConfigError("architecture: missing; without --init it must be given")
        return spec
    values = spec.model_dump(mode="json")
    for field in INHERITED:
        theirs = initial.get(field, values[field])
        stated = field in spec.model_fields_set and values[field] is not None
        different = first_difference({field: values[field]}, {field: theirs})
        if stated and different:
            raise ConfigError(f"{where}: made with other settings than the spec's: {different}")
        values[field] = theirs
    return FinetuneSpec(**values)


def check_fit(spec: FinetuneSpec, model: Model, pools: bool) -> None:
    """Raise ConfigError if rows have no positions, or a head that pools sees one token only."""
    table = getattr(model.embedding, "position", None)
    if table is not None and table.num_embeddings < spec.seq_length:
        raise ConfigError(
            f"seq_length: {spec.seq_length} is more than the {table.num_embeddings} positions "
            f"of the embedding; use at most {table.num_embeddings}"
        )
    blind = pools and spec.pooling == "first" and model.encoder.causal
    if blind and spec.reference == "none":
        raise ConfigError(
            f"pooling: first sees one token only, because encoder {model.encoder.name} does "
            "not look ahead; use last, mean or max"
        )
