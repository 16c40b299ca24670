"""Generation: the choice by hand, the same tokens with and without cache, alone or together."""

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError, DataError
from pipeline.probes import Line
from pipeline.probes.generate import (
    Continuation,
    GenerateProbe,
    GenerationConfig,
    Generator,
    SamplingConfig,
    choose,
)
from tests.pipeline.probes.tiny import (
    CAUSAL,
    CHARACTERS,
    LSTM,
    KeptRows,
    open_model,
    request,
    write_model,
)

ENCODERS = {
    "transformer": (CAUSAL, {"name": "bert", "max_positions": 64}),
    "pre-norm": ({**CAUSAL, "norm_position": "pre"}, {"name": "bert", "max_positions": 64}),
    "rotary": ({**CAUSAL, "positions": "rotary"}, {"name": "word"}),
    "lstm": (LSTM, {"name": "word"}),
    "gru": ({**LSTM, "name": "gru"}, {"name": "word"}),
    "attention": (
        {"name": "attention", "mask": "causal", "hidden_size": 16, "num_layers": 2, "num_heads": 2},
        {"name": "bert", "max_positions": 64},
    ),
    "cnn": ({**LSTM, "name": "cnn"}, {"name": "word"}),
    "gated_cnn": ({**LSTM, "name": "gated_cnn"}, {"name": "word"}),
    "rcnn": ({**LSTM, "name": "rcnn"}, {"name": "word"}),
    "crnn": ({**LSTM, "name": "crnn"}, {"name": "word"}),
}
LOGITS = [2.0, 1.0, 0.0, -1.0]


def chosen(draws, logits=LOGITS, used=(), forbidden=(), **options):
    """Return the choice for each draw, all from the same scores."""
    table = torch.tensor([logits] * len(draws))
    mask = torch.zeros(table.shape, dtype=torch.bool)
    mask[:, list(used)] = True
    config = SamplingConfig(**{"top_p": 1.0, **options})
    return choose(table, mask, list(forbidden), torch.tensor(draws), config).tolist()


def evenly(count):
    """Return draws that hit every part of [0, 1) equally: shares come out exact."""
    return ((np.arange(count) + 0.5) / count).tolist()


def shares(**options):
    found = np.bincount(chosen(evenly(10_000), **options), minlength=4) / 10_000
    return found.tolist()


def softmax(values):
    weights = np.exp(np.array(values) - max(values))
    return weights / weights.sum()


def test_greedy_takes_the_likeliest_whatever_is_drawn():
    assert chosen(evenly(5), temperature=0.0) == [0] * 5
    assert chosen(evenly(5), top_k=1) == [0] * 5
    assert chosen(evenly(5), top_p=0.01) == [0] * 5


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, softmax(LOGITS)),
        ({"temperature": 2.0}, softmax([1.0, 0.5, 0.0, -0.5])),
        ({"top_k": 2}, [*softmax([2.0, 1.0]), 0, 0]),
        ({"top_k": 50}, softmax(LOGITS)),
        # 0.644 + 0.237 = 0.881 reaches 0.8 with two; 0.9 needs three.
        ({"top_p": 0.8}, [*softmax([2.0, 1.0]), 0, 0]),
        ({"top_p": 0.9}, [*softmax([2.0, 1.0, 0.0]), 0]),
        # Among the best three 0.665 are the first's, so that 0.6 is reached by it alone.
        ({"top_k": 3, "top_p": 0.66}, [1, 0, 0, 0]),
        ({"forbidden": [0]}, [0, *softmax([1.0, 0.0, -1.0])]),
        # Positive scores are divided by the penalty, negative ones multiplied.
        ({"repetition_penalty": 2.0, "used": [0, 3]}, softmax([1.0, 1.0, 0.0, -2.0])),
        ({"temperature": 0.5, "repetition_penalty": 2.0, "used": [0]}, softmax([2, 2, 0, -2])),
    ],
)
def test_tokens_come_as_often_as_they_should(options, expected):
    np.testing.assert_allclose(shares(**options), expected, atol=2e-4)


