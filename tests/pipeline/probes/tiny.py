"""Tiny models in files, as pre-training leaves them, with weights that nothing has trained."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pipeline.artifacts import make_stamp
from pipeline.model import build_model, initialize
from pipeline.probes import Request
from pipeline.spec import ArchitectureSpec, Component
from pipeline.subencoders import spell
from pipeline.text.vocabulary import read_vocabulary
from pipeline.training.checkpoint import save_tensors
from pipeline.training.pretrained import PretrainedModel, open_pretrained

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CHARACTERS = (
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过"
)
WORDS = ("##s", "go", "book", "books", "看", "书")
CPU = torch.device("cpu")

TRANSFORMER = {
    "name": "transformer",
    "hidden_size": 16,
    "num_layers": 2,
    "num_heads": 2,
    "feedforward_size": 32,
}
CAUSAL = {**TRANSFORMER, "mask": "causal"}
LSTM = {"name": "lstm", "hidden_size": 16, "num_layers": 2}
BERT = {"name": "bert", "max_positions": 32}


class KeptRows:
    """An output that keeps the rows."""

    path = None
    rows: list[dict[str, Any]]

    def write_rows(self, rows):
        self.rows = list(rows)


def write_vocabulary(folder: Path, *tokens: str) -> Path:
    """Write a vocabulary of the special tokens, some characters and words, and `tokens`."""
    path = folder / "vocab.txt"
    lines = [*SPECIAL, *CHARACTERS, *WORDS, *tokens]
    path.write_bytes("".join(f"{token}\n" for token in lines).encode())
    return path


def write_model(
    folder: Path,
    target: str = "mlm",
    encoder: dict[str, Any] = TRANSFORMER,
    embedding: dict[str, Any] = BERT,
    tokenizer: str = "bert",
    scale: float = 8.0,
    subencoder: str | None = None,
    **metadata: Any,
) -> Path:
    """Write `folder`/model.safetensors for the vocabulary there, made first if it is missing.

    scale: on all matrices; untrained weights are so small that all tokens are about as likely.
    """
    vocab = folder / "vocab.txt"
    vocabulary = read_vocabulary(vocab if vocab.exists() else write_vocabulary(folder))
    parts = {"embedding": embedding, "encoder": encoder, "subencoder": subencoder}
    architecture = ArchitectureSpec.model_validate({k: v for k, v in parts.items() if v})
    characters = spell(vocabulary) if subencoder else None
    model = build_model(
        architecture, vocabulary.token_ids, [Component(name=target)], characters=characters
    )
    initialize(model, 7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale if parameter.ndim > 1 else 1.0)
    path = folder / "model.safetensors"
    values = {
        "stamp": make_stamp("pretrain", {}, {}),
        "architecture": architecture.model_dump(mode="json"),
        "targets": [{"name": target}],
        "reference": "none",
        "tokenizer": tokenizer,
        "lowercase": True,
        "special_tokens": False,
        "vocabulary": vocabulary.digest,
        "token_ids": asdict(vocabulary.token_ids),
    }
    save_tensors(path, model.state_dict(), {**values, **metadata})
    return path


def open_model(folder: Path, **options: Any) -> PretrainedModel:
    """Write a model and open it."""
    return open_pretrained(write_model(folder, **options), folder / "vocab.txt", CPU)


def request(folder: Path, source: Path | None = None) -> Request:
    """Return the request for the model and vocabulary of a folder."""
    return Request(folder / "model.safetensors", folder / "vocab.txt", source, CPU)
