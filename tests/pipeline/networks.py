"""Tiny rows, architectures and training for tests of networks."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.model import Model, build_model, initialize
from pipeline.registry import EMBEDDINGS, ENCODERS, SUBENCODERS
from pipeline.spec import ArchitectureSpec, Component
from pipeline.subencoders import Characters
from pipeline.text.order import RowRandom
from pipeline.text.rows import Ragged, Rows
from pipeline.text.vocabulary import TokenIds
from pipeline.training.batching import make_batch

VOCAB_SIZE, HIDDEN_SIZE = 40, 16
IDS = TokenIds(VOCAB_SIZE, pad=0, unk=1, cls=2, sep=3, mask=4)
CHARACTERS = Characters(
    torch.from_numpy(np.random.RandomState(5).randint(1, 12, (VOCAB_SIZE, 4)))
    * (torch.arange(4) < (torch.arange(VOCAB_SIZE) % 4 + 1)[:, None]),
    12,
)
# What makes a component small, where its defaults are not.
SMALL: dict[str, dict[str, Any]] = {
    "transformer": {"num_layers": 2, "num_heads": 4, "feedforward_size": 32},
    "attention": {"num_layers": 2, "num_heads": 4},
    "cnn": {"num_layers": 3},
    "gated_cnn": {"num_layers": 4},
    "cls": {"num_labels": 3},
}
# Encoders in all their modes: name, options.
ENCODER_MODES = [
    (name, options)
    for name in ENCODERS.names()
    for options in (
        {},
        *({k: v} for k, v in (("mask", "causal"), ("bidirectional", True))),
    )
    if set(options) <= set(ENCODERS.get(name).Config.model_fields)
]


def ragged(*lists: list[int]) -> Ragged:
    """Return lists as a column."""
    values = np.array([value for part in lists for value in part], np.uint16)
    return Ragged(values, np.cumsum([0, *(len(part) for part in lists)]))


def make_rows(lengths: tuple[int, ...] = (5, 9, 7, 3), seed: int = 0) -> Rows:
    """Return rows that have the columns of every instance kind."""
    random = np.random.RandomState(seed)
    texts = [random.randint(5, VOCAB_SIZE, length).tolist() for length in lengths]
    count = len(lengths)
    return Rows(
        np.arange(count),
        {
            "token_ids": ragged(*texts),
            "first_length": np.array([length // 2 for length in lengths]),
            "is_random": np.arange(count, dtype=np.uint8) % 2,
            "label": np.arange(count) % 3,
            "target_ids": ragged(*(text[::-1][:4] for text in texts)),
        },
    )


def rng(rows: Rows, epoch: int = 0, seed: int = 7) -> RowRandom:
    """Return the draws of rows in an epoch."""
    return RowRandom(seed, np.full(len(rows), epoch), rows.indices)


def compose(
    encoder: str,
    targets: list[str] | tuple[str, ...] = (),
    embedding: str = "bert",
    subencoder: str | None = None,
    reference: str = "none",
    seed: int = 7,
    target_options: dict[str, dict[str, Any]] | None = None,
    **options: Any,
) -> Model:
    """Return a tiny model, initialised; options: of the encoder. Without dropout."""
    chosen = {**(target_options or {})}
    architecture = ArchitectureSpec(
        embedding=section(EMBEDDINGS, embedding),
        encoder=section(ENCODERS, encoder, **{"hidden_size": HIDDEN_SIZE, **options}),
        subencoder=section(SUBENCODERS, subencoder) if subencoder else None,
    )
    sections = [
        Component(name=name, **{**SMALL.get(name, {}), **chosen.get(name, {})}) for name in targets
    ]
    characters = CHARACTERS if subencoder else None
    model = build_model(architecture, IDS, sections, reference, characters)
    initialize(model, seed, reference)
    return model


def section(registry: Any, name: str, **options: Any) -> Component:
    """Return a tiny component without dropout."""
    fields = registry.get(name).Config.model_fields
    small = {"dropout": 0.0, **SMALL.get(name, {})}
    small = {key: value for key, value in small.items() if key in fields}
    return Component(name=name, **{**small, **options})


def collated(model: Model, rows: Rows, width: int | None = None) -> tuple[dict[str, Tensor], int]:
    """Return (batch, units) of rows after all targets have completed it."""
    batch = make_batch(rows, width)
    return batch, sum(model.collate(rows, batch, rng(rows)))


def loss_of(model: Model, batch: dict[str, Tensor]) -> Tensor:
    """Return the sum of the targets' losses."""
    return torch.stack([output.loss_sum for output in model(batch)]).sum()


def overfit(model: Model, rows: Rows, steps: int = 60, rate: float = 0.02) -> tuple[float, float]:
    """Return the loss for each unit before and after training on the same rows."""
    torch.manual_seed(0)
    batch, units = collated(model, rows)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of(model, batch) / units
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0], losses[-1]
