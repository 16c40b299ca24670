"""Opened models: hidden states of every layer of every encoder, rows in any company."""

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.model import build_model, initialize
from pipeline.registry import ENCODERS
from pipeline.spec import ArchitectureSpec
from pipeline.text.rows import Ragged
from pipeline.text.vocabulary import TokenIds
from pipeline.training.pretrained import PretrainedModel, record_layers
from tests.pipeline.probes.tiny import CAUSAL, CPU, TRANSFORMER, open_model, write_vocabulary

IDS = TokenIds(vocab_size=40, pad=0, unk=1, cls=2, sep=3, mask=4)
SMALL = {"hidden_size": 16, "num_heads": 2, "feedforward_size": 32, "activation": "relu"}
LAYERS = 3
# Settings under which the first layers of a model are a smaller model of the same kind.
PLAIN = {"cnn": {"activation": "none"}, "gated_cnn": {"block_size": 1}}
MIXED = {"rcnn": 2 * LAYERS, "crnn": 2 * LAYERS, "bilstm": 1}


def build(name, num_layers=LAYERS, **options):
    fields = ENCODERS.get(name).Config.model_fields
    settings = {**SMALL, **PLAIN.get(name, {}), **options, "num_layers": num_layers}
    encoder = {"name": name, **{k: v for k, v in settings.items() if k in fields}}
    architecture = ArchitectureSpec.model_validate(
        {"embedding": {"name": "bert", "size": 16}, "encoder": encoder}
    )
    model = build_model(architecture, IDS)
    initialize(model, 7)
    return model.eval()


def batch():
    """Rows of three lengths."""
    lengths = torch.tensor([5, 9, 2])
    inside = torch.arange(9) < lengths[:, None]
    token_ids = torch.arange(27).view(3, 9) % 35 + 5
    return {"token_ids": token_ids * inside, "segment_ids": inside.long(), "lengths": lengths}


def states_of(model):
    rows = batch()
    with torch.no_grad(), record_layers(model) as states:
        states.append(model.encode(rows))
    return states, rows["segment_ids"].bool()


VARIANTS = [
    *((name, {}) for name in ENCODERS.names()),
    ("transformer", {"mask": "causal"}),
    ("transformer", {"positions": "rotary"}),
    ("attention", {"mask": "causal"}),
    ("lstm", {"bidirectional": True}),
    ("gru", {"bidirectional": True}),
]


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_every_encoder_shows_its_layers(name, options):
    model = build(name, **options)
    states, inside = states_of(model)
    assert len(states) == MIXED.get(name, LAYERS) + 1
    assert all(state.shape == (3, 9, 16) for state in states)
    rows = batch()
    with torch.no_grad():
        emb = model.embedding(rows["token_ids"], rows["segment_ids"])
        torch.testing.assert_close(states[0][inside], emb[inside])
        torch.testing.assert_close(states[-1], model.encode(rows))
    assert not any(module._forward_pre_hooks for module in model.modules()), "hooks are gone"


@pytest.mark.parametrize(("name", "options"), [v for v in VARIANTS if v[0] not in MIXED])
@pytest.mark.parametrize("layer", [1, 2])
def test_a_layer_is_the_last_of_the_model_that_ends_there(name, options, layer):
    model, smaller = build(name, **options), build(name, num_layers=layer, **options)
    smaller.load_state_dict(
        {k: v for k, v in model.state_dict().items() if k in smaller.state_dict()}
    )
    states, inside = states_of(model)
    expected, _ = states_of(smaller)
    torch.testing.assert_close(states[layer][inside], expected[-1][inside])


def test_hooks_go_when_encoding_fails():
    model = build("transformer")
    with pytest.raises(IndexError), record_layers(model):
        model.encode({"token_ids": torch.tensor([[99]]), "segment_ids": torch.ones(1, 1).long()})
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("encoder", [TRANSFORMER, CAUSAL])
def test_states_do_not_depend_on_the_company_of_a_row(tmp_path, encoder):
    opened = open_model(tmp_path, encoder=encoder, scale=3.0)
    lists = [[5 + n % 40 for n in range(length)] for length in (3, 17, 1, 9, 30, 9)]
    offsets = np.cumsum([0, *map(len, lists)])
    rows = Ragged(np.concatenate(lists).astype(np.int32), offsets)
    found = {}
    for part, given, states in opened.iter_states(rows, [0, 1, 2]):
        for number, row in enumerate(part.tolist()):
            length = int(given["lengths"][number])
            found[row] = [state[number, :length] for state in states]
    assert sorted(found) == list(range(6)) and not opened.model.training
    for row in range(6):
        alone = next(opened.iter_states(rows.take(np.array([row])), [0, 1, 2]))[2]
        for state, expected in zip(found[row], alone, strict=True):
            torch.testing.assert_close(state, expected[0], atol=1e-5, rtol=1e-4)


def test_a_word_is_a_token_as_it_stands_or_as_text(tmp_path):
    write_vocabulary(tmp_path, "Go", "U.S.")
    opened = open_model(tmp_path)
    ids = opened.vocabulary.ids
    assert opened.token_of("Go") == ids["Go"], "as it stands"
    assert opened.token_of("BOOK") == ids["book"] and opened.token_of("##s") == ids["##s"]
    assert opened.token_of("U.S.") == ids["U.S."]
    for word in ("我们", "龘", "", "[MASK]", "[UNK]"):
        assert opened.token_of(word) is None


def test_special_tokens_are_asked_for_or_as_in_training(tmp_path):
    opened = open_model(tmp_path, special_tokens=False)
    assert [opened.wants_special_tokens(w) for w in (None, True, False)] == [False, True, False]
    untold = PretrainedModel(
        nn.Module(),
        opened.vocabulary,
        opened.tokenizer,
        CPU,
        {},
        "m",  # type: ignore[arg-type]
    )
    assert untold.wants_special_tokens(None), "a model from elsewhere"
    assert opened.room(special_tokens=True) == 30 and opened.room(special_tokens=False) == 32
