"""Trained models at work without a task: opened from their own metadata, run over lines of text.

Fine-tuned models open too; their heads are left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.kernels import Packing
from pipeline.layers import Recurrent
from pipeline.model import Model, build_model
from pipeline.spec import ArchitectureSpec, Component
from pipeline.subencoders import characters_of
from pipeline.text.inputs import join_pieces
from pipeline.text.rows import Ragged, Rows
from pipeline.text.tokenizers import Tokenizer, build_tokenizer
from pipeline.text.vocabulary import SPECIAL_TOKENS, Vocabulary
from pipeline.training.batching import make_batch
from pipeline.training.checkpoint import (
    load_tensors,
    load_weights,
    model_file,
    require_vocabulary,
)
from pipeline.training.epochs import inference_batches
from pipeline.training.inference import BODY, find_vocabulary

TARGETS = "targets."


@dataclass(frozen=True)
class PretrainedModel:
    """A model with its targets, its vocabulary and what it reads text with."""

    model: Model
    vocabulary: Vocabulary
    tokenizer: Tokenizer
    device: torch.device
    metadata: Mapping[str, Any]
    where: str
    """The file, for messages."""

    def room(self, special_tokens: bool) -> int | None:
        """Return how many tokens a text may have, None where there is no limit."""
        table = getattr(self.model.embedding, "position", None)
        return None if table is None else table.num_embeddings - 2 * special_tokens

    def wants_special_tokens(self, wanted: bool | None) -> bool:
        """Return `wanted`, or for None whether the model's rows had [CLS] and [SEP] in training."""
        return bool(self.metadata.get("special_tokens", True)) if wanted is None else wanted

    def target(self, name: str) -> Any:
        """Return a target by name. Raises ConfigError if the model was not trained with it."""
        if name not in self.model.targets:
            found = ", ".join(self.model.targets) or "none"
            raise ConfigError(f"{self.where}: has no target {name}, found {found}")
        return self.model.targets[name]

    @property
    def word_embedding(self) -> Tensor:
        """The table of the vocabulary, (V, E)."""
        return self.model.embedding.get_parameter("word.weight").detach()

    def token_of(self, word: str) -> int | None:
        """Return the id of a word that is one known token, as it stands or as text; else None."""
        token = self.vocabulary.ids.get(word)
        ids = self.tokenizer.encode([word]).values.tolist() if token is None else [token]
        known = len(ids) == 1 and self.vocabulary.tokens[ids[0]] not in SPECIAL_TOKENS
        return ids[0] if known else None

    def frame(self, lists: Ragged, special_tokens: bool) -> Ragged:
        """Return ids (B lists) with [CLS] before and [SEP] behind them, or as they are."""
        if not special_tokens:
            return lists
        ids = self.vocabulary.token_ids
        return join_pieces([ids.cls, lists, ids.sep])

    @torch.no_grad()
    def layer_sizes(self) -> list[int]:
        """Return the size of the embedding's output and of each layer's hidden states."""
        row = torch.zeros(1, 1, dtype=torch.int64, device=self.device)
        with record_layers(self.model) as states:
            states.append(self.model.encode({"token_ids": row, "segment_ids": row + 1}))
        return [state.shape[-1] for state in states]

    @torch.no_grad()
    def iter_states(
        self, rows: Ragged, layers: Sequence[int] | None = None
    ) -> Iterator[tuple[np.ndarray, dict[str, Tensor], list[Tensor]]]:
        """Yield (row positions, batch, hidden states of each layer), rows of like length together.

        rows: ids, none of them empty. layers: 0 is the embedding, None stands for the last one
        alone. Each state is (B, T, D); batch holds token_ids, segment_ids, lengths. Dropout is off.
        """
        table = Rows(np.arange(len(rows), dtype=np.int64), {"token_ids": rows})
        for part in inference_batches(rows.lengths):
            batch = make_batch(table.take(part), pad=self.vocabulary.token_ids.pad)
            batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
            if layers is None:
                yield part, batch, [self.model.encode(batch)]
                continue
            with record_layers(self.model) as states:
                states.append(self.model.encode(batch))
            yield part, batch, [states[layer] for layer in layers]


def open_pretrained(path: Path, vocab: Path | None, device: torch.device) -> PretrainedModel:
    """Return a model, every byte checked, dropout off.

    path: a file, or a directory that holds its own vocab.txt. Raises MissingError, ArtifactError,
    ConfigError (another vocabulary) and DataError (tensors that are not those of the model).
    """
    file = model_file(path)
    tensors, metadata = load_tensors(file)
    vocabulary = find_vocabulary(path, vocab)
    require_vocabulary(metadata, vocabulary.digest, str(file))
    architecture = ArchitectureSpec.model_validate(metadata["architecture"])
    targets = [Component.model_validate(section) for section in metadata.get("targets", [])]
    reference = metadata.get("reference", "none")
    model = build_model(
        architecture, vocabulary.token_ids, targets, reference, characters_of(tensors)
    )
    load_weights(model, tensors, str(file), (*BODY, TARGETS))
    model.to(device).eval()
    tokenizer = build_tokenizer(metadata["tokenizer"], vocabulary, metadata["lowercase"])
    return PretrainedModel(model, vocabulary, tokenizer, device, metadata, str(file))


@contextmanager
def record_layers(model: Model) -> Iterator[list[Tensor]]:
    """Give a list that fills, while the model encodes, with its hidden states.

    The embedding's output (B, T, E), then each layer's (B, T, D), without the last: that is what
    `encode` returns. A layer's output is what the next one is given, residuals included; bilstm's
    two halves, which never meet, count as one layer.
    """
    states: list[Tensor] = []

    def keep_input(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        packing = next((given for given in inputs if isinstance(given, Packing)), None)
        states.append(inputs[0] if packing is None else packing.unpack(inputs[0]))

    handles = [layer.register_forward_pre_hook(keep_input) for layer in _layers(model.encoder)]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def _layers(encoder: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules whose inputs are the hidden states before the last ones."""
    if getattr(encoder, "separate_halves", False):
        yield encoder
        return
    for name, module in encoder.named_modules():
        if isinstance(module, Recurrent):
            yield module
            yield module.dropout  # stands between its layers
        elif isinstance(module, nn.ModuleList) and name.rpartition(".")[2] == "layers":
            yield from module
