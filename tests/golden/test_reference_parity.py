"""Twenty optimiser steps equal the 2020 reference's, for every encoder and target that runs there.

Expected: reference_parity.json, written by make_reference_parity.py. The preset uer-2020 is all
that our side is told; names and layouts of tensors are the converter's.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.model import Model, build_model
from pipeline.registry import CONVERTERS
from pipeline.spec import ArchitectureSpec, Component, OptimizationSpec
from pipeline.subencoders import Characters
from pipeline.text.vocabulary import TokenIds
from pipeline.training.optimizer import build_optimizer, schedule_factor, set_rate
from tests.golden import make_reference_parity as reference

EXPECTED = json.loads(Path(__file__).with_name("reference_parity.json").read_text())
IDS = TokenIds(reference.VOCAB_SIZE, pad=0, unk=1, cls=2, sep=3, mask=4)
SIZE, LAYERS = reference.SIZES["hidden_size"], reference.LAYERS
HEADS = {"num_heads": reference.SIZES["heads_num"], "dropout": 0.0}
FORWARD = {"feedforward_size": reference.SIZES["feedforward_size"]}
MIXED = {"kernel_size": reference.KERNEL_SIZE, "dropout": 0.0}
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": {"name": "transformer", **HEADS, **FORWARD},
    "gpt": {"name": "transformer", "mask": "causal", **HEADS, **FORWARD},
    "attn": {"name": "attention", **HEADS},
    "lstm": {"name": "lstm", "dropout": 0.0},
    "gru": {"name": "gru", "dropout": 0.0},
    "lstm_both": {"name": "lstm", "dropout": 0.0, "bidirectional": True},
    "gru_both": {"name": "gru", "dropout": 0.0, "bidirectional": True},
    "bilstm": {"name": "bilstm", "dropout": 0.0},
    "cnn": {"name": "cnn", "kernel_size": reference.KERNEL_SIZE, "num_layers": LAYERS + 1},
    "gatedcnn": {
        "name": "gated_cnn",
        "kernel_size": reference.KERNEL_SIZE,
        "block_size": reference.BLOCK_SIZE,
    },
    "rcnn": {"name": "rcnn", **MIXED},
    "crnn": {"name": "crnn", **MIXED},
}
SUBENCODERS: dict[str, dict[str, Any]] = {
    "avg": {"name": "avg"},
    "lstm": {"name": "lstm", "num_layers": LAYERS, "dropout": 0.0},
    "cnn": {"name": "cnn", "kernel_size": reference.KERNEL_SIZE},
}
OPTIMIZATION = OptimizationSpec(
    total_steps=reference.STEPS,
    checkpoint_steps=reference.STEPS,
    learning_rate=reference.LEARNING_RATE,
    warmup=reference.WARMUP,
    weight_decay=0.0,
    clip_norm=0.0,
    bias_correction=False,
)


def targets_of(name: str) -> list[Component]:
    """Return our targets for one of the reference's."""
    names = {"bert": ["mlm", "nsp"]}.get(name, [name])
    labels = {"cls": {"num_labels": reference.NUM_LABELS}}
    return [Component(name=name, **labels.get(name, {})) for name in names]


def build(case: str, **options: Any) -> Model:
    """Return our model; targets that we refuse for this encoder come from a model of another.

    options: of the encoder, besides those of the case.
    """
    encoder, target, embedding, subencoder = case.split("/")
    section = {"hidden_size": SIZE, "num_layers": LAYERS, **ENCODERS[encoder], **options}
    words = torch.from_numpy(reference.batch(0)["words"])
    characters = Characters(words, 20) if subencoder != "none" else None

    def compose(encoder: dict[str, Any], targets: list[Component]) -> Model:
        architecture = ArchitectureSpec(
            embedding=Component(name=embedding, dropout=0.0),
            encoder=Component(**encoder),
            subencoder=Component(**SUBENCODERS[subencoder]) if subencoder in SUBENCODERS else None,
        )
        return build_model(architecture, IDS, targets, "uer-2020", characters)

    model = compose(section, [])
    willing = {"name": "bilstm" if target == "bilm" else "lstm", "hidden_size": SIZE}
    model.targets = compose(willing, targets_of(target)).targets
    return model


def places(model: Model, target: str) -> dict[str, Any]:
    """Return our names -> where the converter says a tensor stands in the reference."""
    metadata = {"targets": [t.section() for t in targets_of(target)], "reference": "uer-2020"}
    converter = CONVERTERS.get("uer")()
    return {name: converter.place(name, metadata) for name, _ in model.named_parameters()}