def test_no_draw_leaves_what_is_open_to_choice():
    edge = float(np.nextafter(1.0, 0.0))
    assert chosen([0.0, edge], top_k=2) == [0, 1]
    assert chosen([0.0, edge], forbidden=[3]) == [0, 2]
    assert chosen([edge], logits=[0.0, -200.0, -300.0, 1.0], top_p=1.0) == [3]


@pytest.mark.parametrize("spread", [0.0, 0.5, 8.0])
@pytest.mark.parametrize("top_p", [0.3, 0.95])
@pytest.mark.parametrize("top_k", [0, 1500])
def test_a_nucleus_of_any_width_is_that_of_a_full_sort(spread, top_p, top_k):
    logits = torch.randn(5, 3000, generator=torch.Generator().manual_seed(1)) * spread
    logits += torch.linspace(0, 1e-3, 3000)  # no two are equal
    draws = torch.tensor([0.0, 0.2, 0.5, 0.8, 0.999])
    used = torch.zeros(5, 3000, dtype=torch.bool)
    config = SamplingConfig(top_p=top_p, top_k=top_k)
    found = choose(logits.clone(), used, [], draws, config).tolist()
    for row, draw in enumerate(draws.tolist()):
        order = logits[row].argsort(descending=True)[: top_k or None].numpy()
        probabilities = softmax(logits[row].double().numpy()[order])
        inside = np.cumsum(probabilities) - probabilities < top_p
        sums = np.cumsum(probabilities * inside)
        assert found[row] == order[np.searchsorted(sums, draw * sums[-1], side="right")]


def generator(folder, encoder="transformer", **options):
    network, embedding = ENCODERS[encoder]
    opened = open_model(folder, target="lm", encoder=network, embedding=embedding)
    return Generator(opened, GenerationConfig(**{"new_tokens": 12, "stop": ["是"], **options}))


def continuations(made, texts, first=1):
    lines = [Line(first + n, text) for n, text in enumerate(texts)]
    numbers = np.array([line.number for line in lines])
    return list(made.iter_continuations(made.encode(lines, "in"), numbers))


TEXTS = [CHARACTERS[n : n + 1 + 3 * (n % 4)] for n in range(6)]


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_p": 0.9}, {"top_k": 5}])
def test_with_and_without_cache_the_tokens_are_the_same(tmp_path, encoder, options):
    options = {**options, "repetition_penalty": 1.2}
    cached = generator(tmp_path, encoder, **options)
    whole = Generator(cached.opened, cached.config.model_copy(update={"cache": False}))
    assert cached.cached and not whole.cached
    found = continuations(cached, TEXTS)
    assert found == continuations(whole, TEXTS)
    assert len({tuple(continuation.ids) for continuation in found}) > 3, "texts differ"


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_continuation_is_the_same_alone_and_beside_others(tmp_path, encoder):
    made = generator(tmp_path, encoder, top_p=0.95, samples=2)
    together = continuations(made, TEXTS)
    alone = [one for n, text in enumerate(TEXTS) for one in continuations(made, [text], n + 1)]
    assert together == alone


def test_every_prompt_sample_and_seed_has_its_own_draws(tmp_path):
    made = generator(tmp_path, top_p=1.0, temperature=3.0, samples=3, stop=[])
    first = continuations(made, ["我", "我"])
    assert len({tuple(continuation.ids) for continuation in first}) == 6
    other = Generator(made.opened, made.config.model_copy(update={"seed": 8}))
    assert continuations(other, ["我", "我"]) != first
    assert continuations(made, ["我", "我"]) == first


def plain(made, text):
    """Continue greedily by the plainest loop."""
    ids = made.opened.tokenizer.encode([text]).values.tolist()
    start = len(ids)
    while len(ids) - start < made.config.new_tokens:
        row = torch.tensor([ids])
        with torch.no_grad():
            hidden = made.opened.model.encode({"token_ids": row, "segment_ids": row * 0 + 1})
            logits = made.target.output.logits(hidden[0, -1])
        logits[made.forbidden] = -torch.inf
        for used in set(ids):
            penalty = made.config.repetition_penalty
            logits[used] = logits[used] / penalty if logits[used] > 0 else logits[used] * penalty
        ids.append(int(logits.argmax()))
        if ids[-1] in made.stop.tolist():
            return Continuation(ids[start:-1], "stop")
    return Continuation(ids[start:], "length")


