"""Formats with tensor names of their own, mapped onto ours in both directions by one table.

A converter says where each of our tensors stands in its format (`place`); reading and writing both
follow from that, so they cannot disagree. Every tensor on both sides must be accounted for.
"""

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from pipeline.artifacts import read_json_artifact
from pipeline.converters import (
    RECORD,
    SEGMENT,
    VOCABULARY,
    WORD,
    Converter,
    PortableModel,
    require_as_stated,
)
from pipeline.converters.tensor_files import shorten, to_float32
from pipeline.errors import ArtifactError, ConfigError, DataError, UsageError, printable
from pipeline.model import outline_model
from pipeline.spec import ArchitectureSpec, Component, ConvertSpec
from pipeline.subencoders import ROWS
from pipeline.text.vocabulary import Vocabulary, read_vocabulary
from pipeline.training.checkpoint import digest_weights, require_vocabulary
from pipeline.training.inference import HEAD, SEEN, task_of


def unchanged(tensor: Tensor) -> Tensor:
    """Return the tensor."""
    return tensor


class Place(NamedTuple):
    """Where a tensor of ours stands in another format."""

    name: str
    pack: Callable[[Tensor], Tensor] = unchanged
    """Ours to theirs."""
    unpack: Callable[[Tensor], Tensor] = unchanged
    """Theirs to ours."""