def batch_of(target: str, number: int) -> dict[str, Tensor]:
    """Return one of the reference's batches as ours; nothing is drawn, so collate is not asked."""
    arrays = reference.batch(number)
    src, _ = reference.inputs(target, arrays)

    def at(labels: np.ndarray, name: str) -> dict[str, np.ndarray]:
        positions = np.flatnonzero(labels)
        return {f"{name}_positions": positions, f"{name}_labels": labels.reshape(-1)[positions]}

    batch = {
        "token_ids": src,
        "segment_ids": arrays["seg"],
        "lengths": (arrays["seg"] > 0).sum(1),
        "nsp_labels": arrays["is_random"],
        "cls_labels": arrays["label"],
        "s2s_inputs": arrays["target"],
        **at(arrays["chosen"], "mlm"),
        **at(arrays["next"], "lm"),
        **at(arrays["next"], "bilm_next"),
        **at(arrays["previous"], "bilm_previous"),
        **at(arrays["target"], "s2s"),
    }
    return {name: torch.from_numpy(values) for name, values in batch.items()}


def units(name: str, batch: dict[str, Tensor]) -> int:
    """Return the number of units of a target in a batch."""
    counted = {"nsp": "nsp_labels", "cls": "cls_labels", "bilm": "bilm_next_labels"}
    return len(batch[counted.get(name, f"{name}_labels")])


def train(model: Model, target: str) -> list[float]:
    """Train as our trainer does; return the loss of each step."""
    named = list(model.named_parameters())
    optimizer = build_optimizer(named, OPTIMIZATION)
    model.train()
    losses = []
    for step in range(reference.STEPS):
        batch = batch_of(target, step % reference.BATCHES)
        terms = [
            output.loss_sum / units(name, batch)
            for name, output in zip(model.targets, model(batch), strict=True)
        ]
        loss = torch.stack(terms).sum()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        factor = schedule_factor(step, OPTIMIZATION.total_steps, OPTIMIZATION.warmup, "linear")
        set_rate(optimizer, OPTIMIZATION.learning_rate * factor, step, OPTIMIZATION)
        optimizer.step()
    return losses


def largest_gap(ours: list[float], theirs: list[float]) -> float:
    """Return the largest relative difference of two lists of losses."""
    return max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))


def load_start(model: Model, where: dict[str, Any]) -> None:
    """Give each tensor the values with which the reference's starts."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            place = where[name]
            shape = tuple(place.pack(torch.zeros(parameter.shape)).shape)
            start = torch.from_numpy(reference.initial_values(place.name, shape))
            parameter.copy_(place.unpack(start))


@pytest.mark.parametrize("case", EXPECTED)
def test_parity(case: str) -> None:
    expected = EXPECTED[case]
    target = case.split("/")[1]
    model = build(case)
    where = places(model, target)
    assert {place.name for place in where.values()} == set(expected["tensors"])
    load_start(model, where)
    losses = train(model, target)
    loss_gap = largest_gap(losses, expected["losses"])
    weight_gap = 0.0
    for name, parameter in model.named_parameters():
        place = where[name]
        values = place.pack(parameter.detach()).contiguous().numpy()
        moved, *furthest = expected["tensors"][place.name]
        distance = np.abs(values - reference.initial_values(place.name, values.shape)).mean()
        assert distance == pytest.approx(moved, rel=0.02, abs=1e-5), place.name
        flat = values.reshape(-1)
        weight_gap = max(weight_gap, *(abs(float(flat[at]) - value) for at, value in furthest))
    print(f"{case}: largest differences: loss {loss_gap:.1e} relative, weights {weight_gap:.1e}")
    assert loss_gap < 1e-4
    assert weight_gap < 1e-4


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("bert/mlm/bert/none", {"norm": "layer"}),
        ("bilstm/lm/bert/none", {"read_padding": False}),
        ("lstm_both/mlm/bert/none", {"read_padding": False}),
        ("cnn/lm/bert/none", {"activation": "relu"}),
        ("rcnn/lm/bert/none", {"activation": "relu"}),
        ("gatedcnn/lm/bert/none", {"residual": "block"}),
        ("attn/mlm/bert/none", {"residual": "add"}),
    ],
)
def test_each_departure_of_the_preset_matters(case: str, options: dict[str, Any]) -> None:
    target = case.split("/")[1]
    model = build(case, **options)
    load_start(model, places(model, target))
    assert largest_gap(train(model, target), EXPECTED[case]["losses"]) > 1e-4
