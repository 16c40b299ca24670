"""What every encoder promises, in all its modes."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.registry import ENCODERS
from tests.pipeline.networks import (
    ENCODER_MODES,
    HIDDEN_SIZE,
    SMALL,
    collated,
    compose,
    loss_of,
    make_rows,
    overfit,
)

SEGMENTS = torch.tensor([[1, 1, 2, 2, 2], [1, 2, 0, 0, 0], [1, 1, 1, 0, 0]])


def build(name: str, options: dict[str, Any], **more: Any) -> Any:
    return compose(name, **options, **more).encoder.eval()


def inputs(seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(3, 5, HIDDEN_SIZE)


@pytest.mark.parametrize(("name", "options"), ENCODER_MODES)
def test_shape_and_finite_gradients(name: str, options: dict[str, Any]) -> None:
    encoder, emb = build(name, options).train(), inputs().requires_grad_()
    hidden = encoder(emb, SEGMENTS)
    assert hidden.shape == (3, 5, encoder.output_size)
    (hidden * torch.randn(hidden.shape)).sum().backward()
    for found in (emb, *encoder.parameters()):
        assert found.grad is not None
        assert found.grad.isfinite().all()
    assert emb.grad is not None
    assert emb.grad[SEGMENTS > 0].abs().amin(-1).gt(0).all()


@pytest.mark.parametrize(("name", "options"), ENCODER_MODES)
def test_what_stands_under_padding_does_not_matter(name: str, options: dict[str, Any]) -> None:
    encoder, emb = build(name, options), inputs()
    changed = torch.where((SEGMENTS > 0)[:, :, None], emb, inputs(1) * 100)
    tokens = SEGMENTS > 0
    with torch.no_grad():
        first, second = encoder(emb, SEGMENTS)[tokens], encoder(changed, SEGMENTS)[tokens]
    assert torch.allclose(first, second, atol=1e-6)


@pytest.mark.parametrize(("name", "options"), ENCODER_MODES)
def test_a_row_is_the_same_alone_and_in_company(name: str, options: dict[str, Any]) -> None:
    encoder, emb = build(name, options), inputs()
    with torch.no_grad():
        together = encoder(emb, SEGMENTS)
        for row, length in enumerate((SEGMENTS > 0).sum(1).tolist()):
            alone = encoder(emb[row : row + 1, :length], SEGMENTS[row : row + 1, :length])
            assert torch.allclose(together[row, :length], alone[0], atol=1e-5)


@pytest.mark.parametrize(("name", "options"), ENCODER_MODES)
def test_causal_means_what_it_says(name: str, options: dict[str, Any]) -> None:
    encoder, emb = build(name, options), inputs()
    later = emb.clone()
    later[:, 3:] += 1
    full = torch.ones_like(SEGMENTS)
    with torch.no_grad():
        same = torch.allclose(encoder(emb, full)[:, :3], encoder(later, full)[:, :3], atol=1e-6)
    assert same == encoder.causal


@pytest.mark.parametrize(("name", "options"), ENCODER_MODES)
def test_steps_equal_the_whole(name: str, options: dict[str, Any]) -> None:
    encoder, emb = build(name, options), inputs()
    if not encoder.causal:
        if hasattr(encoder, "step"):
            with pytest.raises(ConfigError, match="cannot generate"):
                encoder.step(emb, None)
        return
    cache, parts = None, []
    with torch.no_grad():
        for piece in emb.split([2, 1, 2], 1):
            hidden, cache = encoder.step(piece, cache)
            parts.append(hidden)
        whole = encoder(emb, torch.ones_like(SEGMENTS))
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)


@pytest.mark.parametrize(("name", "options"), ENCODER_MODES)
def test_config_survives_json(name: str, options: dict[str, Any]) -> None:
    section = {"name": name, "hidden_size": HIDDEN_SIZE, **SMALL.get(name, {}), **options}
    cls, config = ENCODERS.configure(section)
    again, twin = ENCODERS.configure({"name": name, **json.loads(config.model_dump_json())})
    assert (again, twin) == (cls, config)
    first, second = cls(config, HIDDEN_SIZE), cls(twin, HIDDEN_SIZE)
    assert [p.shape for p in first.parameters()] == [p.shape for p in second.parameters()]
    assert set(first.state_dict()) == set(second.state_dict())


@pytest.mark.parametrize(("name", "options"), ENCODER_MODES)
def test_same_bits_again(name: str, options: dict[str, Any]) -> None:
    noise = {"dropout": 0.2} if "dropout" in ENCODERS.get(name).Config.model_fields else {}
    results = []
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(2):
            encoder = build(name, {**options, **noise}).train()
            torch.manual_seed(9)
            encoder(inputs(), SEGMENTS).square().sum().backward()
            results.append([p.grad for p in encoder.parameters()])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize(("name", "options"), ENCODER_MODES)
def test_four_instances_are_learnt_by_heart(name: str, options: dict[str, Any]) -> None:
    causal = build(name, options).causal
    model = compose(name, ["lm" if causal else "cls"], **options)
    before, after = overfit(model, make_rows(), steps=80)
    assert after < 0.25 * before


@pytest.mark.parametrize(("name", "options"), ENCODER_MODES)
def test_padding_width_does_not_change_the_loss(name: str, options: dict[str, Any]) -> None:
    model = compose(name, ["mlm"], **options).eval()
    rows = make_rows((5, 30, 7, 3))
    with torch.no_grad():
        losses = [loss_of(model, collated(model, rows, width)[0]).item() for width in (None, 64)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("name", ["transformer", "attention", "gated_cnn"])
def test_sizes_must_be_equal_where_input_is_added(name: str) -> None:
    cls, config = ENCODERS.configure({"name": name, "hidden_size": 16, **SMALL.get(name, {})})
    with pytest.raises(ConfigError, match=f"the encoder {name} adds its input"):
        cls(config, 8)


@pytest.mark.parametrize("name", ["lstm", "gru", "bilstm", "cnn", "rcnn", "crnn"])
def test_other_encoders_take_any_input_size(name: str) -> None:
    cls, config = ENCODERS.configure({"name": name, "hidden_size": 16})
    assert cls(config, 6)(torch.randn(2, 3, 6), torch.ones(2, 3)).shape == (2, 3, 16)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"name": "transformer", "hidden_size": 770, "num_heads": 12},
            "encoder.num_heads: 12 does not divide hidden_size 770; use 10, 11 or 14",
        ),
        (
            {"name": "attention", "hidden_size": 10, "num_heads": 4},
            "encoder.num_heads: 4 does not divide hidden_size 10; use 1, 2 or 5",
        ),
        (
            {"name": "transformer", "hidden_size": 9, "num_heads": 3, "positions": "rotary"},
            "encoder.positions: rotary needs heads of even size, not 3",
        ),
        (
            {"name": "lstm", "hidden_size": 9, "bidirectional": True},
            "encoder.bidirectional: two directions need an even hidden_size, not 9; use 10",
        ),
        (
            {"name": "bilstm", "hidden_size": 9},
            "encoder.hidden_size: 9 is odd, and each direction has half; use 10",
        ),
        ({"name": "lstm", "num_layers": 0}, "encoder.num_layers: "),
        ({"name": "cnn", "kernel_size": 0}, "encoder.kernel_size: "),
        ({"name": "transformer", "dropout": 1.0}, "encoder.dropout: "),
        ({"name": "transformer", "layers": 3}, "encoder.layers: unknown key"),
        ({"name": "tranformer"}, "encoder.name: no encoder 'tranformer'; did you mean 'transf"),
    ],
)
def test_wrong_settings(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ENCODERS.configure(section)
    assert caught.value.problems[0].startswith(message), caught.value.problems