@pytest.mark.parametrize("encoder", ENCODERS)
def test_greedy_is_what_the_plainest_loop_finds(tmp_path, encoder):
    stop = ["是", "了", "不", "在", "人"]
    made = generator(tmp_path, encoder, temperature=0.0, stop=stop, repetition_penalty=1.5)
    found = continuations(made, TEXTS)
    assert found == [plain(made, text) for text in TEXTS]
    assert {continuation.end for continuation in found} <= {"stop", "length"}


def test_a_text_ends_at_a_stop_token_at_its_length_or_with_the_positions(tmp_path):
    made = generator(tmp_path, temperature=0.0, new_tokens=64, stop=[])
    short, full = continuations(made, ["我", "我" * 64])
    assert (len(short.ids), short.end) == (63, "positions")
    assert (full.ids, full.end) == ([], "positions")
    stop = made.opened.vocabulary.tokens[short.ids[4]]
    options = {"stop": [stop], "new_tokens": 40}
    stopping = Generator(made.opened, made.config.model_copy(update=options))
    first = short.ids.index(short.ids[4])
    assert continuations(stopping, ["我"]) == [Continuation(short.ids[:first], "stop")]
    brief = Generator(made.opened, made.config.model_copy(update={"new_tokens": 3}))
    assert continuations(brief, ["我"]) == [Continuation(short.ids[:3], "length")]


def test_every_position_has_its_own_draw(tmp_path):
    made = generator(tmp_path, top_p=1.0, temperature=1e6, stop=[], new_tokens=60)
    (found,) = continuations(made, ["我"])
    # All tokens are equally likely: 60 draws of 53 hit about 36.
    assert 25 < len(set(found.ids)) < 47


def test_special_tokens_stand_before_the_prompt(tmp_path):
    made = generator(tmp_path, special_tokens=True)
    ids = made.opened.vocabulary.ids
    assert made.encode([Line(1, "我看")], "in").values.tolist() == [
        ids["[CLS]"],
        ids["我"],
        ids["看"],
    ]


def test_forbidden_tokens_never_come(tmp_path):
    forbidden = list(CHARACTERS[5:])
    made = generator(tmp_path, top_p=1.0, temperature=5.0, forbidden=forbidden, new_tokens=60)
    banned = {made.opened.vocabulary.ids[token] for token in forbidden}
    for continuation in continuations(made, TEXTS):
        assert not banned & set(continuation.ids)


def test_tokens_that_are_none_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"^stop: '龘' is no token of the vocabulary$"):
        generator(tmp_path, stop=["龘"])
    made = generator(tmp_path)
    with pytest.raises(DataError, match=r"^in:2: no token in it; a prompt needs one$"):
        made.encode([Line(1, "我"), Line(2, "\u200b")], "in")
    with pytest.raises(DataError, match=r"^in:2: 65 tokens; the model has positions for 64"):
        made.encode([Line(1, "我"), Line(2, "我" * 65)], "in")


def test_a_model_that_looks_ahead_cannot_generate(tmp_path):
    opened = open_model(tmp_path, target="mlm")
    with pytest.raises(ConfigError, match="has no target lm, found mlm"):
        Generator(opened, GenerationConfig())


def test_rows_and_books(tmp_path):
    write_model(tmp_path, target="lm", encoder=LSTM, embedding={"name": "word"})
    source = tmp_path / "in.txt"
    source.write_text("我看\n\n大\n", encoding="utf-8")
    output = KeptRows()
    config = GenerateProbe.Config(new_tokens=5, samples=2, stop=[])
    books = GenerateProbe(config, request(tmp_path, source)).run(output)
    assert [(row["line"], row["sample"], row["prompt"], row["tokens"]) for row in output.rows] == [
        (1, 1, "我看", 5),
        (1, 2, "我看", 5),
        (3, 1, "大", 5),
        (3, 2, "大", 5),
    ]
    assert books == {"lines": 3, "skipped": 1, "continuations": 4, "tokens": 20}
