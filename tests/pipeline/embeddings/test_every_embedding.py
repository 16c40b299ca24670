"""What every embedding promises, and what each computes, by hand."""

import json

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.registry import EMBEDDINGS
from tests.pipeline.networks import VOCAB_SIZE, collated, compose, make_rows, overfit

TOKENS = torch.tensor([[5, 6, 7], [8, 0, 0]])
SEGMENTS = torch.tensor([[1, 1, 2], [1, 0, 0]])


@pytest.mark.parametrize("name", EMBEDDINGS.names())
def test_shape_gradients_and_json(name: str) -> None:
    cls, config = EMBEDDINGS.configure({"name": name, "size": 8})
    assert EMBEDDINGS.configure({"name": name, **json.loads(config.model_dump_json())})[1] == config
    embedding = cls(config, VOCAB_SIZE)
    emb = embedding(TOKENS, SEGMENTS)
    assert emb.shape == (2, 3, embedding.output_size) == (2, 3, 8)
    (emb * torch.randn(emb.shape)).sum().backward()
    for name, parameter in embedding.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert embedding.word.weight.grad[8].abs().sum() > 0
    assert embedding.word.weight.grad[9].abs().sum() == 0


@pytest.mark.parametrize("name", EMBEDDINGS.names())
def test_four_instances_are_learnt_by_heart(name: str) -> None:
    before, after = overfit(compose("lstm", ["lm"], embedding=name), make_rows(), steps=80)
    assert after < 0.25 * before


@pytest.mark.parametrize("name", EMBEDDINGS.names())
def test_size_is_the_encoders_where_it_is_not_given(name: str) -> None:
    assert compose("gru", embedding=name, hidden_size=24).embedding.output_size == 24


def test_bert_is_the_normed_sum_of_its_tables() -> None:
    embedding = compose("lstm", embedding="bert").embedding
    total = (
        embedding.word.weight[TOKENS]
        + embedding.position.weight[:3]
        + embedding.segment.weight[SEGMENTS]
    )
    expected = torch.nn.functional.layer_norm(total, total.shape[-1:], eps=1e-12)
    assert torch.allclose(embedding(TOKENS, SEGMENTS), expected, atol=1e-5)


def test_word_looks_at_tokens_only() -> None:
    embedding = compose("lstm", embedding="word").embedding
    assert set(embedding.state_dict()) == {"word.weight", "norm.weight", "norm.bias"}
    same = embedding(TOKENS, SEGMENTS), embedding(TOKENS, SEGMENTS * 0, first_position=7)
    assert torch.equal(*same)


def test_positions_count_from_the_first() -> None:
    embedding = compose("lstm", embedding="bert").embedding
    whole = embedding(TOKENS, SEGMENTS)
    part = embedding(TOKENS[:, 1:], SEGMENTS[:, 1:], first_position=1)
    assert torch.allclose(part, whole[:, 1:], atol=1e-6)


def test_no_positions_where_none_are_wanted() -> None:
    cls, config = EMBEDDINGS.configure({"name": "bert", "size": 8, "positions": "none"})
    embedding = cls(config, VOCAB_SIZE).eval()
    emb = embedding(torch.full((1, 900), 5), torch.ones(1, 900, dtype=torch.int64))
    assert torch.equal(emb[0, 0], emb[0, -1])


def test_longer_than_the_table_of_positions() -> None:
    model = compose("lstm", ["lm"])
    batch, _ = collated(model, make_rows((513,)))
    with pytest.raises(ConfigError) as caught:
        model(batch)
    assert str(caught.value) == (
        "embedding.max_positions: 512 is less than the 513 tokens of a row; use a shorter "
        "seq_length or more positions"
    )


@pytest.mark.parametrize("name", EMBEDDINGS.names())
def test_the_preset_takes_the_reference_norm(name: str) -> None:
    standard = compose("lstm", embedding=name).embedding(TOKENS, SEGMENTS)
    preset = compose("lstm", embedding=name, reference="uer-2020").embedding(TOKENS, SEGMENTS)
    assert preset.std(-1).mean().item() == pytest.approx(1, abs=1e-3)
    assert standard.std(-1).mean().item() == pytest.approx((16 / 15) ** 0.5, abs=1e-3)