class ForeignConverter(Converter):
    """A format with tensor names of its own."""

    dropped: ClassVar[tuple[str, ...]] = ()
    """Patterns of tensors that are no weights (counters, moments of an optimizer)."""
    carried: ClassVar[Mapping[str, str]] = {}
    """Tensors that are kept for the way back though no part of ours uses them, theirs to ours."""
    implied: ClassVar[tuple[str, ...]] = ()
    """Copies that are read where they are there and never written."""

    @abstractmethod
    def load(self, source: Path) -> tuple[dict[str, Tensor], Path]:
        """Return the tensors as they are stored, and the file to name in messages."""

    @abstractmethod
    def describe(
        self, source: Path, weights: Mapping[str, Tensor], spec: ConvertSpec
    ) -> dict[str, Any]:
        """Return architecture, targets, tokenizer, lowercase and reference of a foreign model."""

    @abstractmethod
    def place(self, name: str, metadata: Mapping[str, Any]) -> Place | None:
        """Return where our tensor `name` stands; None: the format has no place for it."""

    @abstractmethod
    def save(self, tensors: dict[str, Tensor], model: PortableModel, folder: Path) -> None:
        """Write packed tensors, and settings as the format has them."""

    def rename(self, weights: dict[str, Tensor], where: str) -> dict[str, Tensor]:
        """Return the weights under the names that `place` gives, whatever their generation."""
        return weights

    def arrange(self, packed: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return packed tensors under the names they are stored by."""
        return packed

    def check(self, model: PortableModel) -> None:
        """Raise ConfigError if the format has no such model; note what it computes otherwise."""

    def copies(
        self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """Return what the format stores a second time, by its names; tensors: ours."""
        return {}

    def find_vocab(self, source: Path) -> Vocabulary | None:
        """Return the vocabulary that stands beside the weights, None if there is none."""
        path = source / VOCABULARY if source.is_dir() else None
        return read_vocabulary(path) if path is not None and path.exists() else None

    def read_vocab(self, source: Path, vocab: Path | None) -> Vocabulary:
        """Return the vocabulary given or found. Raises UsageError; ConfigError if they differ."""
        found = self.find_vocab(source)
        given = None if vocab is None else read_vocabulary(vocab)
        if found is None and given is None:
            raise UsageError(f"--vocab is missing; {source} holds no vocabulary")
        if found is not None and given is not None and found.digest != given.digest:
            raise ConfigError(
                f"--vocab {vocab}: {len(given.tokens)} tokens, not those of {source}, which has "
                f"{len(found.tokens)}; leave it out, or give the one the model was made with"
            )
        return given or found  # type: ignore[return-value]

    def tables(
        self, source: Path, vocabulary: Vocabulary, tensors: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return tensors of ours that come from other files of the source."""
        return {}

    def read(self, source: Path, vocab: Path | None, spec: ConvertSpec) -> PortableModel:
        """Return the model at `source`, every tensor accounted for."""
        stored, path = self.load(source)
        where = str(path)
        digest = digest_weights({k: v for k, v in stored.items() if v.is_floating_point()})
        record = read_record(source, digest, path)
        ignored = [*self.dropped, *spec.ignore]
        kept = {k: v for k, v in stored.items() if not matches(k, ignored)}
        weights, notes = to_float32(kept, where)
        if record is None:
            notes.append(f"{where}: no digest is known, the weights are not verified")
        left = sorted(k for k in stored if matches(k, spec.ignore))
        notes += [f"{where}: left out as asked: {', '.join(left)}"] if left else []
        weights = self.rename(weights, where)
        vocabulary = self.read_vocab(source, vocab)
        if record is None:
            metadata = complete(self.describe(source, weights, spec), vocabulary)
        else:
            metadata = record["metadata"]
            require_as_stated(metadata, spec, where)
            require_vocabulary(metadata, vocabulary.digest, where)
        tensors = self._gather(weights, metadata, where)
        tensors |= self.tables(source, vocabulary, tensors)
        if record is not None and record["padding_segment"]:
            tensors[SEGMENT][0] = torch.tensor(record["padding_segment"])
        if "task" in metadata:  # whose training rows are not known here
            tensors[SEEN] = torch.zeros(0, dtype=torch.int64)
        return PortableModel(tensors, metadata, vocabulary, digest, notes, record is not None)

    def _gather(
        self, weights: dict[str, Tensor], metadata: dict[str, Any], where: str
    ) -> dict[str, Tensor]:
        """Return our tensors out of foreign ones; all of both must be used."""
        tensors: dict[str, Tensor] = {}
        problems: list[str] = []
        table = self.place(WORD, metadata)
        if table is not None and table.name in weights:
            require_rows(len(weights[table.name]), metadata["token_ids"]["vocab_size"], where)
        for name, shape in expected_shapes(metadata).items():
            place = self.place(name, metadata)
            if place is None:
                raise ConfigError(f"{where}: {self.name} has no place for {name}")
            if place.name not in weights:
                problems.append(f"{where}: tensor {place.name} is missing")
                continue
            found = weights.pop(place.name)
            unpacked = place.unpack(found)
            if name == ROWS:  # as many as there are characters, which no setting says
                shape = (len(unpacked), *shape[1:])
            if tuple(unpacked.shape) != shape:
                wanted = list(place.pack(torch.zeros(shape, device="meta")).shape)
                problems.append(
                    f"{where}: tensor {place.name} has shape {list(found.shape)}, the "
                    f"architecture asks for {wanted}"
                )
            tensors[name] = unpacked.contiguous()
        problems += self._take_copies(tensors, weights, metadata, where)
        for theirs, ours in self.carried.items():
            if theirs in weights:
                tensors[ours] = weights.pop(theirs)
        problems += [
            f"{where}: tensor {printable(name)} is not one of the model; `ignore` leaves it out"
            for name in sorted(weights)
        ]
        if problems:
            count = f"{where}: {len(problems)} tensors do not fit the architecture; all in turn:"
            raise DataError(count, *shorten(problems, where))
        return tensors

    def _take_copies(
        self,
        tensors: dict[str, Tensor],
        weights: dict[str, Tensor],
        metadata: dict[str, Any],
        where: str,
    ) -> list[str]:
        """Remove from `weights` what is there twice; return what differs from its other copy."""
        if tensors.keys() != expected_shapes(metadata).keys():
            return []
        problems = []
        for name, tensor in self.copies(tensors, metadata).items():
            if name in weights and not equal(weights.pop(name), tensor):
                problems.append(
                    f"{where}: tensor {name} differs from the one it is said to be a copy of"
                )
        return problems

    def write(self, model: PortableModel, folder: Path) -> str:
        """Write the model's files into a folder; return the SHA-256 of the tensors written."""
        self.check(model)
        packed: dict[str, Tensor] = {}
        homeless = []
        for name, tensor in model.tensors.items():
            place = self.place(name, model.metadata)
            if place is None and name != SEEN:
                homeless.append(name)
            elif place is not None:
                packed[place.name] = place.pack(tensor).contiguous()
        if homeless:
            model.notes.append(f"{self.name} has no place for {', '.join(homeless)}: left out")
        for name, tensor in self.copies(model.tensors, model.metadata).items():
            if name not in self.implied:
                packed[name] = tensor
        packed = self.arrange(packed)
        self.save(packed, model, folder)
        return digest_weights(packed)


def equal(left: Tensor, right: Tensor) -> bool:
    """Return whether two tensors have equal shape and values."""
    return left.shape == right.shape and torch.equal(left, right)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Return whether a name fits one of the patterns (`head.*`)."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def rename_by(rules: Sequence[tuple[str, str]], name: str) -> str | None:
    """Return a name rewritten by the first rule whose pattern is all of it; None: none fits."""
    for pattern, template in rules:
        if found := re.fullmatch(pattern, name):
            return found.expand(template)
    return None


def complete(described: dict[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
    """Return a description as metadata of a model with this vocabulary."""
    return {
        **described,
        "vocabulary": vocabulary.digest,
        "token_ids": asdict(vocabulary.token_ids),
    }


def expected_shapes(metadata: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of all tensors of the model that metadata describe."""
    architecture = ArchitectureSpec.model_validate(metadata["architecture"])
    targets = [Component.model_validate(section) for section in metadata.get("targets", [])]
    size = metadata["token_ids"]["vocab_size"]
    model = outline_model(architecture, targets, size, metadata.get("reference", "none"))
    if "task" in metadata:
        with torch.device("meta"):
            model.add_module(HEAD.rstrip("."), task_of(metadata).build_head(model.hidden_size))
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def require_rows(rows: int, vocabulary: int, where: str) -> None:
    """Raise ConfigError unless the word embedding has a row for each token."""
    if rows != vocabulary:
        raise ConfigError(
            f"{where}: the word embedding has {rows} rows, the vocabulary {vocabulary} tokens; "
            "pass the vocabulary it was made with"
        )


def read_record(source: Path, digest: str, weights: Path) -> dict[str, Any] | None:
    """Return the record beside weights that this pipeline wrote, None if there is none.

    Raises ArtifactError if the weights are not those of the record.
    """
    path = source / RECORD
    if not source.is_dir() or not path.exists():
        return None
    record = read_json_artifact(path, "convert")
    if record["weights"] != digest:
        raise ArtifactError(
            f"{weights}: weights have SHA-256 {digest[:12]}..., {RECORD} says "
            f"{printable(record['weights'])[:12]}...; damaged, or trained since: then remove "
            f"{RECORD}"
        )
    return record
