"""What every target promises."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.model import Model
from pipeline.registry import TARGETS
from pipeline.training.batching import make_batch
from tests.pipeline.networks import (
    HIDDEN_SIZE,
    IDS,
    SMALL,
    collated,
    compose,
    make_rows,
    overfit,
    rng,
)

ENCODER = {"bilm": "bilstm", "lm": "lstm"}
MODES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in TARGETS.names()),
    ("mlm", {"unit": "span"}),
    ("mlm", {"norm": "rms", "activation": "silu"}),
    ("mlm", {"tied": True}),
    ("lm", {"tied": True}),
    ("bilm", {"boundaries": True}),
    ("nsp", {"pooler": False, "pooling": "mean"}),
    ("cls", {"pooling": "last"}),
    ("s2s", {"teacher": "same", "embedding_size": 6}),
]


def build(name: str, options: dict[str, Any]) -> Model:
    return compose(ENCODER.get(name, "transformer"), [name], target_options={name: options})


def without_rows(name: str) -> bool:
    """Whether a target's units are rows, so that one without tokens counts too."""
    return name in ("nsp", "cls")


@pytest.mark.parametrize(("name", "options"), MODES)
def test_finite_gradients_and_metrics(name: str, options: dict[str, Any]) -> None:
    model = build(name, options)
    batch, units = collated(model, make_rows())
    (output,) = model(batch)
    assert output.loss_sum.shape == ()
    output.loss_sum.backward()
    for parameter in model.targets.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    for metric, (correct, total) in output.metrics.items():
        assert metric.startswith(name)
        assert 0 <= correct.item() <= total.item() == units
    assert all(key.startswith(f"{name}_") for key in set(batch) - set(make_batch(make_rows())))


@pytest.mark.parametrize(("name", "options"), MODES)
def test_the_loss_is_a_sum_over_rows(name: str, options: dict[str, Any]) -> None:
    model, rows = build(name, options).eval(), make_rows((6, 2, 9, 9))
    batch, units = collated(model, rows)
    whole = model(batch)[0].loss_sum.item()
    parts, counts = 0.0, 0
    for row in range(4):
        part, count = collated(model, rows.take(np.array([row])))
        counts += count
        parts += model(part)[0].loss_sum.item()
    assert counts == units
    assert parts == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize(("name", "options"), MODES)
def test_the_width_of_the_padding_does_not_matter(name: str, options: dict[str, Any]) -> None:
    model, rows = build(name, options).eval(), make_rows()
    results = [model(collated(model, rows, width)[0])[0].loss_sum.item() for width in (None, 31)]
    assert results[0] == pytest.approx(results[1], rel=1e-4)


@pytest.mark.parametrize(("name", "options"), MODES)
def test_collating_again_gives_the_same(name: str, options: dict[str, Any]) -> None:
    model, rows = build(name, options), make_rows()
    first, second = collated(model, rows)[0], collated(model, rows)[0]
    assert set(first) == set(second)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(("name", "options"), MODES)
def test_tokens_change_only_where_it_is_announced(name: str, options: dict[str, Any]) -> None:
    model, rows = build(name, options), make_rows((60, 60))
    batch, _ = collated(model, rows)
    changed = not torch.equal(batch["token_ids"], make_batch(rows)["token_ids"])
    assert changed == TARGETS.get(name).replaces_tokens


@pytest.mark.parametrize(("name", "options"), MODES)
def test_rows_without_anything_to_predict(name: str, options: dict[str, Any]) -> None:
    model = build(name, options)
    rows = make_rows((1, 1) if name in ("lm", "bilm") else (0, 0))
    batch = make_batch(rows)
    (units,) = model.collate(rows, batch, rng(rows))
    (output,) = model(batch)
    empty = units == 0
    assert empty or without_rows(name) or options.get("boundaries") or name == "s2s"
    assert output.loss_sum.isfinite()
    assert (output.loss_sum == 0) == empty
    output.loss_sum.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(("name", "options"), MODES)
def test_config_survives_json(name: str, options: dict[str, Any]) -> None:
    section = {"name": name, **SMALL.get(name, {}), **options}
    cls, config = TARGETS.configure(section)
    again = TARGETS.configure({"name": name, **json.loads(config.model_dump_json())})
    assert again == (cls, config)
    shapes = [
        {n: p.shape for n, p in cls(c, HIDDEN_SIZE, IDS).state_dict().items()}
        for c in (config, again[1])
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(("name", "options"), MODES)
def test_four_instances_are_learnt_by_heart(name: str, options: dict[str, Any]) -> None:
    before, after = overfit(build(name, options), make_rows(), steps=100, rate=0.02)
    assert after < 0.25 * before
