"""Vocabularies: what two have in common; a model cut down or extended to another."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from pipeline.artifacts import digest_bytes, make_stamp
from pipeline.errors import UsageError
from pipeline.model import INITIAL_DEVIATION, outline_model
from pipeline.probes import Output, Probe
from pipeline.registry import PROBES, ComponentConfig
from pipeline.spec import ArchitectureSpec, Component
from pipeline.subencoders import TABLE
from pipeline.text.order import uniform
from pipeline.text.vocabulary import Vocabulary, read_vocabulary
from pipeline.training.checkpoint import load_tensors, model_file, require_vocabulary
from pipeline.training.inference import find_vocabulary


def compare_vocabularies(first: Vocabulary, second: Vocabulary) -> dict[str, int]:
    """Return the sizes of two vocabularies, of their differences and of what they share."""
    shared = first.ids.keys() & second.ids.keys()
    return {
        "first": len(first.tokens),
        "second": len(second.tokens),
        "only in the first": len(first.tokens) - len(shared),
        "only in the second": len(second.tokens) - len(shared),
        "in both": len(shared),
        "in both with one id": sum(first.ids[token] == second.ids[token] for token in shared),
    }


def token_tensors(metadata: Mapping[str, Any]) -> set[str]:
    """Return the names of a model's tensors that have a row for each token.

    Found by comparing with the same model of a larger vocabulary.
    """
    architecture = ArchitectureSpec.model_validate(metadata["architecture"])
    targets = [Component.model_validate(section) for section in metadata.get("targets", [])]
    size, reference = metadata["token_ids"]["vocab_size"], metadata.get("reference", "none")
    ours = outline_model(architecture, targets, size, reference).state_dict()
    larger = outline_model(architecture, targets, size + 1, reference).state_dict()
    return {name for name, tensor in ours.items() if tensor.shape != larger[name].shape}


def adapt_rows(name: str, tensor: Tensor, old: Vocabulary, new: Vocabulary, seed: int) -> Tensor:
    """Return a tensor with a row for each token of the new vocabulary.

    tensor: (V, ...). Rows of tokens that both have are copied. A row of a new token depends on the
    seed, the tensor's name and the token alone: 0 in a bias, else as training starts.
    """
    places = [number for number, token in enumerate(new.tokens) if token not in old.ids]
    sources = torch.tensor([old.ids.get(token, 0) for token in new.tokens])
    rows = tensor[sources]
    if places:
        tokens = [new.tokens[place] for place in places]
        rows[places] = _initial_rows(name, tokens, tensor[0], seed).to(tensor.dtype)
    return rows


def adapt_characters(table: Tensor, old: Vocabulary, new: Vocabulary) -> Tensor:
    """Return a subencoder's table of the characters of each token, for the new vocabulary.

    table: (V, S), 0 behind the last character. Characters that no old token has are left out.
    """
    ids: dict[str, int] = {}
    for token, row in zip(old.tokens, table.tolist(), strict=True):
        ids.update((character, i) for character, i in zip(token, row, strict=False) if i)
    rows = torch.zeros(len(new.tokens), table.shape[1], dtype=table.dtype)
    for number, token in enumerate(new.tokens):
        known = [ids[character] for character in token if character in ids][: table.shape[1]]
        rows[number, : len(known)] = torch.tensor(known, dtype=table.dtype)
    return rows


def _initial_rows(name: str, tokens: list[str], row: Tensor, seed: int) -> Tensor:
    """Return N(0, 0.02) cut at two deviations, (tokens, ...), or zeros for a bias."""
    if row.ndim == 0:
        return torch.zeros(len(tokens))
    digests = np.array([_counter(f"{name}\n{token}") for token in tokens], np.uint64)
    draws = torch.from_numpy(uniform(seed, digests[:, None], np.arange(row.numel())[None, :]))
    # Inverse of the normal distribution between -2 and 2 deviations.
    edge = torch.special.ndtr(torch.tensor(2.0, dtype=torch.float64))
    values = torch.special.ndtri((1 - edge) + draws * (2 * edge - 1)) * INITIAL_DEVIATION
    return values.view(len(tokens), *row.shape)


def _counter(text: str) -> int:
    return int(digest_bytes(text.encode())[:16], 16)


@PROBES.register("vocabulary")
class VocabularyProbe(Probe):
    """Compare two vocabularies, or adapt a model to another vocabulary.

    Without --model: a row for each figure about --vocab (the first) and --in (the second). With
    --model: a model directory --out with the vocabulary --in; tokens keep their rows by name, so
    hidden states and the scores of shared tokens are what they were; other tokens start anew.
    Source: the 2020 reference's diff_vocab and dynamic_vocab_adapter. Differs: seeded; the outputs
    of all targets are adapted.
    """

    reads = "another vocabulary, one token a line"

    class Config(ComponentConfig):
        """Options of the adaptation."""

        seed: int = Field(7, ge=0)
        """Seed of the rows of new tokens."""

    config: Config

    def run(self, output: Output) -> dict[str, Any]:
        """Write the comparison or the adapted model; return the figures."""
        request = self.request
        if request.source is None:
            raise UsageError("--in is missing; give the other vocabulary")
        first = find_vocabulary(request.model, request.vocab)
        second = read_vocabulary(request.source)
        figures = compare_vocabularies(first, second)
        if request.model is None:
            output.write_rows({"figure": name, "tokens": n} for name, n in figures.items())
            return figures
        tensors, metadata = load_tensors(model_file(request.model))
        require_vocabulary(metadata, first.digest, str(request.model))
        for name in token_tensors(metadata):
            tensors[name] = adapt_rows(name, tensors[name], first, second, self.config.seed)
        if TABLE in tensors:
            tensors[TABLE] = adapt_characters(tensors[TABLE], first, second)
        output.write_model(tensors, self._metadata(metadata, second), second)
        return figures

    def _metadata(self, metadata: Mapping[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
        """Return the metadata of the adapted model; its settings remain those it was made with."""
        settings = {**metadata["stamp"]["settings"], "adapted": self.config.model_dump()}
        inputs = {"model": metadata["weights"], "vocabulary": vocabulary.digest}
        return {
            **metadata,
            "stamp": make_stamp("probe", settings, inputs, "torch"),
            "vocabulary": vocabulary.digest,
            "token_ids": asdict(vocabulary.token_ids),
        }
