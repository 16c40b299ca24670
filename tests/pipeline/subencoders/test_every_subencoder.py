"""What every subencoder promises, and what each computes, by hand."""

import json
from typing import Any

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.model import build_model
from pipeline.registry import SUBENCODERS
from pipeline.spec import ArchitectureSpec, Component
from tests.pipeline.networks import (
    CHARACTERS,
    IDS,
    collated,
    compose,
    loss_of,
    make_rows,
    overfit,
)

WORDS = torch.tensor([[[3, 4, 5, 0], [6, 0, 0, 0]], [[7, 8, 0, 0], [0, 0, 0, 0]]])


def build(name: str, **options: Any) -> Any:
    cls, config = SUBENCODERS.configure({"name": name, **options})
    torch.manual_seed(0)
    subencoder = cls(config, 12, 6)
    for parameter in subencoder.parameters():
        torch.nn.init.normal_(parameter)
    return subencoder.eval()


@pytest.mark.parametrize("name", SUBENCODERS.names())
def test_shape_gradients_and_json(name: str) -> None:
    cls, config = SUBENCODERS.configure({"name": name})
    again = SUBENCODERS.configure({"name": name, **json.loads(config.model_dump_json())})
    assert again == (cls, config)
    subencoder = build(name)
    features = subencoder(WORDS)
    assert features.shape == (2, 2, 6)
    features.square().sum().backward()
    for parameter in subencoder.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("name", SUBENCODERS.names())
def test_a_word_does_not_depend_on_longer_ones(name: str) -> None:
    subencoder = build(name)
    together = subencoder(WORDS)
    assert torch.allclose(subencoder(WORDS[:1, 1:, :1]), together[:1, 1:], atol=1e-6)
    wider = torch.nn.functional.pad(WORDS, (0, 5))
    assert torch.allclose(subencoder(wider), together, atol=1e-6)


@pytest.mark.parametrize("name", SUBENCODERS.names())
def test_with_read_padding_it_does(name: str) -> None:
    subencoder = build(name, read_padding=True)
    alone, together = subencoder(WORDS[:1, 1:, :1]), subencoder(WORDS)[:1, 1:]
    assert not torch.allclose(alone, together, atol=1e-3)


@pytest.mark.parametrize("name", SUBENCODERS.names())
def test_four_instances_are_learnt_by_heart(name: str) -> None:
    model = compose("lstm", ["lm"], embedding="word", subencoder=name)
    before, after = overfit(model, make_rows(), steps=80)
    assert after < 0.25 * before


@pytest.mark.parametrize("name", SUBENCODERS.names())
def test_the_model_adds_features_of_each_token(name: str) -> None:
    model = compose("lstm", embedding="word", subencoder=name).eval()
    batch, _ = collated(model, make_rows())
    tokens, segments = batch["token_ids"], batch["segment_ids"]
    features = model.subencoder(CHARACTERS.ids[tokens])
    expected = model.encoder(model.embedding(tokens, segments) + features, segments)
    assert torch.allclose(model.encode(batch), expected, atol=1e-5)


def test_mean_by_hand() -> None:
    table = build("avg").embedding.weight
    expected = torch.stack([table[[3, 4, 5]].mean(0), table[6]])
    assert torch.allclose(build("avg")(WORDS)[0], expected, atol=1e-6)


def test_convolution_by_hand() -> None:
    subencoder = build("cnn", kernel_size=2)
    rows, convolution = subencoder.embedding.weight, subencoder.convolution
    before = torch.zeros(6)
    responses = []
    for character in (3, 4, 5):
        window = torch.stack([before, rows[character]], 1)
        responses.append((convolution.weight * window).sum((1, 2)) + convolution.bias)
        before = rows[character]
    expected = torch.stack(responses).relu().amax(0)
    assert torch.allclose(subencoder(WORDS)[0, 0], expected, atol=1e-5)


def test_characters_travel_with_the_weights() -> None:
    model = compose("lstm", ["lm"], embedding="word", subencoder="avg")
    assert torch.equal(model.state_dict()["subencoder.characters"], CHARACTERS.ids)
    other = compose("lstm", ["lm"], embedding="word", subencoder="avg", seed=8)
    other.load_state_dict(model.state_dict())
    batch, _ = collated(model, make_rows())
    assert torch.equal(loss_of(model, batch), loss_of(other, batch))


def test_a_subencoder_needs_characters() -> None:
    architecture = ArchitectureSpec(
        embedding=Component(name="word"),
        encoder=Component(name="lstm"),
        subencoder=Component(name="avg"),
    )
    with pytest.raises(ConfigError, match="subencoder: needs the characters of the vocabulary"):
        build_model(architecture, IDS)
